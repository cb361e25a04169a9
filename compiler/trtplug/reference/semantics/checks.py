"""Assertions about values while a lifted graph runs."""

from __future__ import annotations

import torch
from torch import Tensor


def expect(value: Tensor, dtype: torch.dtype, dims: list[int]) -> Tensor:
    """The value itself, once its dtype and shape are what TensorRT inferred (-1: known at run time only)."""
    shape = value.shape
    if (
        value.dtype is not dtype
        or len(shape) != len(dims)
        or any(want != -1 and want != have for want, have in zip(dims, shape))
    ):
        raise ValueError(f"TensorRT infers {dtype} {list(dims)}, this is {value.dtype} {list(shape)}")
    return value


def assert_all(condition: Tensor, message: str) -> None:
    """ASSERTION: every element of a bool tensor is true."""
    if not bool(condition.all()):
        raise ValueError(f"assertion failed: {message}")


def ints(value: list[int] | Tensor) -> list[int]:
    """A list of ints, whether known when the network was made or computed by it (a 0-d or 1-D integer tensor)."""
    if isinstance(value, Tensor):
        return [int(v) for v in value.reshape(-1).tolist()]
    return list(value)
