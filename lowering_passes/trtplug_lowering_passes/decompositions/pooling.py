"""Pooling beyond TensorRT's layer: windows of unequal size, dilated ones, and where in a window the maximum is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table, least, places, widened

aten = torch.ops.aten


def _spread(values: Sequence[int], count: int) -> list[int]:
    return list(values) * count if len(values) == 1 else list(values)


def _adaptive_bounds(size: int, out: int) -> list[tuple[int, int]]:
    """Where each of `out` windows over `size` elements begins and ends."""
    if not isinstance(size, int):
        raise NotImplementedError("windows of unequal size over a size that is not known")
    return [(place * size // out, -(-(place + 1) * size // out)) for place in range(out)]


def adaptive_average(self: Tensor, output_size: Sequence[int]) -> Tensor:
    """The mean of each window, one axis after the other: the windows are boxes."""
    x = widened(self)
    for axis, out in zip(range(-len(output_size), 0), output_size, strict=True):
        bounds = _adaptive_bounds(x.size(axis), out)
        x = torch.cat([x.narrow(axis, start, end - start).mean(axis, True) for start, end in bounds], axis)
    return x.to(self.dtype)


def adaptive_maximum(self: Tensor, output_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    tables = []
    for axis, out in zip(range(-len(output_size), 0), output_size, strict=True):
        bounds = _adaptive_bounds(self.size(axis), out)
        longest = max(end - start for start, end in bounds)
        begins = places(out, self) * self.size(axis)
        starts, ends = begins // out, (begins + self.size(axis) + out - 1) // out
        index = starts.unsqueeze(1) + places(longest, self)
        tables.append((index, index < ends.unsqueeze(1)))
    return _maxima(self, tables)


def max_pool_with_indices(
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
    *,
    axes: int = 2,
) -> tuple[Tensor, Tensor]:
    kernel = _spread(kernel_size, axes)
    steps = zip(
        kernel,
        _spread(stride, axes) if len(stride) else kernel,
        _spread(padding, axes),
        _spread(dilation, axes),
        self.shape[-axes:],
        strict=True,
    )
    tables = []
    for k, s, p, d, size in steps:
        count = _windows(size, k, s, p, d, ceil_mode)
        index = (places(count, self) * s - p).unsqueeze(1) + places(k, self) * d
        tables.append((index, (index >= 0) & (index < size)))
    return _maxima(self, tables)


def max_pool3d_with_indices(
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    return max_pool_with_indices(self, kernel_size, stride, padding, dilation, ceil_mode, axes=3)


def _maxima(self: Tensor, tables: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The largest element of each window, and its first place among the flattened spatial elements; of nan the last.

    Args:
        self: [..., spatial sizes].
        tables: for each spatial axis the places of its windows' elements, int64 [windows, elements], and which of them
            count, bool of that shape.
    """
    axes = len(tables)
    lead, spatial = self.shape[:-axes], self.shape[-axes:]
    x, place = self, places(0, self).sum()
    inside = begun = torch.ones((), dtype=torch.bool, device=self.device)
    for number, (index, counts) in enumerate(tables):
        size, axis = spatial[number], len(lead) + 2 * number
        x = torch.index_select(x, axis, index.clamp(min=0, max=size - 1).reshape(-1)).unflatten(axis, index.shape)
        shape = [1] * (2 * axes)
        shape[2 * number : 2 * number + 2] = index.shape
        place = place * size + index.reshape(shape)
        inside, begun = inside & counts.reshape(shape), begun & (index >= 0).reshape(shape)
    order = [*range(0, 2 * axes, 2), *range(1, 2 * axes, 2)]
    windows = [index.size(0) for index, _ in tables]
    volume = math.prod(index.size(1) for index, _ in tables)
    x = x.permute(*range(len(lead)), *(len(lead) + axis for axis in order)).reshape(*lead, *windows, volume)
    inside, begun, place = (tensor.permute(order).reshape(*windows, volume) for tensor in (inside, begun, place))
    x = torch.where(inside, x, torch.scalar_tensor(least(self.dtype), dtype=self.dtype, device=self.device))
    best = _best(x, begun)
    values = torch.gather(x, -1, best).squeeze(-1)
    return values, torch.gather(place.expand(x.shape), -1, best).squeeze(-1)


def _best(x: Tensor, begun: Tensor) -> Tensor:
    """Where along the last axis, [..., 1], eager finds the largest: it begins at the first place that is not padding,
    where it stays if a dilated window holds no element at all, goes on to what is larger, and to every nan.
    """
    order = places(x.size(-1), x)
    largest = begun & (x == x.amax(-1, keepdim=True))
    first = -torch.where(largest, -order, -x.size(-1)).amax(-1, keepdim=True)
    if not x.is_floating_point():
        return first
    last = torch.where(x.isnan(), order, -1).amax(-1, keepdim=True)
    return torch.where(last >= 0, last, first)


