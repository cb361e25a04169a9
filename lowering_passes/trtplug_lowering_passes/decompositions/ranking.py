"""Orders: sorting, medians, running extremes, searches in sorted lists.

TensorRT has the k largest, at most 3,840 of them, and says nothing of the order among equals. Where the order of equals
shows, each element counts those that come before it, n² comparisons along an axis of n.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table, greatest, least, places

aten = torch.ops.aten

MOST_COMPARED = 2**24
"""Comparisons along one axis: more of them take memory that no order is worth."""


def _comes_before(one: Tensor, other: Tensor, descending: bool) -> Tensor:
    """Whether one comes strictly before the other; nan is larger than everything."""
    before = one > other if descending else one < other
    if not one.is_floating_point():
        return before
    nan, other_nan = one.isnan(), other.isnan()
    return before | (nan & ~other_nan if descending else other_nan & ~nan)


def _places_in_order(x: Tensor, descending: bool) -> Tensor:
    """Places of the last axis in a stable order, int64."""
    if isinstance(x.size(-1), int) and x.size(-1) ** 2 > MOST_COMPARED:
        raise NotImplementedError("too many comparisons")
    if x.dtype == torch.bool:
        x = x.to(torch.int32)
    each, others = x.unsqueeze(-1), x.unsqueeze(-2)
    place = places(x.size(-1), x)
    earlier = place < place.unsqueeze(-1)
    before = _comes_before(others, each, descending) | (~_comes_before(each, others, descending) & earlier)
    rank = before.sum(-1)
    return torch.scatter(torch.zeros_like(rank), -1, rank, place.expand(rank.shape))


def sort(self: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    """Stable, as eager's is on a CPU."""
    if self.dim() == 0:
        return self.clone(), torch.zeros_like(self, dtype=torch.int64)
    order = _places_in_order(self.movedim(dim, -1), descending).movedim(-1, dim)
    return torch.gather(self, dim, order), order


