"""What is only repeated to fit is not repeated where ops broadcast."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

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

_EXPANDS = frozenset({aten.expand.default, aten.expand_as.default, aten.broadcast_to.default})


@lowering_pass(
    "expansions",
    ops=_EXPANDS | {aten.repeat.default},
    after=["no-ops", "type-promotion"],
    before=["common-subexpressions"],
)
def canonical_expansions(graph_module: fx.GraphModule) -> bool:
    """Leaves broadcasting to the ops that do it themselves.

        x: [1, 4] ─ expand(8, 4) ─ add(y: [8, 4])    →    x ─ add(y)
        x: [4] ─ expand(1, 4) ─ expand(8, 4)         →    x ─ expand(8, 4)
        x: [1, 4] ─ repeat(8, 1)                     →    x ─ expand(8, 4)

    Stays: an expansion that gives the result its size, that something else than arithmetic reads, or that is returned;
    a repetition of an axis that is not of size 1.
    """
    returned, changed = Returned(graph_module.graph), False
    for node in calls(graph_module.graph):
        if node in returned:
            continue
        if node.target is aten.repeat.default:
            changed |= _repeat(node)
        elif node.target is aten.expand.default:
            changed |= _join(node)
    for node in calls(graph_module.graph):
        if node.target in _EXPANDS:
            changed |= _broadcast(node)
    return changed


def _repeat(node: fx.Node) -> bool:
    """A repetition of axes of size 1 only, or of none."""
    source, result = tensor_of(node.args[0]), tensor_of(node)
    times: Any = argument(node, "repeats")
    if source is None or result is None:
        return False
    sizes = (1,) * (len(times) - source.dim()) + sizes_key(source.shape)
    if not all(size == 1 or (type(count) is int and count == 1) for size, count in zip(sizes, times)):
        return False
    if all(type(count) is int and count == 1 for count in times) and len(times) == source.dim():
        replace(node, node.args[0])  # type: ignore[arg-type]  # it has a tensor
        return True
    # -1 keeps a size, which a new leading axis does not have
    wanted = [count if size == 1 else -1 for size, count in zip(sizes, times)]
    replace(node, call_like(node, aten.expand.default, node.args[0], wanted))
    return True


def _join(node: fx.Node) -> bool:
    """An expansion of an expansion."""
    inner = node.args[0]
    if not isinstance(inner, fx.Node) or inner.target is not aten.expand.default:
        return False
    outer: list[Any] = list(argument(node, "size"))
    within: list[Any] = list(argument(inner, "size"))
    offset = len(outer) - len(within)
    sizes = [
        within[place - offset] if type(size) is int and size == -1 and place >= offset else size
        for place, size in enumerate(outer)
    ]
    replace(node, call_like(node, aten.expand.default, inner.args[0], sizes))
    if not inner.users:
        inner.graph.erase_node(inner)
    return True


def _broadcast(node: fx.Node) -> bool:
    """An expansion that every user makes itself."""
    source = node.args[0]
    tensor = tensor_of(source)
    if tensor is None or not isinstance(source, fx.Node) or not node.users:
        return False
    if not all(_broadcasts(user, node, tensor) for user in node.users):
        return False
    replace(node, source)
    return True


def _broadcasts(user: fx.Node, node: fx.Node, source: torch.Tensor) -> bool:
    """Whether arithmetic gives a result of the same sizes from what is expanded."""
    result = tensor_of(user)
    if result is None or not isinstance(user.target, OpOverload) or torch.Tag.pointwise not in user.target.tags:
        return False
    if user.target._schema.is_mutable or torch.Tag.nondeterministic_seeded in user.target.tags:
        return False
    others = [tensor_of(other) for other in user.all_input_nodes if other is not node]
    if not source.dim() and any(other is not None and other.dtype != source.dtype for other in others):
        return False  # a number's dtype counts for less in promotion
    shapes = [sizes_key(other.shape) for other in (*others, source) if other is not None]
    for place, size in enumerate(reversed(result.shape), 1):
        if size_key(size) not in [shape[-place] for shape in shapes if len(shape) >= place]:
            return False
    return True
