"""Chains of reshapes and of permutations become one of each, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._nodes import (
    argument,
    call_like,
    calls,
    replace,
    size_key,
    sizes_key,
    tensor_of,
)
from trtplug_registry import Returned, lowering_pass

aten = torch.ops.aten

RESHAPES = frozenset({aten.reshape.default, aten.view.default, aten._unsafe_view.default})
"""Ops that say their result's sizes."""

_RESHAPING = RESHAPES | {
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.view_as.default,
    aten.reshape_as.default,
}
"""Ops that keep the order of elements, whose result is their first argument in other sizes."""

_SWAPS = frozenset({aten.transpose.int, aten.swapaxes.default, aten.swapdims.default})
_TRANSPOSES = frozenset({aten.t.default, aten.numpy_T.default, aten.mT.default})

_PERMUTATIONS = _SWAPS | _TRANSPOSES | {aten.permute.default}

_ANY_LAYOUT = RESHAPES | {
    aten.matmul.default,
    aten.mm.default,
    aten.bmm.default,
    aten.linear.default,
    aten.addmm.default,
    aten.baddbmm.default,
}
"""Ops that give the same, in contiguous memory, however their arguments lie in memory (views being made reshapes)."""


def order_of(node: Any) -> list[int] | None:
    """For a node that permutes axes, which axis of its argument each axis of its result is."""
    if not isinstance(node, fx.Node) or node.target not in _PERMUTATIONS:
        return None
    before = tensor_of(node.args[0]) if node.args else None
    if before is None:
        return None
    rank = before.dim()
    order = list(range(rank))
    if node.target is aten.permute.default:
        return [axis % rank for axis in argument(node, "dims")]
    if node.target in _SWAPS:
        one, other = node.args[1:3] if len(node.args) == 3 else node.kwargs.values()
        if rank:
            order[one], order[other] = order[other], order[one]  # type: ignore[index]  # ints by the schema
        return order
    if node.target in _TRANSPOSES:
        return [*order[:-2], *reversed(order[-2:])] if node.target is aten.mT.default or rank < 3 else None
    return None


def is_mover(node: Any) -> bool:
    """Whether a call is one of those that this module joins: its elements are its argument's, in some order."""
    return isinstance(node, fx.Node) and (node.target in _RESHAPING or order_of(node) is not None)


def canonical_views(graph_module: fx.GraphModule) -> bool:
    """Joins what only moves elements around.

        x ─ view(a) ─ reshape(b)                →  x ─ reshape(b)
        x ─ reshape ─ reshape(x's sizes)        →  x
        x ─ permute(p) ─ transpose(i, j)        →  x ─ permute(p with i and j swapped), or x where that moves nothing
        x: [1, 8, 1, 4] ─ permute(0, 2, 3, 1)   →  x ─ reshape, if only axes of size 1 pass others
        x ─ transpose ─ contiguous ─ view       →  x ─ transpose ─ reshape

    A ``view`` is always made a ``reshape``: the strides that it needs may be gone once another pass has joined or
    replaced what was before it. Stays: a view that the graph returns, which has strides that the caller sees; sizes
    of more than one unknown, where a reshape does not say its sizes (a new -1 holds one).
    """
    returned, changed = Returned(graph_module.graph), False
    for node in calls(graph_module.graph):
        if node.target in RESHAPES and node.target is not aten.reshape.default:
            node.target = aten.reshape.default
            changed = True
        if node.target in _RESHAPING:
            changed |= _join_reshapes(node, returned)
        elif node.target is aten.contiguous.default:
            changed |= _drop_copy(node, returned)
        else:
            order = order_of(node)
            if order is not None:
                changed |= _join_permutations(node, order, returned)
    return changed


def _join_reshapes(node: fx.Node, returned: Returned) -> bool:
    """A reshape of a reshape, or one that restores the sizes."""
    if node in returned:
        return False
    source = node.args[0]
    while isinstance(source, fx.Node) and source.target in _RESHAPING:
        source = source.args[0]
    start, end = tensor_of(source), tensor_of(node)
    if start is None or end is None or not isinstance(source, fx.Node):
        return False
    if sizes_key(start.shape) == sizes_key(end.shape):
        _put(node, source)
        return True
    if source is node.args[0]:
        return False
    sizes = argument(node, "shape") if node.target is aten.reshape.default else _sizes(end)
    if sizes is None:
        return False
    _put(node, call_like(node, aten.reshape.default, source, sizes))
    return True


def _put(node: fx.Node, new: Any) -> None:
    """Lets `new` stand for the end of a chain, of which what nobody else reads is removed."""
    before = node.args[0]
    replace(node, new)
    while before is not new and isinstance(before, fx.Node) and before.op == "call_function" and not before.users:
        link, before = before, before.args[0]
        link.graph.erase_node(link)


def _sizes(tensor: torch.Tensor) -> list[int] | None:
    """As a reshape's argument: -1 for the one size that is not known."""
    sizes = [size if type(size) is int else -1 for size in tensor.shape]
    return sizes if sizes.count(-1) == 0 or (sizes.count(-1) == 1 and 0 not in sizes) else None


def _join_permutations(node: fx.Node, order: list[int], returned: Returned) -> bool:
    if node in returned:
        return False
    source = node.args[0]
    length = 1
    while (inner := order_of(source)) is not None:
        order = [inner[axis] for axis in order]
        source = source.args[0]  # type: ignore[union-attr]  # order_of says it is a call
        length += 1
    start, end = tensor_of(source), tensor_of(node)
    if start is None or end is None:
        return False
    if order == sorted(order):
        _put(node, source)
        return True
    if _moves_nothing(start, order):
        sizes = _sizes(end)
        if sizes is not None:
            reshape = call_like(node, aten.reshape.default, source, sizes)
            _put(node, reshape)
            _join_reshapes(reshape, returned)  # to those before it
            return True
    if length == 1:
        return False
    _put(node, call_like(node, aten.permute.default, source, order))
    return True


def _moves_nothing(tensor: torch.Tensor, order: Sequence[int]) -> bool:
    """Whether the axes that are not known to have size 1 keep their order."""
    wide = [axis for axis in order if size_key(tensor.shape[axis]) != 1]
    return wide == sorted(wide)


def _drop_copy(node: fx.Node, returned: Returned) -> bool:
    """A contiguous copy that is only read by ops which do not care."""
    if not node.users or not all(user.target in _ANY_LAYOUT for user in node.users):
        return False
    # the schema spells contiguous_format 0
    if argument(node, "memory_format") not in (0, torch.contiguous_format):
        return False
    if any(user.target in RESHAPES and user in returned for user in node.users):
        return False
    for user in node.users:
        if user.target in RESHAPES:
            user.target = aten.reshape.default
    replace(node, node.args[0])  # type: ignore[arg-type]  # its tensor
    return True


_OPS = _RESHAPING | _PERMUTATIONS | {aten.contiguous.default}

canonical_views_early = lowering_pass(
    "views-early", ops=_OPS, phase="early", after=["no-ops-early"], before=["precision", "dead-code-early"]
)(canonical_views)
canonical_views_late = lowering_pass("views", ops=_OPS, after=["no-ops"], before=["common-subexpressions"])(
    canonical_views
)
