"""Writes at computed places that add up, or go by a mask: comparisons of every place with every index, and reductions.

TensorRT's scatter layer overwrites. Where several values meet at one place, each place compares itself with all
indices, and reduces what is meant for it: places × indices comparisons, exact for every dtype, and the order of the
indices does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table, greatest, least, places

aten = torch.ops.aten

_NAMES = {"add": "sum", "multiply": "prod"}


def _reduced(self: Tensor, hit: Tensor, values: Tensor, reduce: str, include_self: bool) -> Tensor:
    """Each element of self [...] with the values [..., n] where `hit` [..., n] says so; a sum of bools is an or."""
    if self.dtype == torch.bool:
        reduce = {"sum": "amax", "prod": "amin"}.get(reduce, reduce)
        whole = _reduced(self.to(torch.int32), hit, values.to(torch.int32), reduce, include_self)
        return whole.to(torch.bool)
    neutral = {"prod": 1, "amax": least(self.dtype), "amin": greatest(self.dtype)}.get(reduce, 0)
    chosen = torch.where(hit, values, torch.scalar_tensor(neutral, dtype=self.dtype, device=self.device))
    if reduce in ("sum", "mean"):
        result = chosen.sum(-1, dtype=self.dtype)
    else:
        result = chosen.prod(-1, dtype=self.dtype) if reduce == "prod" else getattr(chosen, reduce)(-1)
    if include_self:
        combine = {"prod": torch.mul, "amax": torch.maximum, "amin": torch.minimum}.get(reduce, torch.add)
        result = combine(self, result)
    if reduce == "mean":
        count = (hit.sum(-1) + include_self).clamp(min=1).to(self.dtype)
        result = result / count if self.is_floating_point() else torch.div(result, count, rounding_mode="floor")
    return torch.where(hit.any(-1), result, self)


def scatter_reduce(
    self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """``self[..., index[..., i, ...], ...]`` reduced with ``src[..., i, ...]``, for each i."""
    if self.dim() == 0:
        whole, index, src = (tensor.reshape(1) for tensor in (self, index, src))
        return scatter_reduce(whole, 0, index, src, reduce, include_self=include_self).reshape(())
    for axis, size in enumerate(index.shape):
        src = src.narrow(axis, 0, size)
    whole, index, src = (tensor.movedim(dim, -1) for tensor in (self, index, src))
    pad = [0, 0]
    for size, given in zip(reversed(whole.shape[:-1]), reversed(index.shape[:-1]), strict=True):
        pad += [0, size - given]
    if any(not isinstance(more, int) or more for more in pad):
        index, src = torch.constant_pad_nd(index, pad, -1), torch.constant_pad_nd(src, pad)
    hit = index.unsqueeze(-2) == places(whole.size(-1), self).unsqueeze(-1)
    return _reduced(whole, hit, src.unsqueeze(-2), _NAMES.get(reduce, reduce), include_self).movedim(-1, dim)


def scatter(self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """Of several values for one place the last one stays: where TensorRT's layer does not take as many indices."""
    if self.dim() == 0:
        return src.reshape(-1)[0].reshape(()).clone() if index.numel() else self.clone()
    axis = dim % self.dim()
    order = places(index.size(axis), self).reshape([-1 if other == axis else 1 for other in range(self.dim())])
    start = torch.full_like(self, -1, dtype=torch.int64)
    last = scatter_reduce(start, dim, index, order.expand(index.shape), "amax")
    source = src.narrow(dim, 0, index.size(dim))
    for other, (size, given) in enumerate(zip(self.shape, src.shape, strict=True)):
        if other != axis:
            source = torch.constant_pad_nd(source.movedim(other, -1), [0, size - given]).movedim(-1, other)
    return torch.where(last >= 0, torch.gather(source, dim, last.clamp(min=0)), self)


def scatter_value(self: Tensor, dim: int, index: Tensor, value: float) -> Tensor:
    hit = scatter_reduce(
        torch.zeros_like(self, dtype=torch.int32), dim, index, torch.ones_like(index).to(torch.int32), "amax"
    )
    return torch.where(hit > 0, torch.scalar_tensor(value, dtype=self.dtype, device=self.device), self)


