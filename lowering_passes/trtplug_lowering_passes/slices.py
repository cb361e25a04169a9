"""Parts of parts become parts; an index by constants in a row becomes a slice."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._nodes import argument, call_like, calls, constant_of, replace, tensor_of
from trtplug_registry import Returned, lowering_pass

aten = torch.ops.aten

_SLICE = aten.slice.Tensor


_PARTS = frozenset({_SLICE, aten.select.int})
_INDEXES = frozenset({aten.index.Tensor, aten.index_select.default})


@lowering_pass("slices", ops=_PARTS | _INDEXES, after=["constant-folding"], before=["dead-code"])
def canonical_slices(graph_module: fx.GraphModule) -> bool:
    """Takes parts of a tensor in one step, and by the simplest op.

        x ─ slice(1, 2, 9) ─ slice(1, 1, 3) ─ y     →    x ─ slice(1, 3, 5) ─ y
        x ─ slice(1, 2, 9) ─ select(1, 0) ─ y       →    x ─ select(1, 2) ─ y
        x ─ index(:, [2, 3, 4]) ─ y                 →    x ─ slice(1, 2, 5) ─ y
        cat([x: [2], z: [3]]) ─ slice(0, 2, 4) ─ y  →    z ─ slice(0, 0, 2) ─ y

    An index by an evenly rising constant is a slice, by a single one a select. Declines where the result is returned
    (an index is a fresh tensor, and views have strides that the caller sees), and where the axis' size varies: for an
    index, since one out of range must fail and a slice does not; for slices, unless they count from the front by ones.
    """
    returned, changed = Returned(graph_module.graph), False
    for node in calls(graph_module.graph):
        if node in returned:
            continue
        if node.target in _PARTS:
            changed |= _join(node)
        elif node.target in _INDEXES:
            changed |= _slice(graph_module, node)
    return changed


def _join(node: fx.Node) -> bool:
    """A slice or select of a slice of the same axis."""
    inner = node.args[0]
    if isinstance(inner, fx.Node) and inner.target is aten.cat.default and node.target is _SLICE:
        return _take_piece(node, inner)
    if not isinstance(inner, fx.Node) or inner.target is not _SLICE:
        return False
    source = tensor_of(inner.args[0])
    if source is None:
        return False
    axis = int(argument(node, "dim")) % source.dim()
    if axis != int(argument(inner, "dim")) % source.dim():
        return False
    first = _bounds(inner)
    if first is None:
        return False
    size: Any = source.shape[axis]
    new: fx.Node | None
    if node.target is aten.select.int:
        new = _select(node, inner.args[0], axis, first, size)
    else:
        second = _bounds(node)
        bounds = None if second is None else _both(first, second, size)
        new = None if bounds is None else call_like(node, _SLICE, inner.args[0], axis, *bounds)
    if new is None:
        return False
    replace(node, new)
    if not inner.users:
        inner.graph.erase_node(inner)
    return True


def _bounds(node: fx.Node) -> tuple[int, int, int] | None:
    """Start, end and step of a slice, where they are known."""
    start, end, step = (argument(node, name) for name in ("start", "end", "step"))
    start, end = 0 if start is None else start, sys.maxsize if end is None else end
    return (start, end, step) if type(start) is type(end) is type(step) is int else None


def _both(first: tuple[int, int, int], second: tuple[int, int, int], size: Any) -> tuple[int, int, int] | None:
    """One slice that does what two do, one after the other."""
    if type(size) is int:
        part = range(size)[slice(*first)][slice(*second)]
        return (part.start, part.stop, part.step) if len(part) else (0, 0, 1)
    if first[2] != 1 or second[2] != 1 or min(*first, *second) < 0:
        return None
    end = first[0] + second[1] if second[1] < sys.maxsize - first[0] else sys.maxsize
    return first[0] + second[0], min(first[1], end), 1


def _take_piece(node: fx.Node, joined: fx.Node) -> bool:
    """A slice that lies within one of the tensors that were joined."""
    bounds, whole = _bounds(node), tensor_of(joined)
    if bounds is None or whole is None:
        return False
    axis = int(argument(node, "dim")) % whole.dim()
    size: Any = whole.shape[axis]
    if axis != int(argument(joined, "dim")) % whole.dim() or type(size) is not int:
        return False
    start, end, step = slice(*bounds).indices(size)
    offset = 0
    parts: Any = argument(joined, "tensors")
    for part in parts:
        tensor = tensor_of(part)
        if tensor is None or tensor.dim() != whole.dim() or tensor.dtype != whole.dtype:
            return False
        length = int(tensor.shape[axis])
        if offset <= start < end <= offset + length:
            is_all = (start, end, step) == (offset, offset + length, 1)
            near = part if is_all else call_like(node, _SLICE, part, axis, start - offset, end - offset, step)
            replace(node, near)
            return True
        offset += length
    return False


def _select(node: fx.Node, source: Any, axis: int, first: tuple[int, int, int], size: Any) -> fx.Node | None:
    index = argument(node, "index")
    if type(index) is not int or type(size) is not int:
        return None
    part = range(size)[slice(*first)]
    return call_like(node, aten.select.int, source, axis, part[index]) if -len(part) <= index < len(part) else None


def _slice(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """An index by one constant."""
    source = tensor_of(node.args[0])
    if source is None:
        return False
    if node.target is aten.index_select.default:
        given, axis = argument(node, "index"), argument(node, "dim") % max(1, source.dim())
    else:
        indices: Any = argument(node, "indices")
        places = [place for place, index in enumerate(indices) if index is not None]
        if len(places) != 1:
            return False
        axis = places[0]
        given = indices[axis]
    constant = constant_of(graph_module, given)
    size = source.shape[axis] if source.dim() else None
    if constant is None or constant.dtype not in (torch.int64, torch.int32) or constant.dim() > 1:
        return False
    if type(size) is not int or not 0 < constant.numel() <= size:
        return False
    numbers = [number + size if number < 0 else number for number in constant.reshape(-1).tolist()]
    if not all(0 <= number < size for number in numbers):
        return False
    if constant.dim() == 0 and node.target is aten.index.Tensor:
        replace(node, call_like(node, aten.select.int, node.args[0], axis, numbers[0]))
        return True
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    if step < 1 or numbers != list(range(numbers[0], numbers[-1] + 1, step)):
        return False
    replace(node, call_like(node, _SLICE, node.args[0], axis, numbers[0], numbers[-1] + 1, step))
    return True