def sort_stable(self: Tensor, *, stable: bool | None, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    return sort(self, dim, descending)


def topk(self: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Tensor, Tensor]:
    """Where the places are used: of equals the first ones, where eager leaves open which.

    The values come from TensorRT's layer; the n-th of equal ones is at the n-th place that holds it: k times as many
    comparisons as there are elements.
    """
    if not sorted or not isinstance(k, int):
        raise NotImplementedError("an order of its own")
    if self.dim() == 0 and k == 1:
        return self.clone(), torch.zeros_like(self, dtype=torch.int64)
    if self.dim() == 0:
        raise NotImplementedError("nothing of one element")
    if isinstance(self.size(dim), int) and self.size(dim) * k > MOST_COMPARED:
        raise NotImplementedError("too many comparisons")
    x = self.to(torch.int32) if self.dtype == torch.bool else self
    values = torch.topk(x, k, dim, largest)[0].movedim(dim, -1)
    holds = _same(values.unsqueeze(-1), x.movedim(dim, -1).unsqueeze(-2))
    before = torch.tril(_same(values.unsqueeze(-1), values.unsqueeze(-2)), -1).sum(-1, keepdim=True)
    hit = holds & (holds.cumsum(-1) == before + 1)
    place = hit.to(torch.int32).argmax(-1).movedim(-1, dim)
    return torch.gather(self, dim, place), place


def _same(one: Tensor, other: Tensor) -> Tensor:
    same = one == other
    return same | (one.isnan() & other.isnan()) if one.is_floating_point() else same


def _at(self: Tensor, dim: int, keepdim: bool, place: Tensor) -> tuple[Tensor, Tensor]:
    """The elements at one place along an axis, [..., 1, ...], and the place."""
    value = torch.gather(self, dim, place)
    return (value, place) if keepdim else (value.squeeze(dim), place.squeeze(dim))


def kthvalue(self: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    if self.dim() == 0:
        return self.clone(), torch.zeros_like(self, dtype=torch.int64)
    _, order = sort(self, dim)
    return _at(self, dim, keepdim, order.narrow(dim, k - 1, 1))


def _middle(size: int, like: Tensor) -> Tensor:
    """(size - 1) // 2 of a size that may be symbolic, int64 [1]."""
    last = places(size, like).amax(0, keepdim=True)
    return torch.div(last, 2, rounding_mode="trunc")


def median_along(self: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower median; nan, and its first place, where there is one."""
    if self.dim() == 0:
        return self.clone(), torch.zeros_like(self, dtype=torch.int64)
    _, order = sort(self, dim)
    place = torch.index_select(order, dim, _middle(self.size(dim), self))
    if self.is_floating_point():
        nan = self.isnan()
        first = nan.to(torch.int32).argmax(dim, keepdim=True)
        place = torch.where(nan.any(dim, keepdim=True), first, place)
    return _at(self, dim, keepdim, place)


def nanmedian_along(self: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower median of what is not nan; nan where that is nothing."""
    if self.dim() == 0 or not self.is_floating_point():
        return median_along(self, dim, keepdim)
    _, order = sort(self, dim)
    count = (~self.isnan()).sum(dim, keepdim=True)
    return _at(self, dim, keepdim, torch.gather(order, dim, ((count - 1) // 2).clamp(min=0)))


def median(self: Tensor) -> Tensor:
    return median_along(self.reshape(-1), 0)[0]


def nanmedian(self: Tensor) -> Tensor:
    return nanmedian_along(self.reshape(-1), 0)[0]


# --- running extremes, products and sums ------------------------------------------------------------------------------


def _up_to(self: Tensor) -> Tensor:
    """Whether place j is at or before place i of the last axis, [i, j]."""
    place = places(self.size(-1), self)
    return place <= place.unsqueeze(-1)


def _running(self: Tensor, dim: int, largest: bool) -> tuple[Tensor, Tensor]:
    """The extreme of the elements so far and the last place that holds it; nan stays."""
    if self.dim() == 0:
        return self.clone(), torch.zeros_like(self, dtype=torch.int64)
    x = self.movedim(dim, -1)
    x = x.to(torch.int32) if x.dtype == torch.bool else x
    seen, rows = _up_to(x), x.unsqueeze(-2)
    neutral = torch.scalar_tensor((least if largest else greatest)(x.dtype), dtype=x.dtype, device=x.device)
    so_far = torch.where(seen, rows, neutral)
    holds = seen & (rows == (so_far.amax(-1, True) if largest else so_far.amin(-1, True)))
    if x.is_floating_point():
        nan = seen & rows.isnan()
        holds = torch.where(nan.any(-1, True), nan, holds)
    place = torch.where(holds, places(x.size(-1), x), -1).amax(-1).movedim(-1, dim)
    return torch.gather(self, dim, place), place


def cummax(self: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return _running(self, dim, True)


def cummin(self: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return _running(self, dim, False)


def cumprod(self: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    if dtype is None:
        dtype = self.dtype if self.is_floating_point() else torch.int64
    x = self.to(dtype)
    if x.dim() == 0:
        return x.clone()
    x = x.movedim(dim, -1)
    one = torch.scalar_tensor(1, dtype=dtype, device=x.device)
    return torch.where(_up_to(x), x.unsqueeze(-2), one).prod(-1, dtype=dtype).movedim(-1, dim)


def logcumsumexp(self: Tensor, dim: int) -> Tensor:
    if self.dim() == 0:
        return self.clone()
    x = self.movedim(dim, -1)
    nothing = torch.scalar_tensor(least(x.dtype), dtype=x.dtype, device=x.device)
    return torch.logsumexp(torch.where(_up_to(x), x.unsqueeze(-2), nothing), [-1]).movedim(-1, dim)


# --- searches ---------------------------------------------------------------------------------------------------------


def searchsorted(
    sorted_sequence: Tensor,
    self: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """How many elements of each sorted row come before the value (or are at most it, from the right)."""
    if sorter is not None:
        sorted_sequence = torch.gather(sorted_sequence, -1, sorter)
    right = right if side is None else side == "right"
    rows, value = sorted_sequence.unsqueeze(-2), self.unsqueeze(-1)
    if sorted_sequence.dim() == 1:
        rows = sorted_sequence
    before = ~(rows > value if right else rows >= value)  # nan comes after everything
    return before.sum(-1).to(torch.int32 if out_int32 else torch.int64)


def isin(elements: Tensor, test_elements: Tensor, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each element is among the others; nan never is."""
    sizes = (elements.numel(), test_elements.numel())
    if all(isinstance(size, int) for size in sizes) and sizes[0] * sizes[1] > MOST_COMPARED:
        raise NotImplementedError("too many comparisons")
    found = (elements.unsqueeze(-1) == test_elements.reshape(-1)).any(-1)
    return ~found if invert else found


def bucketize(self: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    return searchsorted(boundaries, self, out_int32=out_int32, right=right)


def searchsorted_number(sorted_sequence: Tensor, self: float, **how: Any) -> Tensor:
    dtype = torch.result_type(sorted_sequence, self)
    value = torch.scalar_tensor(self, dtype=dtype, device=sorted_sequence.device)
    return searchsorted(sorted_sequence.to(dtype), value, **how)


def bucketize_number(self: float, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    return searchsorted_number(boundaries, self, out_int32=out_int32, right=right)


TABLE: Table = {
    aten.sort.default: sort,
    aten.sort.stable: sort_stable,
    aten.topk.default: topk,
    aten.kthvalue.default: kthvalue,
    aten.median.dim: median_along,
    aten.median.default: median,
    aten.nanmedian.dim: nanmedian_along,
    aten.nanmedian.default: nanmedian,
    aten.cummax.default: cummax,
    aten.cummin.default: cummin,
    aten.cumprod.default: cumprod,
    aten.logcumsumexp.default: logcumsumexp,
    aten.searchsorted.Tensor: searchsorted,
    aten.searchsorted.Scalar: searchsorted_number,
    aten.bucketize.Tensor: bucketize,
    aten.bucketize.Scalar: bucketize_number,
    aten.isin.Tensor_Tensor: isin,
}