def scatter_add(self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    return scatter_reduce(self, dim, index, src, "sum")


def scatter_with(self: Tensor, dim: int, index: Tensor, src: Tensor, *, reduce: str) -> Tensor:
    return scatter_reduce(self, dim, index, src, reduce)


def scatter_value_with(self: Tensor, dim: int, index: Tensor, value: float, *, reduce: str) -> Tensor:
    return scatter_reduce(self, dim, index, torch.full_like(index, value, dtype=self.dtype), reduce)


def index_reduce(
    self: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """The slices ``self[index[i]]`` along an axis reduced with the slices ``source[i]``."""
    if self.dim() == 0:
        return index_reduce(self.reshape(1), 0, index, source.reshape(1), reduce, include_self=include_self).reshape(())
    whole, source = self.movedim(dim, -1), source.movedim(dim, -1)
    hit = index.reshape(1, -1) == places(whole.size(-1), self).unsqueeze(-1)
    return _reduced(whole, hit, source.unsqueeze(-2), reduce, include_self).movedim(-1, dim)


def index_put(self: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
    """Writes through a mask, and writes that add up; the others have a converter."""
    given = [index for index in indices if index is not None]
    if len(given) == 1 and given[0].dtype == torch.bool:
        return _put_by_mask(self, indices, values, accumulate)
    if not accumulate or any(index.dtype == torch.bool for index in given):
        raise NotImplementedError("how many places a mask selects, only its values tell")
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    others = [axis for axis in range(self.dim()) if axis not in axes]
    order = [*axes, *others]
    whole = self.permute(order)
    spread = torch.broadcast_tensors(*given)
    place = _flat_place(spread, whole.shape[: len(axes)])
    rest = whole.shape[len(axes) :]
    rows = _as_rows(values, spread[0], axes, others, rest)
    flat = whole.reshape(-1, rest.numel())
    hit = place.reshape(1, -1) == places(flat.size(0), self).unsqueeze(-1)
    result = _reduced(flat, hit.unsqueeze(-2), rows.mT.unsqueeze(0), "sum", True)
    back = sorted(range(len(order)), key=order.__getitem__)
    return result.reshape(whole.shape).permute(back)


def embedding_dense_backward(
    grad_output: Tensor, indices: Tensor, num_weights: int, padding_idx: int, scale_grad_by_freq: bool
) -> Tensor:
    """Torch's own makes zeros first, and asks of a symbolic size whether it is 1."""
    if scale_grad_by_freq:
        raise NotImplementedError("gradients that are divided by counts")
    rows, index = grad_output.reshape(-1, grad_output.size(-1)), indices.reshape(1, -1)
    hit = (index == places(num_weights, indices).unsqueeze(-1)) & (index != padding_idx)
    return torch.where(hit.unsqueeze(-1), rows.unsqueeze(0), 0).sum(1).to(grad_output.dtype)


def _flat_place(indices: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Row-major places of coordinates, which may count from the end."""
    place: Tensor | None = None
    for index, size in zip(indices, sizes, strict=True):
        index = torch.where(index < 0, index + size, index)
        place = index if place is None else place * size + index
    assert place is not None
    return place


def _as_rows(values: Tensor, index: Tensor, axes: list[int], others: list[int], rest: Sequence[int]) -> Tensor:
    """The values as [indices, rest]: the index's dimensions stand where the first of neighbouring axes was."""
    together = axes == list(range(axes[0], axes[0] + len(axes)))
    before = [axis for axis in others if axis < axes[0]] if together else []
    lead, count = len(before), index.dim()
    whole = values.expand(*rest[:lead], *index.shape, *rest[lead:])
    front = [*range(lead, lead + count), *range(lead), *range(lead + count, whole.dim())]
    return whole.permute(front).reshape(index.numel(), -1)


def _put_by_mask(self: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool) -> Tensor:
    """A mask over some neighbouring axes, and values that are the same for each place that it selects."""
    lead = next(axis for axis, index in enumerate(indices) if index is not None)
    mask = indices[lead]
    assert mask is not None
    rest = self.dim() - lead - mask.dim()
    if lead and values.dim() > rest:
        raise NotImplementedError("values before the mask's axes")
    if values.dim() > rest + 1 or (values.dim() == rest + 1 and values.size(0) != 1):
        raise NotImplementedError("a value for each place that a mask selects")
    chosen = mask.reshape(*mask.shape, *(1 for _ in range(rest)))
    values = values.reshape(values.shape[1:]) if values.dim() == rest + 1 else values
    return torch.where(chosen, self + values if accumulate else values.to(self.dtype), self)


def unsafe_masked_index(self: Tensor, mask: Tensor, indices: Sequence[Tensor | None], fill: float) -> Tensor:
    """What is indexed where the mask says so; elsewhere, where an index may be out of range, the number."""
    within = [
        None if index is None else index.clamp(min=0, max=size - 1)
        for index, size in zip(indices, self.shape, strict=False)
    ]
    return aten.index.Tensor(self, within).masked_fill(~mask, fill)  # type: ignore[no-any-return]


def unsafe_masked_index_put(self: Tensor, mask: Tensor, indices: Sequence[Tensor | None], values: Tensor) -> Tensor:
    """Adds the values where the mask says so; elsewhere an index may be out of range."""
    within = [
        None if index is None else index.clamp(min=-size, max=size - 1)
        for index, size in zip(indices, self.shape, strict=False)
    ]
    return aten.index_put.default(self, within, values.masked_fill(~mask, 0), True)  # type: ignore[no-any-return]


def put(self: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """Writes into the flattened tensor."""
    flat = self.reshape(-1)
    return torch.index_put(flat, (index.reshape(-1),), source.reshape(-1), accumulate).reshape(self.shape)


def masked_scatter(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """The n-th place that the mask selects takes the n-th element of the source."""
    self, mask = torch.broadcast_tensors(self, mask)
    count = torch.cumsum(mask.reshape(-1).to(torch.int64), 0)
    taken = torch.index_select(source.reshape(-1), 0, (count - 1).clamp(min=0))
    return torch.where(mask, taken.reshape(self.shape), self)


def nonzero_static(self: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """The n-th element that is not 0 writes its place into row n; all others write into a row that is cut off."""
    axes = [places(count, self) for count in self.shape]
    if not axes:
        return torch.full((size, 0), fill_value, dtype=torch.int64, device=self.device)
    own = torch.stack([place.reshape(-1) for place in torch.meshgrid(axes, indexing="ij")], -1)
    chosen = (self if self.dtype == torch.bool else self != 0).reshape(-1)
    row = torch.cumsum(chosen.to(torch.int64), 0) - 1
    rows = torch.full((size + 1, len(axes)), fill_value, dtype=torch.int64, device=self.device)
    return torch.index_put(rows, (torch.where(chosen & (row < size), row, size),), own).narrow(0, 0, size)


def as_strided_scatter(
    self: Tensor, src: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Tensor:
    """Writes at the places that `as_strided` would read."""
    place = strided_places(self, size, stride, storage_offset)
    return torch.index_put(self.reshape(-1), (place.reshape(-1),), src.reshape(-1)).reshape(self.shape)


def in_memory(self: Tensor) -> Tensor:
    """The elements as they lie in memory, one after another; only of a tensor that fills its storage."""
    dense = self.permute(sorted(range(self.dim()), key=self.stride, reverse=True))
    if not dense.is_contiguous() or self.storage_offset() != 0:
        raise NotImplementedError("how the tensor lies in memory is not how it reads")
    return dense.reshape(-1)


def strided_places(self: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None) -> Tensor:
    """Places in the flattened tensor, int64 [size]; only of a tensor that lies in memory as it reads."""
    if not self.is_contiguous() or self.storage_offset() != 0:
        raise NotImplementedError("how the tensor lies in memory is not how it reads")
    place = torch.full((), storage_offset or 0, dtype=torch.int64, device=self.device)
    for count, step in zip(size, stride, strict=True):
        place = place.unsqueeze(-1) + places(count, self) * step
    return place


def take(self: Tensor, index: Tensor) -> Tensor:
    """Elements by their places in row-major order, from the end where negative."""
    place, count = index.reshape(-1), self.numel()
    return torch.index_select(self.reshape(-1), 0, torch.where(place < 0, place + count, place)).reshape(index.shape)


def histc(self: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements lie in each of `bins` equal intervals from min to max; the last one holds max too.

    Where both are the same, they are the data's own, or one less and one more where those are the same, too.
    """
    if self.dtype != torch.float32:
        raise NotImplementedError("eager computes intervals in the half type itself")
    low: Any = min
    high: Any = max
    wide = self.to(torch.float32)
    if low == high and self.numel():
        low, high = wide.amin(), wide.amax()
    if min == max:
        low, high = low - 1 * (low == high), high + 1 * (low == high)
    inside = (wide >= low) & (wide <= high)
    place: Tensor = ((wide - low) * bins / (high - low)).floor().clamp(max=bins - 1)
    hit: Tensor = (place.reshape(1, -1) == places(bins, self).unsqueeze(-1)) & inside.reshape(1, -1)
    return hit.sum(-1).to(self.dtype)


TABLE: Table = {
    aten.scatter_reduce.two: scatter_reduce,
    aten.scatter.src: scatter,
    aten.scatter.value: scatter_value,
    aten.scatter_add.default: scatter_add,
    aten.scatter.reduce: scatter_with,
    aten.scatter.value_reduce: scatter_value_with,
    aten.index_reduce.default: index_reduce,
    aten.index_put.default: index_put,
    aten.put.default: put,
    aten.take.default: take,
    aten._unsafe_masked_index.default: unsafe_masked_index,
    aten._unsafe_masked_index_put_accumulate.default: unsafe_masked_index_put,
    aten.masked_scatter.default: masked_scatter,
    aten.nonzero_static.default: nonzero_static,
    aten.as_strided_scatter.default: as_strided_scatter,
    aten.embedding_dense_backward.default: embedding_dense_backward,
    aten.histc.default: histc,
}
