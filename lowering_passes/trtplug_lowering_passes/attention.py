"""Attention that is written out becomes one op."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._bounds import BoundsBook
from trtplug_lowering_passes._nodes import (
    argument,
    call_before,
    calls,
    constant_of,
    erase_unused,
    is_cast,
    number,
    only_user,
    replace,
    sizes_key,
    tensor_of,
)
from trtplug_lowering_passes.views import order_of
from trtplug_registry import applied, decline, lowering_pass, reaches_output

aten = torch.ops.aten

SEES_KEYS = "sees_keys"
"""In ``meta`` of an attention op: no query is masked throughout, so that none needs the 0 that Torch's kernels give."""

_SOFTMAX = frozenset({aten.softmax.int, aten._softmax.default, aten._safe_softmax.default})
_PRODUCTS = frozenset({aten.matmul.default, aten.bmm.default})
_MEMORY_READERS = frozenset(
    {aten.as_strided.default, aten.view.dtype, aten.view_as_complex.default, aten.view_as_real.default}
)
_MINUS_INFINITY = {torch.float16: -6e4, torch.bfloat16: -1e9, torch.float32: -1e9, torch.float64: -1e9}
"""A score from here down has weight 0 beside any usual one."""


class _NotAttentionError(Exception):
    """It is something else, or not known to be attention: the reason."""


@lowering_pass(
    "attention",
    ops=_SOFTMAX,
    phase="early",
    after=["constant-folding-early", "views-early"],
    before=["precision", "dead-code-early"],
)
def recognise_attention(graph_module: fx.GraphModule) -> bool:
    """Writes a softmax between two matrix products as one ``scaled_dot_product_attention``.

        q ─ matmul ─ mul(s) ─ add ─ softmax ─ matmul ─ y        q ─ sdpa(scale=s) ─ y
        k ─ transpose┘       mask┘         v┘              →     k, v, mask ┘

    The scale may be a factor or divisor of the product, of q or of k, or be missing; masks are added, or chosen by
    ``where`` or ``masked_fill``; the softmax may be taken in float32. Results differ by rounding: of halves fewer are
    rounded, and scores are scaled before or after the product.

    Declines where weights or scores are read elsewhere too, where heads or batches are broadcast, where a mask has
    another dtype, and where some query may see no key at all: that gives nan (or the mean of all values) when written
    out, and 0 from Torch's kernels. That no such query exists follows from what the mask is computed from: constants,
    or choices between finite numbers.
    """
    bounds = BoundsBook(graph_module)
    changed = False
    for node in calls(graph_module.graph):
        if node.target not in _SOFTMAX:
            continue
        try:
            _Attention(graph_module, node, bounds).write()
            applied(graph_module, "attention")
            changed = True
        except _NotAttentionError as reason:
            if str(reason):
                decline(graph_module, "attention", str(reason))
    return changed


@dataclasses.dataclass
class _Choice:
    """Scores are replaced where a bool tensor says so."""

    condition: fx.Node
    keep: bool
    """Whether it says which scores stay, rather than which are replaced."""
    addend: float | None
    """What to add to replaced scores to the same effect; None where the condition itself is to be the mask."""
    safe: bool
    """Whether each query keeps a key."""


