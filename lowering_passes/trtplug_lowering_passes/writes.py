"""Writes that were made values: what they copy, and what they overwrite whole."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._nodes import (
    argument,
    call_before,
    calls,
    replace,
    size_key,
    sizes_key,
    tensor_of,
)
from trtplug_registry import lowering_pass, reaches_output

aten = torch.ops.aten

_SCATTERS = {aten.slice_scatter.default: aten.slice.Tensor, aten.select_scatter.default: aten.select.int}
"""Ops that overwrite a part, and those that read it."""

_PLACES = {
    aten.slice_scatter.default: ("dim", "start", "end", "step"),
    aten.select_scatter.default: ("dim", "index"),
}


@lowering_pass(
    "writes",
    ops=_SCATTERS.keys() | {aten.copy.default},
    phase="early",
    after=["constant-folding-early"],
    before=["precision", "dead-code-early"],
)
def canonical_writes(graph_module: fx.GraphModule) -> bool:
    """Takes what is written for what is read, where nothing of the old values is left.

        cache ─ slice(1, 2, 4) ─ copy(x) ─ y                        →    x ─ y  (cast and expanded, if need be)
        cache ─ slice_scatter(x, 0, 0, all) ─ y                     →    x ─ y
        cache ─ slice_scatter(x, 1, 2, 4) ─ slice(1, 2, 4) ─ y      →    x ─ y
        cache ─ slice_scatter(x, 1, 2, 4) ─ slice_scatter(z, 1, 2, 4)   →    cache ─ slice_scatter(z, 1, 2, 4)

    What the graph returns is a fresh tensor still, a clone. Stays: parts that are not literally the same.
    """
    changed = False
    for node in calls(graph_module.graph):
        if node.target is aten.copy.default:
            changed |= _copy(node)
        elif node.target in _SCATTERS:
            changed |= _overwrite(node)
        elif node.target in _SCATTERS.values():
            changed |= _read_back(node)
    return changed


def _copy(node: fx.Node) -> bool:
    place, source = tensor_of(node.args[0]), tensor_of(node.args[1])
    if place is None or source is None or place.device != source.device:
        return False
    new: Any = node.args[1]
    if source.dtype != place.dtype:
        new = call_before(node, aten._to_copy.default, new, dtype=place.dtype)
    if sizes_key(source.shape) != sizes_key(place.shape):
        sizes = [size if type(size) is int else -1 for size in place.shape]
        leading = place.dim() - source.dim()
        known = all(
            size != -1 or (axis >= leading and size_key(place.shape[axis]) == size_key(source.shape[axis - leading]))
            for axis, size in enumerate(sizes)
        )
        if not known:  # a size that only the place has
            if new is not node.args[1]:
                node.graph.erase_node(new)
            return False
        new = call_before(node, aten.expand.default, new, sizes)
    if reaches_output(node):
        new = call_before(node, aten.clone.default, new)
    replace(node, new)
    return True


def _overwrite(node: fx.Node) -> bool:
    """A part that is the whole, or that was overwritten just before."""
    base, source = node.args[:2]
    whole, part = tensor_of(base), tensor_of(source)
    if whole is None or part is None or not isinstance(base, fx.Node) or not isinstance(source, fx.Node):
        return False
    if node.target is aten.slice_scatter.default and whole.dtype == part.dtype and _is_whole(node, whole):
        if reaches_output(node):
            return False
        replace(node, source)
        return True
    if base.target is node.target and _place(base) == _place(node):
        node.replace_input_with(base, base.args[0])  # type: ignore[arg-type]  # the tensor below
        if not base.users:
            base.graph.erase_node(base)
        return True
    return False


def _is_whole(node: fx.Node, whole: torch.Tensor) -> bool:
    _, start, end, step = _place(node)
    size = whole.shape[_place(node)[0]]
    reaches = end == sys.maxsize or (type(size) is int and type(end) is int and end >= size)
    return start == 0 and step == 1 and reaches


def _place(node: fx.Node) -> tuple[Any, ...]:
    """Which part a call overwrites or reads, the same for the same part."""
    target: Any = next((scatter for scatter, read in _SCATTERS.items() if read is node.target), node.target)
    found = [argument(node, name) for name in _PLACES[target]]
    tensor = tensor_of(node.args[0])
    found[0] = found[0] % tensor.dim() if tensor is not None and tensor.dim() else found[0]
    if target is aten.slice_scatter.default:
        found[1] = 0 if found[1] is None else found[1]
        found[2] = sys.maxsize if found[2] is None else found[2]
    return tuple(found)


def _read_back(node: fx.Node) -> bool:
    """A part that is read where it was written."""
    base = node.args[0]
    if not isinstance(base, fx.Node) or base.target not in _SCATTERS or reaches_output(node):
        return False
    if _SCATTERS[base.target] is not node.target:
        return False
    source, part = tensor_of(base.args[1]), tensor_of(node)
    if source is None or part is None or source.dtype != part.dtype or _place(base) != _place(node):
        return False
    if sizes_key(source.shape) != sizes_key(part.shape):
        return False
    replace(node, base.args[1])  # type: ignore[arg-type]  # it has a tensor
    return True
