"""What the decompositions share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._ops import OpOverload

Table: TypeAlias = Mapping[OpOverload, Callable[..., Any]]

HALVES = (torch.float16, torch.bfloat16)


def places(count: int, like: Tensor) -> Tensor:
    """0, 1, …, count - 1, int64, where the tensor is."""
    return torch.arange(count, device=like.device)


def widened(tensor: Tensor) -> Tensor:
    """Halves in float32, for chains that eager rounds only once."""
    return tensor.to(torch.float32) if tensor.dtype in HALVES else tensor


def floating(tensor: Tensor) -> Tensor:
    """What a function of floats makes of its argument: integers and bools become float32; halves are widened."""
    return widened(tensor) if tensor.is_floating_point() else tensor.to(torch.float32)


def result_of(*tensors: Tensor) -> torch.dtype:
    """The dtype of a function of floats: the tensors' own, or float32 for integers and bools."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype if dtype.is_floating_point else torch.float32


def least(dtype: torch.dtype) -> float:
    return -math.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def greatest(dtype: torch.dtype) -> float:
    return math.inf if dtype.is_floating_point else torch.iinfo(dtype).max


def constant(values: Sequence[Any], like: Tensor, dtype: torch.dtype) -> Tensor:
    """A constant, where the tensor is. (What ``torch.tensor`` makes is detached in place, and a trace records that.)"""
    return torch.asarray(values, dtype=dtype, device=like.device)