class _Attention:
    """One softmax, and what is found around it.

    Raises:
        _NotAttentionError: with a reason, or without where nothing suggests attention.
    """

    def __init__(self, graph_module: fx.GraphModule, softmax: fx.Node, bounds: BoundsBook) -> None:
        self.graph_module, self.softmax, self.bounds = graph_module, softmax, bounds
        self.scale = 1.0
        self.addends: list[fx.Node] = []
        self.choice: _Choice | None = None
        self.result, self.value = self._second_product()
        query, key = self._first_product()
        self.query, self.key = self._factor(query), self._factor(key)
        self._check_shapes()
        self.safe = self.choice.safe if self.choice else self._addends_leave_a_key()

    # --- what is there ----------------------------------------------------------------------------------------------

    def _second_product(self) -> tuple[fx.Node, fx.Node]:
        rank = len(_shape(self.softmax))
        if argument(self.softmax, "dim") not in (-1, rank - 1):
            raise _NotAttentionError
        weights = self.softmax
        user = only_user(weights)
        while user is not None and is_cast(user):
            weights, user = user, only_user(user)
        if user is None:
            products = [node for node in weights.users if node.target in _PRODUCTS and node.args[0] is weights]
            raise _NotAttentionError("its weights are read elsewhere" if products else "")
        if user.target not in _PRODUCTS or user.args[0] is not weights or user.args[1] is weights:
            raise _NotAttentionError
        return user, user.args[1]  # type: ignore[return-value]  # a tensor argument

    def _first_product(self) -> tuple[fx.Node, fx.Node]:
        """Query and transposed key; what stands between the product and the softmax is kept in mind."""
        node, scaled = self.softmax.args[0], False
        while isinstance(node, fx.Node) and node.target not in _PRODUCTS:
            factor = _factor_of(node)
            if factor is not None:
                self.scale *= factor
                scaled = True
                inner = node.args[0]
            elif is_cast(node):
                inner = node.args[0]
            else:
                inner = self._masked(node)
                if scaled:
                    raise _NotAttentionError("the mask is scaled with the scores")
            if only_user(node) is None:
                raise _NotAttentionError("its scores are read elsewhere" if self._leads_to_product(inner) else "")
            node = inner
        if not isinstance(node, fx.Node):
            raise _NotAttentionError
        if only_user(node) is None:
            raise _NotAttentionError("its scores are read elsewhere")
        return node.args[0], node.args[1]  # type: ignore[return-value]  # tensor arguments

    def _masked(self, node: fx.Node) -> Any:
        """The scores in a node that masks them."""
        if node.target is aten.add.Tensor and argument(node, "alpha") == 1:
            one, other = node.args[:2]
            if not self._leads_to_product(one):
                one, other = other, one
            if self._leads_to_product(one) and isinstance(other, fx.Node) and other is not one:
                if self.choice is not None:
                    raise _NotAttentionError("more than one mask")
                self.addends.insert(0, other)
                return one
        elif node.target in (aten.where.self, aten.where.ScalarOther):
            self._choose(node, node.args[0], self._fill(node.args[2]), keep=True)
            return node.args[1]
        elif node.target in (aten.masked_fill.Scalar, aten.masked_fill.Tensor):
            self._choose(node, node.args[1], self._fill(node.args[2]), keep=False)
            return node.args[0]
        raise _NotAttentionError

    def _leads_to_product(self, node: Any) -> bool:
        """Whether a chain of what may stand between product and softmax starts here and ends in a product."""
        while isinstance(node, fx.Node) and node.op == "call_function":
            if node.target in _PRODUCTS:
                return True
            if node.target is aten.add.Tensor:
                return any(self._leads_to_product(operand) for operand in node.args[:2])
            if node.target in (aten.where.self, aten.where.ScalarOther):
                node = node.args[1]
            elif _factor_of(node) is not None or is_cast(node) or node.target is aten.masked_fill.Scalar:
                node = node.args[0]
            else:
                return False
        return False

    def _fill(self, value: Any) -> float:
        bounds = self.bounds.of(value)
        if bounds is None or bounds[0] != bounds[1]:
            raise _NotAttentionError
        return bounds[0]

    def _choose(self, node: fx.Node, condition: Any, fill: float, *, keep: bool) -> None:
        """Scores are replaced where the condition says so: taken as a bool mask, or as an addend."""
        dtype = _tensor(node).dtype
        if self.choice is not None or self.addends or not isinstance(condition, fx.Node):
            raise _NotAttentionError("more than one mask")
        if fill > _MINUS_INFINITY.get(dtype, -math.inf):
            raise _NotAttentionError("what masked scores are replaced by is not small enough to have no weight")
        known = constant_of(self.graph_module, condition)
        if known is not None:
            stays = known if keep else ~known
            if not bool(stays.any(-1).all()):
                raise _NotAttentionError("a query sees no key")
        elif not self._may_be_blind(fill, dtype):
            raise _NotAttentionError("a query may see no key")
        # the lowest number takes every usual score in by rounding: a query without keys still sees all alike
        addend = fill if known is None and not math.isinf(fill) else None
        self.choice = _Choice(condition, keep, addend, known is not None or addend is not None)

    def _may_be_blind(self, fill: float, dtype: torch.dtype) -> bool:
        """Whether it does not matter if a query sees no key: it gives the same, written out and as one op."""
        if math.isinf(fill):
            return self.softmax.target is aten._safe_softmax.default
        return fill <= torch.finfo(dtype).min / 2 and dtype != torch.float16  # which overflows when it is added

    def _factor(self, node: fx.Node) -> fx.Node:
        """Without the number that it is multiplied by, which becomes part of the scale."""
        factor = _factor_of(node)
        if factor is None or only_user(node) is None or tensor_of(node.args[0]) is None:
            return node
        if _tensor(node.args[0]).dtype != _tensor(node).dtype:
            return node
        self.scale *= factor
        return node.args[0]  # type: ignore[return-value]  # it has a tensor

    def _check_shapes(self) -> None:
        query, key, value = map(_shape, (self.query, self.key, self.value))
        if not len(query) == len(key) == len(value) >= 2:
            raise _NotAttentionError("queries, keys and values differ in rank")
        if not query[:-2] == key[:-2] == value[:-2]:
            raise _NotAttentionError("heads or batches are broadcast")
        dtypes = {_tensor(node).dtype for node in (self.query, self.key, self.value, self.result)}
        if len(dtypes) > 1:
            raise _NotAttentionError("queries, keys and values differ in dtype")
        scores = (*query[:-1], key[-1])
        for mask in self.addends + ([self.choice.condition] if self.choice else []):
            shape, dtype = _shape(mask), _tensor(mask).dtype
            if dtype not in dtypes and (mask in self.addends or dtype != torch.bool):
                raise _NotAttentionError("the mask has another dtype")
            fits = 2 <= len(shape) <= len(scores) and all(
                size in (1, whole) for size, whole in zip(shape, scores[len(scores) - len(shape) :])
            )
            if not fits:
                raise _NotAttentionError("the mask does not broadcast to the scores")

    # --- what takes its place ---------------------------------------------------------------------------------------

    def write(self) -> None:
        mask = self._mask()
        place = self.result
        turned = order_of(self.key)
        rank = len(_shape(self.key))
        if turned == [*range(rank - 2), rank - 1, rank - 2]:
            key: Any = self.key.args[0]
        else:
            key = call_before(place, aten.transpose.int, self.key, -2, -1)
        operands = (self.query, key, self.value, mask, 0.0, False)
        with place.graph.inserting_before(place):
            node = place.graph.call_function(aten.scaled_dot_product_attention.default, operands, {"scale": self.scale})
        # its kernels may lay the result out otherwise, which is seen where memory is read or returned
        node.meta = {**place.meta}
        if self.safe:
            node.meta[SEES_KEYS] = True
        reads_memory = any(place.graph.find_nodes(op="call_function", target=op) for op in _MEMORY_READERS)
        result = call_before(place, aten.contiguous.default, node) if reads_memory or reaches_output(place) else node
        sources = place.all_input_nodes
        replace(place, result)
        erase_unused(*sources)

    def _mask(self) -> fx.Node | None:
        """The mask as one node, written in front of the softmax."""
        place = self.softmax
        if self.choice is not None:
            condition, dtype = self.choice.condition, _tensor(self.query).dtype
            if self.choice.addend is None:
                return condition if self.choice.keep else call_before(place, aten.logical_not.default, condition)
            numbers = (0.0, self.choice.addend) if self.choice.keep else (self.choice.addend, 0.0)
            mask = call_before(place, aten.where.Scalar, condition, *numbers)
            same = _tensor(mask).dtype == dtype
            return mask if same else call_before(place, aten._to_copy.default, mask, dtype=dtype)
        if not self.addends:
            return None
        first, *rest = self.addends
        return functools.reduce(lambda one, two: call_before(place, aten.add.Tensor, one, two), rest, first)

    def _addends_leave_a_key(self) -> bool:
        """Whether each query sees some key, as far as is known.

        Raises:
            _NotAttentionError: that is not known, and matters.
        """
        known = [self.bounds.of(addend) for addend in self.addends]
        low = sum((-math.inf if bounds is None else bounds[0] for bounds in known), 0.0)
        if bool(torch.tensor(low, dtype=torch.float64).to(_tensor(self.query).dtype).isfinite()):
            return True
        if len(self.addends) == 1:
            constant = constant_of(self.graph_module, self.addends[0])
            if constant is not None and not bool((constant == -math.inf).all(-1).any()):
                return True
        if self.softmax.target is not aten._safe_softmax.default:
            raise _NotAttentionError("a query may see no key")
        return False


def _factor_of(node: Any) -> float | None:
    """The number that a node multiplies its first argument by."""
    if not isinstance(node, fx.Node):
        return None
    if node.target in (aten.mul.Tensor, aten.mul.Scalar):
        return number(node.args[1])
    if node.target in (aten.div.Tensor, aten.div.Scalar):
        divisor = number(node.args[1])
        return 1 / divisor if divisor else None
    return None


def _tensor(node: Any) -> torch.Tensor:
    tensor = tensor_of(node)
    if tensor is None:
        raise _NotAttentionError
    return tensor


def _shape(node: Any) -> tuple[Any, ...]:
    return sizes_key(_tensor(node).shape)
