"""What is frequent, and quantiles: orders of a whole axis."""

from __future__ import annotations

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table, greatest, places

aten = torch.ops.aten


def mode(self: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The smallest of the most frequent elements, and the last place that holds it."""
    if self.dim() == 0:
        return self.clone(), torch.zeros_like(self, dtype=torch.int64)
    x = self.movedim(dim, -1)
    x = x.to(torch.int32) if x.dtype == torch.bool else x
    count = (x.unsqueeze(-1) == x.unsqueeze(-2)).sum(-1)
    beyond = torch.scalar_tensor(greatest(x.dtype), dtype=x.dtype, device=x.device)
    value = torch.where(count == count.amax(-1, True), x, beyond).amin(-1, True)
    place = torch.where(x == value, places(x.size(-1), x), -1).amax(-1, True).clamp(min=0).movedim(-1, dim)
    found = torch.gather(self, dim, place)
    return (found, place) if keepdim else (found.squeeze(dim), place.squeeze(dim))


def quantile(
    self: Tensor,
    q: Tensor | float,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
    ignore_nan: bool = False,
) -> Tensor:
    """Between the elements of a sorted axis beside the rank q (n - 1).

    Args:
        self: floats.
        q: one quantile, or a list of them, [Q], which becomes the result's first axis.
        ignore_nan: take them for absent; else a nan makes its whole axis nan.
    """
    rank = self.dim()
    x = self.reshape(-1) if dim is None or not rank else self.movedim(dim, -1)
    q = q if isinstance(q, Tensor) else torch.scalar_tensor(q, dtype=x.dtype, device=x.device)
    nan, ordered = x.isnan(), torch.sort(x, -1)[0]
    last = x.size(-1) - 1
    if ignore_nan:
        most = ((~nan).sum(-1, keepdim=True) - 1).clamp(min=0)
        place = most.to(x.dtype) * q.reshape(-1)
    else:
        place = torch.where(nan.any(-1, keepdim=True), last, q.reshape(-1) * last)
    result = _between(ordered, place, interpolation)
    if dim is None:
        result = result.reshape(*(1,) * (rank if keepdim else 0), -1)
    elif keepdim and rank:
        result = result.unsqueeze(-2).movedim(-2, dim if dim >= 0 else dim - 1)
    result = result.movedim(-1, 0)
    return result if q.dim() else result.squeeze(0)


def _between(ordered: Tensor, place: Tensor, interpolation: str) -> Tensor:
    """Elements at places that need not be whole, [..., n] at [..., Q]."""
    whole = {"lower": torch.floor, "higher": torch.ceil, "nearest": torch.round}.get(interpolation)
    if whole is not None:
        return torch.gather(ordered, -1, whole(place).to(torch.int64))
    floor = place.floor()
    below = torch.gather(ordered, -1, floor.to(torch.int64))
    above = torch.gather(ordered, -1, place.ceil().to(torch.int64))
    return torch.lerp(below, above, 0.5 if interpolation == "midpoint" else place - floor)


def nanquantile(
    self: Tensor, q: Tensor | float, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    return quantile(self, q, dim, keepdim, interpolation=interpolation, ignore_nan=True)


def repeated_places(repeats: Tensor, *, output_size: int | None = None) -> Tensor:
    """Each place as often as its repeats say: of how many there are in all, the caller must tell."""
    if output_size is None:
        raise NotImplementedError("how many there are depends on values")
    ends = repeats.cumsum(0)
    return torch.searchsorted(ends, places(output_size, repeats).to(ends.dtype), right=True).to(repeats.dtype)


TABLE: Table = {
    aten.mode.default: mode,
    aten.quantile.default: quantile,
    aten.quantile.scalar: quantile,
    aten.nanquantile.default: nanquantile,
    aten.nanquantile.scalar: nanquantile,
    aten.repeat_interleave.Tensor: repeated_places,
}
