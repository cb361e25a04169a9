"""Moving elements without computing on them: shapes, slices, padding, concatenation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trtplug.reference.semantics.checks import ints


def shape(x: Tensor) -> Tensor:
    """SHAPE: the shape of x, int64 [rank]."""
    return torch.tensor(x.shape, dtype=torch.int64, device=x.device)


def reshape(x: Tensor, dims: list[int] | Tensor, zero_is_placeholder: bool) -> Tensor:
    """SHUFFLE's reshape: -1 is inferred, 0 copies the input's size at that place (or is a size of 0)."""
    wanted = ints(dims)
    if zero_is_placeholder:
        if any(v == 0 and axis >= x.dim() for axis, v in enumerate(wanted)):
            raise ValueError(f"reshape of {list(x.shape)} to {wanted}: a 0 has no input size to copy")
        wanted = [x.shape[axis] if v == 0 else v for axis, v in enumerate(wanted)]
    known = math.prod(v for v in wanted if v != -1)
    if -1 in wanted and known == 0:  # Torch finds this ambiguous; TensorRT infers 0
        wanted = [0 if v == -1 else v for v in wanted]
    if any(v < -1 for v in wanted) or (-1 not in wanted and math.prod(wanted) != x.numel()):
        raise ValueError(f"cannot reshape {list(x.shape)} to {wanted}")
    return x.reshape(wanted)


def squeeze(x: Tensor, axes: list[int] | Tensor) -> Tensor:
    """SQUEEZE: drop the given axes, each of size 1."""
    places = sorted({axis % x.dim() for axis in ints(axes)}, reverse=True)
    for axis in places:
        if x.shape[axis] != 1:
            raise ValueError(f"cannot squeeze axis {axis} of {list(x.shape)}")
        x = x.squeeze(axis)
    return x


def unsqueeze(x: Tensor, axes: list[int] | Tensor) -> Tensor:
    """UNSQUEEZE: insert axes of size 1 at the given places of the result."""
    places = ints(axes)
    for axis in sorted(axis % (x.dim() + len(places)) for axis in places):
        x = x.unsqueeze(axis)
    return x


def _reflected(index: Tensor, size: int) -> Tensor:
    if size == 1:
        return torch.zeros_like(index)
    index = index % (2 * (size - 1))
    return torch.where(index >= size, 2 * (size - 1) - index, index)


def _sliced(x: Tensor, axis: int, start: int, size: int, stride: int, mode: str) -> Tensor:
    extent = x.shape[axis]
    last = start + (size - 1) * stride
    inside = size == 0 or (min(start, last) >= 0 and max(start, last) < extent)
    if inside and stride == 1:
        return x.narrow(axis, min(start, extent) if size else 0, size)
    if not inside and mode == "STRICT_BOUNDS":
        raise IndexError(f"slice {start} + {stride} * (0 … {size - 1}) leaves axis {axis} of {list(x.shape)}")
    index = start + torch.arange(size, device=x.device) * stride
    if not inside and extent == 0:
        raise IndexError(f"slice of {size} elements from axis {axis} of {list(x.shape)}, which is empty")
    if mode == "WRAP":
        index = index % max(extent, 1)
    elif mode == "REFLECT":
        index = _reflected(index, max(extent, 1))
    elif mode == "CLAMP":
        index = index.clamp(0, max(extent - 1, 0))
    return x.index_select(axis, index)


def slice_(
    x: Tensor,
    start: list[int] | Tensor,
    size: list[int] | Tensor,
    stride: list[int] | Tensor,
    axes: list[int] | Tensor | None,
    mode: str,
) -> Tensor:
    """SLICE: along each axis the elements start, start + stride, …, `size` of them; strides may be 0 or negative.

    Where:
        x: any dtype.
        start, size, stride: one int per axis.
        axes: the axes they speak of; all axes in order where None.
        mode: outside x, STRICT_BOUNDS raises, WRAP and REFLECT and CLAMP map the index back.
    """
    places = range(x.dim()) if axes is None else ints(axes)
    for axis, first, count, step in zip(places, ints(start), ints(size), ints(stride), strict=True):
        x = _sliced(x, axis % x.dim(), first, count, step, mode)
    return x


def slice_filled(
    x: Tensor,
    start: list[int] | Tensor,
    size: list[int] | Tensor,
    stride: list[int] | Tensor,
    axes: list[int] | Tensor | None,
    fill: Tensor | None,
) -> Tensor:
    """SLICE in mode FILL: as `slice_`, with `fill` (0 where None) in place of what lies outside x."""
    places = range(x.dim()) if axes is None else ints(axes)
    outside = torch.zeros((1,) * x.dim(), dtype=torch.bool, device=x.device)
    for axis, first, count, step in zip(places, ints(start), ints(size), ints(stride), strict=True):
        axis, extent = axis % x.dim(), x.shape[axis]
        index = first + torch.arange(count, device=x.device) * step
        along = [1] * x.dim()
        along[axis] = count
        outside = outside | ((index < 0) | (index >= extent)).reshape(along)
        if extent == 0:
            x = x.new_zeros([*x.shape[:axis], count, *x.shape[axis + 1 :]])
        else:
            x = x.index_select(axis, index.clamp(0, extent - 1))
    value = x.new_zeros(()) if fill is None else fill.to(x.dtype).reshape(())
    return torch.where(outside, value, x)


def pad(x: Tensor, pre: list[int], post: list[int]) -> Tensor:
    """PADDING: zeros before and after each of the last axes; negative numbers crop."""
    return torch.nn.functional.pad(x, flat_padding(pre, post))


def flat_padding(pre: list[int], post: list[int]) -> list[int]:
    """Padding as `torch.nn.functional.pad` takes it: last axis first, before and after."""
    return [v for pair in zip(reversed(pre), reversed(post)) for v in pair]


def reverse_sequence(x: Tensor, lengths: Tensor, batch_axis: int, sequence_axis: int) -> Tensor:
    """REVERSE_SEQUENCE: the first lengths[b] elements of the sequence axis reversed, for each b of the batch axis."""
    batch_axis, sequence_axis = batch_axis % x.dim(), sequence_axis % x.dim()
    y = x.movedim((batch_axis, sequence_axis), (0, 1)).clone()
    for row, length in enumerate(ints(lengths)):
        if not 0 <= length <= y.shape[1]:
            raise IndexError(f"sequence length {length} of {y.shape[1]}")
        y[row, :length] = y[row, :length].flip(0)
    return y.movedim((0, 1), (batch_axis, sequence_axis))
