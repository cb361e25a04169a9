"""Rotary position embedding: the sign of the turned half goes into the sines."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._nodes import (
    argument,
    call_like,
    calls,
    constant_made_of,
    constant_of,
    erase_unused,
    new_constant,
    number,
    only_user,
    replace,
    tensor_of,
)
from trtplug_registry import applied, lowering_pass, reaches_output

aten = torch.ops.aten


@lowering_pass(
    "rotary",
    ops=[aten.cat.default],
    phase="early",
    after=["constant-folding-early"],
    before=["precision", "dead-code-early"],
)
def canonical_rotary(graph_module: fx.GraphModule) -> bool:
    """Turns halves without negating one: its sign is that of a constant.

        x ─┬─ slice(d/2:) ─ neg ─┐                       x ─┬─ slice(d/2:) ─┐
           └─ slice(:d/2) ────── cat ─ mul(sin) ─ y  →      └─ slice(:d/2) ─ cat ─ mul(sin, its first half negated) ─ y

    Exact: (-a) b is a (-b). Sines that are computed in each call (from positions that are an input) are negated there,
    once for all that use them, so at least two must. Declines where the turned halves are read elsewhere.

    TensorRT's rotary embedding layer takes half of the cosines and sines for each element of the batch, or a table and
    positions. A graph shows neither: sines are of one batch element and of full width, both halves equal by how they
    were computed, which cannot be seen once they are an input.
    """
    found: dict[fx.Node, list[fx.Node]] = {}
    for node in calls(graph_module.graph):
        if node.target is aten.cat.default:
            sines = _sines(node)
            if sines is not None:
                found.setdefault(sines, []).append(node)
    changed = False
    for sines, turned in found.items():
        if constant_of(graph_module, sines) is not None or len(turned) > 1:
            negated = _negated(graph_module, sines)
            for node in turned:
                _turn(node, sines, negated)
                applied(graph_module, "rotary")
            changed = True
    return changed


def _sines(node: fx.Node) -> fx.Node | None:
    """What halves of the last axis are multiplied with, once they are swapped and the first is negated."""
    parts: Any = argument(node, "tensors")
    whole, user = tensor_of(node), only_user(node)
    if len(parts) != 2 or whole is None or user is None or user.target is not aten.mul.Tensor or reaches_output(node):
        return None
    negative, second = parts
    if not isinstance(negative, fx.Node) or negative.target is not aten.neg.default or only_user(negative) is None:
        return None
    width = whole.shape[-1]
    if argument(node, "dim") not in (-1, whole.dim() - 1) or type(width) is not int or width % 2:
        return None
    half = width // 2
    if not (_is_half(negative.args[0], half, upper=True) and _is_half(second, half, upper=False)):
        return None
    if negative.args[0].args[0] is not second.args[0]:  # type: ignore[union-attr]  # both are calls
        return None
    sines = next((other for other in user.args if other is not node), None)
    tensor = tensor_of(sines)
    fits = tensor is not None and tensor.dim() > 0 and tensor.shape[-1] == width and tensor.dtype == whole.dtype
    return sines if fits and isinstance(sines, fx.Node) else None


def _is_half(node: Any, half: int, *, upper: bool) -> bool:
    """Whether a node is that half of the last axis of its argument."""
    if not isinstance(node, fx.Node) or node.target is not aten.slice.Tensor:
        return False
    source = tensor_of(node.args[0])
    if source is None or number(source.shape[-1]) != 2 * half or argument(node, "step") != 1:
        return False
    start, end = argument(node, "start") or 0, argument(node, "end")
    end = sys.maxsize if end is None else end
    if argument(node, "dim") not in (-1, source.dim() - 1) or type(start) is not int or type(end) is not int:
        return False
    return range(2 * half)[start:end] == (range(half, 2 * half) if upper else range(half))


def _negated(graph_module: fx.GraphModule, sines: fx.Node) -> fx.Node:
    """The sines, the first half negated."""
    tensor = tensor_of(sines)
    assert tensor is not None
    half = tensor.shape[-1] // 2
    signs = torch.ones(2 * half, dtype=tensor.dtype, device=tensor.device)
    signs[:half] = -1
    place, known = sines.next, constant_of(graph_module, sines)
    if known is not None:
        return constant_made_of(graph_module, place, sines, "_turned", known * signs)
    constant = new_constant(graph_module, place, "folded_signs", signs, frozenset())
    with sines.graph.inserting_before(place):
        negated = sines.graph.call_function(aten.mul.Tensor, (sines, constant))
    negated.meta = dict(sines.meta)
    return negated


def _turn(node: fx.Node, sines: fx.Node, negated: fx.Node) -> None:
    negative, second = argument(node, "tensors")
    user = only_user(node)
    assert user is not None
    new = call_like(node, aten.cat.default, [negative.args[0], second], -1)
    user.args = tuple(negated if item is sines else item for item in user.args)
    replace(node, new)
    erase_unused(negative)
