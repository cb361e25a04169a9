"""Parts of tensors: diagonals, windows, strided views; copies of views, which are views in an engine; and filling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.scatters import in_memory, strided_places
from trtplug_lowering_passes.decompositions.shared import Table, places

aten = torch.ops.aten


def diagonal(self: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """Every (columns + 1)-th element of the flattened matrices, from where the diagonal begins."""
    x = self.movedim((dim1, dim2), (-2, -1))
    rows, columns = x.shape[-2:]
    if offset >= 0:
        length, start = torch.sym_min(rows, columns - offset), offset
    else:
        length, start = torch.sym_min(rows + offset, columns), -offset * columns
    length = torch.sym_max(length, 0)
    step = columns + 1
    return x.flatten(-2).narrow(-1, 0, rows * columns)[..., start : start + length * step - columns : step]


def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows along an axis, their elements along a new last one."""
    if self.dim() == 0:
        return self.reshape(1)[:size]
    axis = dimension % self.dim()
    count = (self.size(axis) - size) // step + 1
    index = (places(count, self) * step).unsqueeze(1) + places(size, self)
    taken: Tensor = torch.index_select(self, axis, index.reshape(-1)).unflatten(axis, (count, size))
    return taken.movedim(axis + 1, -1)


def as_strided(self: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
    memory = in_memory(self)
    place = strided_places(memory, size, stride, storage_offset)
    return torch.index_select(memory, 0, place.reshape(-1)).reshape(place.shape)


def slice_scatter(
    self: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """What is before the slice, the source, and what is after; in steps of more than 1, a write at each place."""
    size = self.size(dim)
    if not all(isinstance(number, int | None) for number in (size, start, end)):
        raise NotImplementedError("where the slice lies depends on sizes")
    first, last, _ = slice(start, end).indices(size)
    last = max(first, last)
    src = src.to(self.dtype)
    if step != 1:
        return torch.index_copy(self, dim, torch.arange(first, last, step, device=self.device), src)
    return torch.cat([self.narrow(dim, 0, first), src, self.narrow(dim, last, size - last)], dim)


def diagonal_scatter(self: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    x: Tensor = self.movedim((dim1, dim2), (-2, -1))
    columns = x.size(-1)
    start = offset if offset >= 0 else -offset * columns
    place = places(src.size(-1), self) * (columns + 1) + start
    written: Tensor = torch.index_copy(x.flatten(-2), -1, place, src).reshape(x.shape)
    result: Tensor = written.movedim((-2, -1), (dim1, dim2))
    return result


def copied(self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    return src.to(self.dtype).expand(self.shape)


def filled(self: Tensor, value: Tensor) -> Tensor:
    return value.to(self.dtype).expand(self.shape)


def one_hot(self: Tensor, num_classes: int = -1) -> Tensor:
    """Without eager's check on a CPU that no class is too large: such a row is 0."""
    if num_classes < 1:
        raise NotImplementedError("the number of classes is known at run time only")
    return (self.unsqueeze(-1) == places(num_classes, self)).to(torch.int64)


def empty(
    size: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
    memory_format: Any = None,
) -> Tensor:
    """Zeros, where anything would do."""
    return torch.zeros(size, dtype=dtype, device=device)


def empty_strided(size: Sequence[int], stride: Sequence[int], **how: Any) -> Tensor:
    return empty(size, **how)


def empty_permuted(size: Sequence[int], physical_layout: Sequence[int], **how: Any) -> Tensor:
    return empty(size, **how)


def native_dropout(input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    if train is not False:
        raise NotImplementedError("dropout in training is random")
    return input.clone(), torch.ones_like(input, dtype=torch.bool)


def narrowed(self: Tensor, dim: int, start: int, length: int) -> Tensor:
    return self.narrow(dim, start, length)


def reinterpreted(self: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype != self.dtype:
        raise NotImplementedError("no layer of TensorRT's reinterprets bits")
    return self.view_as(self)


def converted(a: Tensor, dtype: torch.dtype) -> Tensor:
    return a.to(dtype)


_COPIES = (
    *("view", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "transpose", "t", "alias", "detach"),
    *("split", "split_with_sizes", "unbind", "diagonal", "unfold", "as_strided"),
)


def _copies() -> Table:
    """``view_copy`` and its like: the view itself, since nothing in an engine is changed in place."""
    found = {}
    for name in _COPIES:
        copies, views = getattr(aten, f"{name}_copy"), getattr(aten, name)
        for overload in set(copies.overloads()) & set(views.overloads()):
            found[getattr(copies, overload)] = getattr(views, overload)
    return found


TABLE: Table = {
    **_copies(),
    aten.view.dtype: reinterpreted,
    aten.narrow_copy.default: narrowed,
    aten._reshape_copy.default: aten.reshape.default,
    aten.diagonal.default: diagonal,
    aten.unfold.default: unfold,
    aten.as_strided.default: as_strided,
    aten.slice_scatter.default: slice_scatter,
    aten.diagonal_scatter.default: diagonal_scatter,
    aten.copy.default: copied,
    aten.fill.Tensor: filled,
    aten.one_hot.default: one_hot,
    aten.empty.memory_format: empty,
    aten.empty_strided.default: empty_strided,
    aten.empty_permuted.default: empty_permuted,
    aten.native_dropout.default: native_dropout,
    torch.ops.prims.convert_element_type.default: converted,
    aten._is_all_true.default: aten.all.default,
    aten._is_any_true.default: aten.any.default,
}
