"""Softmax and its logarithm."""

from __future__ import annotations

from typing import Any

import torch

from trtplug_converters._shared import float_dtype, widened
from trtplug_registry import (
    ALL,
    FLOATS,
    Axis,
    Choose,
    Converter,
    ConverterContext,
    Domain,
    NetworkTensor,
    Only,
    Optional,
    Relation,
    Tensor,
    converter_table,
)

aten = torch.ops.aten

NOT_A_TYPE = "not a TensorRT type"


def _softmax_layer(ctx: ConverterContext, tensor: NetworkTensor, dim: int) -> NetworkTensor:
    """A softmax layer, which takes tensors of rank 2 or more."""
    rank = ctx.rank(tensor)
    matrix = ctx.unsqueeze(tensor, range(2 - rank))
    axis = dim % rank + max(0, 2 - rank) if rank else 1
    result = ctx.add("softmax", matrix, axes=1 << axis).get_output(0)
    return ctx.squeeze(result, range(2 - rank))


def _log_softmax_layers(ctx: ConverterContext, tensor: NetworkTensor, dim: int) -> NetworkTensor:
    """x - max - log(sum(exp(x - max))), which is finite where softmax underflows to 0."""
    dtype = ctx.dtype(tensor)
    if ctx.rank(tensor) == 0:
        return ctx.squeeze(_log_softmax_layers(ctx, ctx.unsqueeze(tensor, [0]), dim), [0])
    wide = widened(ctx, tensor)
    shifted = ctx.elementwise("SUB", wide, ctx.reduce("MAX", wide, [dim], True))
    total = ctx.reduce("SUM", ctx.unary("EXP", shifted), [dim], True)
    return ctx.cast(ctx.elementwise("SUB", shifted, ctx.unary("LOG", total)), dtype)


@converter_table(
    {aten.softmax.int: _softmax_layer, aten.log_softmax.int: _log_softmax_layers},
    Domain(
        float_dtype(),
        self=Tensor(ALL),
        dim=Axis("self"),
        dtype=Optional(Only(*FLOATS, because=NOT_A_TYPE)),
    ),
)
def softmax(
    layers: Any, ctx: ConverterContext, self: NetworkTensor, dim: int, dtype: torch.dtype | None = None
) -> NetworkTensor:
    """``softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor``: a softmax layer, after a cast."""
    return layers(ctx, ctx.cast(self, dtype or ctx.dtype(self)), dim)


def _only_on_gpus(call: dict[str, Any], choose: Choose) -> None:
    call["half_to_float"] = False


@converter_table(
    {aten._softmax.default: _softmax_layer, aten._log_softmax.default: _log_softmax_layers},
    Domain(
        Relation("half_to_float only on a GPU", ("half_to_float",), arrange=_only_on_gpus),
        self=Tensor(FLOATS),
        dim=Axis("self"),
        half_to_float=Only(False, True),
    ),
)
def core_softmax(
    layers: Any, ctx: ConverterContext, self: NetworkTensor, dim: int, half_to_float: bool
) -> NetworkTensor:
    """``_softmax(Tensor self, int dim, bool half_to_float) -> Tensor``: a softmax layer, after a cast."""
    return layers(ctx, ctx.cast(self, torch.float32) if half_to_float else self, dim)


CONVERTERS: tuple[Converter, ...] = (*softmax, *core_softmax)
