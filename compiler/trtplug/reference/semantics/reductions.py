"""Along axes: reductions, scans, matrix products, softmax, normalization."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trtplug.reference.semantics.checks import ints
from trtplug.reference.semantics.pointwise import cast


def reduce_sum(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    """REDUCE, SUM, in x's own dtype (integers wrap around)."""
    return torch.sum(x, axes, keep_dims, dtype=x.dtype)


def reduce_mean(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    """REDUCE, AVG; the mean of integers is truncated towards 0, that of no element is NaN, cast to the integer."""
    if x.is_floating_point():
        return torch.mean(x, axes, keep_dims)
    count = math.prod(x.shape[axis] for axis in axes)
    if not count:
        return _of_nothing(x, axes, keep_dims, int(cast(torch.tensor(math.nan), x.dtype)))
    return torch.div(reduce_sum(x, axes, keep_dims), count, rounding_mode="trunc")


def _least(dtype: torch.dtype) -> float | int:
    return -torch.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _greatest(dtype: torch.dtype) -> float | int:
    return torch.inf if dtype.is_floating_point else torch.iinfo(dtype).max


def _of_nothing(x: Tensor, axes: list[int], keep_dims: bool, value: float | int) -> Tensor:
    return torch.sum(x, axes, keep_dims, dtype=x.dtype).fill_(value)


def reduce_max(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    """REDUCE, MAX; over no element: -inf, or the dtype's least integer."""
    if any(x.shape[axis] == 0 for axis in axes):
        return _of_nothing(x, axes, keep_dims, _least(x.dtype))
    return torch.amax(x, axes, keep_dims)


def reduce_min(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    """REDUCE, MIN; over no element: inf, or the dtype's greatest integer."""
    if any(x.shape[axis] == 0 for axis in axes):
        return _of_nothing(x, axes, keep_dims, _greatest(x.dtype))
    return torch.amin(x, axes, keep_dims)


def reduce_prod(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    """REDUCE, PROD, in x's own dtype (integers wrap around)."""
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keep_dims, dtype=x.dtype)
    return x


def cumulative_sum(x: Tensor, axis: list[int] | Tensor, exclusive: bool, reverse: bool) -> Tensor:
    """CUMULATIVE, SUM: running sums from either end, each element itself included or not."""
    place = ints(axis)[0] % x.dim()
    y = x.flip(place) if reverse else x
    if exclusive:  # shifted by one, not total - self, which would turn inf into nan
        first = torch.zeros_like(y.narrow(place, 0, min(1, y.shape[place])))
        y = torch.cat([first, y.narrow(place, 0, max(y.shape[place] - 1, 0))], place)
    total = torch.cumsum(y, place, dtype=x.dtype)
    return total.flip(place) if reverse else total


def matmul(a: Tensor, b: Tensor, transpose_a: bool, transpose_b: bool) -> Tensor:
    """MATRIX_MULTIPLY of matrices [..., m, k] and [..., k, n] (or their transposes).

    One matrix b for the whole batch is multiplied as such: broadcasting would copy it for each batch item.
    """
    a, b = a.mT if transpose_a else a, b.mT if transpose_b else b
    return torch.matmul(a, b.reshape(b.shape[-2:]) if b.shape[:-2].numel() == 1 else b)


def vector_matmul(a: Tensor, b: Tensor, op_a: str, op_b: str) -> Tensor:
    """MATRIX_MULTIPLY where an operand is a collection of vectors (op VECTOR): that operand's unit axis is dropped."""
    a = a.unsqueeze(-2) if op_a == "VECTOR" else a
    b = b.unsqueeze(-1) if op_b == "VECTOR" else b
    y = matmul(a, b, op_a == "TRANSPOSE", op_b == "TRANSPOSE")
    y = y.squeeze(-2) if op_a == "VECTOR" else y
    return y.squeeze(-1) if op_b == "VECTOR" else y


def ragged_softmax(x: Tensor, bounds: Tensor) -> Tensor:
    """RAGGED_SOFTMAX: softmax over the first bounds[z] elements of each row, 0 after them."""
    inside = torch.arange(x.shape[-1], device=x.device) < bounds
    return torch.where(inside, torch.softmax(torch.where(inside, x, -torch.inf), -1), 0)


def normalize(x: Tensor, scale: Tensor, bias: Tensor, axes: list[int], epsilon: float) -> Tensor:
    """NORMALIZATION: (x - mean) / sqrt(variance + epsilon) * scale + bias, moments taken over the axes."""
    mean = torch.mean(x, axes, keepdim=True)
    variance = torch.mean(torch.square(x - mean), axes, keepdim=True)  # torch.var warns where there is no element
    return (x - mean) / torch.sqrt(variance + epsilon) * scale + bias


def group_normalize(
    x: Tensor, scale: Tensor, bias: Tensor, axes: list[int], epsilon: float, groups: int, per_group: bool
) -> Tensor:
    """NORMALIZATION with groups: as `normalize`, the channels of axis 1 split into groups that are reduced as well.

    Where:
        scale, bias: [1, C, 1, …], or [1, G, 1, …] where `per_group`.
    """
    split = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    inner = sorted({2, *(axis + 1 for axis in axes if axis > 1)})
    one, zero = x.new_ones(()), x.new_zeros(())
    y = normalize(split, one, zero, inner, epsilon).reshape(x.shape)
    if per_group:
        scale, bias = (t.repeat_interleave(x.shape[1] // groups, 1) for t in (scale, bias))
    return y * scale + bias


def local_response_normalize(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """LRN across channels: x / (k + alpha * mean of squares over the window) ** beta."""
    return torch.nn.functional.local_response_norm(x, size, alpha, beta, k)
