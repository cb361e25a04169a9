"""Reading and writing at computed places: gather, scatter, one-hot, top-k, non-zero."""

from __future__ import annotations

import torch
from torch import Tensor

from trtplug.reference.semantics.checks import ints

TOPK_LIMIT = 3840


def _bounded(index: Tensor, size: int) -> Tensor:
    """Indices as int64 in 0 … size - 1; negative ones count from the end; IndexError outside -size … size - 1."""
    index = index.long()
    if index.numel():
        low, high = (int(v) for v in torch.aminmax(index))
        if low < -size or high >= size:
            raise IndexError(f"index {low if low < -size else high} is outside an axis of size {size}")
        if low < 0:
            index = torch.where(index < 0, index + size, index)
    return index


def gather(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """GATHER, DEFAULT: x with its axis replaced by the axes of `index`."""
    axis %= x.dim()
    flat = _bounded(index, x.shape[axis]).reshape(-1)
    return x.index_select(axis, flat).reshape(x.shape[:axis] + index.shape + x.shape[axis + 1 :])


def gather_batched(x: Tensor, index: Tensor, axis: int, batch_dims: int) -> Tensor:
    """GATHER, DEFAULT, with leading dims that x and `index` share (or broadcast), handled element by element."""
    axis, n = axis % x.dim(), batch_dims
    batch = torch.broadcast_shapes(x.shape[:n], index.shape[:n])
    x = x.expand(*batch, *x.shape[n:])
    index = _bounded(index, x.shape[axis]).expand(*batch, *index.shape[n:])
    picks, rest = index.shape[n:], x.shape[n:axis] + x.shape[axis + 1 :]
    rows = x.movedim(axis, n).reshape(batch.numel(), x.shape[axis], rest.numel())
    flat = index.reshape(batch.numel(), picks.numel(), 1).expand(-1, -1, rest.numel())
    taken = torch.gather(rows, 1, flat).reshape(*batch, *picks, *rest)
    source = list(range(n, n + len(picks)))
    return taken.movedim(source, [axis + i for i in range(len(picks))])


def gather_elements(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """GATHER, ELEMENT: out[…, i, …] = x[…, index[…, i, …], …]."""
    axis %= x.dim()
    return torch.gather(x, axis, _bounded(index, x.shape[axis]))


def gather_nd(x: Tensor, index: Tensor, batch_dims: int) -> Tensor:
    """GATHER, ND: the last axis of `index` holds coordinates into x after the shared leading dims."""
    n = batch_dims
    batch = torch.broadcast_shapes(x.shape[:n], index.shape[:n])
    x, index = x.expand(*batch, *x.shape[n:]), index.expand(*batch, *index.shape[n:])
    inner = index.dim() - 1
    leading = [
        torch.arange(size, device=x.device).reshape([-1] + [1] * (inner - axis - 1)) for axis, size in enumerate(batch)
    ]
    places = [_bounded(part, x.shape[n + axis]) for axis, part in enumerate(index.unbind(-1))]
    return x[tuple(leading + places)]


def scatter_elements(x: Tensor, index: Tensor, updates: Tensor, axis: int) -> Tensor:
    """SCATTER, ELEMENT: x with out[…, index[…, i, …], …] = updates[…, i, …]."""
    axis %= x.dim()
    return torch.scatter(x, axis, _bounded(index, x.shape[axis]), updates)


def scatter_nd(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    """SCATTER, ND: x with the slices at the coordinates in the last axis of `index` replaced by `updates`.

    Slices without elements are written nowhere, wherever the coordinates point.
    """
    if not updates.numel():
        return x.clone()
    places = [_bounded(part, x.shape[axis]) for axis, part in enumerate(index.unbind(-1))]
    return torch.index_put(x, tuple(places), updates)


def one_hot(index: Tensor, values: Tensor, depth: Tensor | list[int], axis: int) -> Tensor:
    """ONE_HOT: values[1] at the index along a new axis of size `depth`, values[0] elsewhere.

    Negative indices count from the end; those still outside select nothing.
    """
    size = ints(depth)[0]
    index = torch.where(index < 0, index + size, index)
    hot = index.unsqueeze(-1) == torch.arange(size, device=index.device)
    axis = axis % hot.dim()
    return torch.where(hot, values[1], values[0]).movedim(-1, axis)


def topk(x: Tensor, k: list[int] | Tensor, axis: int, largest: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """TOPK: the k extreme elements along an axis, most extreme first, and their places; of equals the first wins.

    Returns:
        values, in x's dtype, and indices in `dtype`.
    """
    count = ints(k)[0]
    if not 0 <= count <= min(TOPK_LIMIT, x.shape[axis]):
        raise ValueError(f"top {count} of {x.shape[axis]} (at most {TOPK_LIMIT})")
    values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, count).contiguous(), places.narrow(axis, 0, count).to(dtype)


def non_zero(x: Tensor, dtype: torch.dtype) -> Tensor:
    """NON_ZERO: the coordinates of all elements that are not 0, [rank, count] in row-major order."""
    return torch.nonzero(x).mT.contiguous().to(dtype)
