"""GELU that is written out becomes one op."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import fx

from trtplug_lowering_passes._nodes import (
    argument,
    calls,
    constant_of,
    erase_unused,
    number,
    only_user,
    replace,
    tensor_of,
)
from trtplug_registry import applied, lowering_pass

aten = torch.ops.aten

Polynomial: TypeAlias = Mapping[tuple[fx.Node, ...], float]
"""Coefficients of products of nodes (sorted, a power being a repetition); () is the constant's."""

_SIGMOIDS = frozenset({aten.erf.default, aten.tanh.default})
_MOST_TERMS = 8
_EXACTNESS = 1e-5
"""Relative: what a written constant may be off, of which float32 resolves 1e-7. 1.702 for GELU's sigmoid is far off."""

_ERF: Mapping[int, float] = {1: math.sqrt(0.5)}
_TANH: Mapping[int, float] = {1: math.sqrt(2 / math.pi), 3: math.sqrt(2 / math.pi) * 0.044715}
"""What stands in erf and in tanh: coefficients by the power of x."""


@lowering_pass(
    "gelu",
    ops=_SIGMOIDS,
    phase="early",
    after=["constant-folding-early"],
    before=["precision", "dead-code-early"],
)
def recognise_gelu(graph_module: fx.GraphModule) -> bool:
    """Writes ``x / 2 * (1 + erf(x / √2))`` and ``x / 2 * (1 + tanh(√(2/π) (x + 0.044715 x³)))`` as ``gelu``.

        x ─┬─ mul(0.5) ───────────────────┐
           └─ div(1.414) ─ erf ─ add(1) ─ mul ─ y    →    x ─ gelu ─ y

    However the factors are ordered and grouped: both sides are compared as polynomials. Results differ by rounding; in
    halves the op rounds once, at its end. Declines where a step is read elsewhere, where dtypes change on the way, and
    where a constant is off by more than a hundred-thousandth: then it is another function.
    """
    changed = False
    for node in calls(graph_module.graph):
        if node.target in _SIGMOIDS:
            changed |= _recognise(graph_module, node)
    return changed


def _recognise(graph_module: fx.GraphModule, inner: fx.Node) -> bool:
    inside = _Expansion(graph_module).of(inner.args[0], top=True)
    exact = inner.target is aten.erf.default
    x = _variable(inside, _ERF if exact else _TANH)
    if x is None:
        return False
    wanted = {(x,): 0.5, tuple(sorted((x, inner))): 0.5}
    root = inner
    for _ in range(4):
        user = only_user(root)
        if user is None or user.op != "call_function":
            return False
        root = user
        if _same(_Expansion(graph_module).of(root, top=True), wanted):
            break
    else:
        return False
    given, result = tensor_of(x), tensor_of(root)
    if given is None or result is None or given.dtype != result.dtype or not given.dtype.is_floating_point:
        return False
    with root.graph.inserting_before(root):
        kwargs: dict[str, Any] = {} if exact else {"approximate": "tanh"}
        new = root.graph.call_function(aten.gelu.default, (x,), kwargs)
    new.meta = dict(root.meta)
    applied(graph_module, "gelu")
    sources = root.all_input_nodes
    replace(root, new)
    erase_unused(*sources)
    return True


def _variable(polynomial: Polynomial | None, wanted: Mapping[int, float]) -> fx.Node | None:
    """The node whose powers a polynomial is made of, if it has these coefficients."""
    names = {node for nodes in polynomial or () for node in nodes}
    if len(names) != 1:
        return None
    (x,) = names
    return x if _same(polynomial, {(x,) * power: factor for power, factor in wanted.items()}) else None


def _same(one: Polynomial | None, other: Polynomial) -> bool:
    return (
        one is not None
        and one.keys() == other.keys()
        and all(math.isclose(one[nodes], other[nodes], rel_tol=_EXACTNESS) for nodes in other)
    )


class _Expansion:
    """Sums and products as polynomials, through nodes that nothing else reads."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.graph_module = graph_module

    def of(self, value: Any, *, top: bool = False) -> Polynomial | None:
        """None where it has too many terms."""
        if not isinstance(value, fx.Node):
            known = number(value)
            return None if known is None else {(): known}
        constant = constant_of(self.graph_module, value)
        if constant is not None and constant.dim() == 0 and constant.dtype.is_floating_point:
            return {(): float(constant)}
        if value.op != "call_function" or not (top or only_user(value)):
            return {(value,): 1.0}
        expanded = self._call(value)
        return {(value,): 1.0} if expanded is None else expanded

    def _call(self, node: fx.Node) -> Polynomial | None:
        target = node.target
        if target in (aten.mul.Tensor, aten.mul.Scalar):
            return _product(self.of(node.args[0]), self.of(node.args[1]))
        if target in (aten.div.Tensor, aten.div.Scalar):
            divisor = self.of(node.args[1])
            if divisor is None or list(divisor) != [()] or not divisor[()]:
                return None
            return _product(self.of(node.args[0]), {(): 1 / divisor[()]})
        if target in (aten.add.Tensor, aten.add.Scalar) and argument(node, "alpha") == 1:
            return _sum(self.of(node.args[0]), self.of(node.args[1]))
        if target is aten.pow.Tensor_Scalar and node.args[1] in (2, 3):
            base = self.of(node.args[0])
            return functools.reduce(_product, [base] * int(node.args[1]))  # type: ignore[arg-type]  # 2 or 3
        return None


def _sum(one: Polynomial | None, other: Polynomial | None) -> Polynomial | None:
    if one is None or other is None:
        return None
    total = {nodes: one.get(nodes, 0.0) + other.get(nodes, 0.0) for nodes in (*one, *other)}
    return total if len(total) <= _MOST_TERMS else None


def _product(one: Polynomial | None, other: Polynomial | None) -> Polynomial | None:
    if one is None or other is None or len(one) * len(other) > _MOST_TERMS:
        return None
    total: dict[tuple[fx.Node, ...], float] = {}
    for left, a in one.items():
        for right, b in other.items():
            nodes = tuple(sorted((*left, *right)))
            total[nodes] = total.get(nodes, 0.0) + a * b
    return total