def whole_averages(
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    axes: int = 2,
) -> Tensor:
    """Of int64, which eager sums and divides as integers, and TensorRT does not pool: one axis after the other."""
    if self.dtype != torch.int64:
        raise NotImplementedError("floats have a converter")
    kernel = _spread(kernel_size, axes)
    strides = _spread(stride, axes) if len(stride) else kernel
    x, count = self, torch.ones((), dtype=torch.int64, device=self.device)
    for axis, (k, s, p) in zip(range(-axes, 0), zip(kernel, strides, _spread(padding, axes), strict=True), strict=True):
        size = self.size(axis)
        windows = _windows(size, k, s, p, 1, ceil_mode)
        index = (places(windows, self) * s - p).unsqueeze(1) + places(k, self)
        inside = (index >= 0) & (index < size)
        counted = index < size + p if count_include_pad else inside
        taken = torch.index_select(x, axis, index.clamp(min=0, max=size - 1).reshape(-1)).movedim(axis, -1)
        taken = torch.where(inside, taken.unflatten(-1, index.shape), torch.zeros((), dtype=x.dtype, device=x.device))
        x = taken.sum(-1).movedim(-1, axis)
        count = count.unsqueeze(-1) * counted.sum(-1)
    whole = count if divisor_override is None else torch.full_like(count, divisor_override)
    return torch.div(x, whole, rounding_mode="trunc")


def whole_averages_1d(
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    return whole_averages(self, kernel_size, stride, padding, ceil_mode, count_include_pad, axes=1)


def whole_averages_3d(
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    how = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return whole_averages(self, *how, axes=3)


def _windows(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """How many windows there are; with ceil_mode the last one may stick out, but begins in the data or before it."""
    reach = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (-(-reach // stride) if ceil_mode else reach // stride) + 1
    if ceil_mode:
        if not isinstance(size, int):
            raise NotImplementedError("whether the last window starts in the padding depends on the size")
        count -= (count - 1) * stride >= size + padding
    return count


def max_pool_backward(
    grad_output: Tensor,
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Each gradient goes to the place where the maximum was."""
    flat = torch.zeros_like(self).flatten(-2)
    return torch.scatter_add(flat, -1, indices.flatten(-2), grad_output.flatten(-2)).reshape(self.shape)


def average_pool_backward(
    grad_output: Tensor,
    self: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Each gradient goes in equal parts to its window, where all windows have one size."""
    kernel, padding = _spread(kernel_size, 2), _spread(padding, 2)
    if ceil_mode or (any(padding) and not count_include_pad and divisor_override is None):
        raise NotImplementedError("windows of unequal size")
    volume = math.prod(kernel)
    share = grad_output.reshape(1, -1, 1, grad_output.shape[-2:].numel())
    divisor = divisor_override or volume
    share = share / divisor if share.is_floating_point() else torch.div(share, divisor, rounding_mode="trunc")
    columns = share.expand(1, share.size(1), volume, share.size(3)).flatten(1, 2)
    steps = _spread(stride, 2) if len(stride) else kernel
    laid: Tensor = aten.col2im.default(columns, self.shape[-2:], kernel, [1, 1], padding, steps)
    return laid.reshape(self.shape)


def adaptive_average_backward(grad_output: Tensor, self: Tensor) -> Tensor:
    """Each gradient goes in equal parts to its window, one axis after the other."""
    given = widened(grad_output)
    for axis in (-2, -1):
        size = self.size(axis)
        given = given.movedim(axis, -1)
        parts = []
        for place, (start, end) in enumerate(_adaptive_bounds(size, given.size(-1))):
            share = given.narrow(-1, place, 1) / (end - start)
            part = share.expand(*given.shape[:-1], end - start)
            parts.append(torch.constant_pad_nd(part, [start, size - end]))
        given = torch.stack(parts).sum(0).movedim(-1, axis)
    return given.to(grad_output.dtype)


TABLE: Table = {
    aten._adaptive_avg_pool2d_backward.default: adaptive_average_backward,
    aten.max_pool2d_with_indices_backward.default: max_pool_backward,
    aten.avg_pool2d_backward.default: average_pool_backward,
    aten.adaptive_avg_pool1d.default: adaptive_average,
    aten._adaptive_avg_pool2d.default: adaptive_average,
    aten._adaptive_avg_pool3d.default: adaptive_average,
    aten.avg_pool1d.default: whole_averages_1d,
    aten.avg_pool2d.default: whole_averages,
    aten.avg_pool3d.default: whole_averages_3d,
    aten.adaptive_max_pool2d.default: adaptive_maximum,
    aten.adaptive_max_pool3d.default: adaptive_maximum,
    aten.max_pool2d_with_indices.default: max_pool_with_indices,
    aten.max_pool3d_with_indices.default: max_pool3d_with_indices,
}
