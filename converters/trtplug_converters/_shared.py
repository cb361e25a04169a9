"""What several families share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trtplug_registry import FLOATS, Call, Choose, ConverterContext, NetworkTensor, Relation

HALVES = (torch.float16, torch.bfloat16)


def widened(ctx: ConverterContext, tensor: NetworkTensor) -> NetworkTensor:
    """Halves as float32, for chains of layers that eager rounds only once; other dtypes as they are."""
    return ctx.cast(tensor, torch.float32) if ctx.dtype(tensor) in HALVES else tensor


def with_spatial_axes(ctx: ConverterContext, tensor: NetworkTensor, spatial: int) -> tuple[NetworkTensor, list[int]]:
    """``[N, C, ...]`` with at least two spatial axes, as TensorRT's windows need, and the unit axes added for it."""
    axes = [0] * (ctx.rank(tensor) == spatial + 1) + [2] * (spatial == 1)
    return ctx.unsqueeze(tensor, axes), axes


def spread(values: Sequence[int], count: int) -> list[int]:
    """A list of one value stands for one per axis."""
    return list(values) * count if len(values) == 1 else list(values)


def parameters_dtype(*parameters: str, of: str = "input") -> Relation:
    """Parameters have the input's dtype, or are float32 beside halves (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        dtype = call[of].dtype
        if dtype in HALVES and choose.integer(0, 2) == 0:
            dtype = torch.float32
        for name in parameters:
            if call[name] is not None:
                call[name] = call[name]._replace(dtype=dtype)

    return Relation(f"{', '.join(parameters)} of the dtype of {of}, or float32", (of, *parameters), None, arrange)


def static_axes(call: Call, name: str, count: int) -> bool:
    """Whether the last `count` sizes of a tensor are known."""
    return all(type(size) is int for size in call[name].shape[-count:])


def float_dtype() -> Relation:
    """Where `self` holds no floats, `dtype` is given (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        if not call["self"].dtype.is_floating_point and call["dtype"] is None:
            call["dtype"] = choose.one_of(FLOATS)

    return Relation("a float dtype", ("dtype", "self"), None, arrange)
