"""Softmax and its logarithm."""

from __future__ import annotations

import math
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


def softmax_layer(ctx: ConverterContext, tensor: NetworkTensor, dim: int) -> NetworkTensor:
    """A softmax layer, which takes tensors of rank 2 or more."""
    rank = ctx.rank(tensor)
    matrix = ctx.unsqueeze(tensor, range(2 - rank))
    axis = dim % rank + max(0, 2 - rank) if rank else 1
    weights = ctx.add("softmax", _not_alone(ctx, matrix, axis), axes=1 << axis).get_output(0)
    return ctx.squeeze(_first(ctx, weights, matrix, axis), range(2 - rank))


def _not_alone(ctx: ConverterContext, tensor: NetworkTensor, axis: int) -> NetworkTensor:
    """A single element along an axis with -inf beside it, which changes neither maximum nor sum.

    What TensorRT knows to be 1, or 0, it makes a constant of, whatever the element is; and a product with that constant
    reads past its end.
    """
    if ctx.sizes(tensor)[axis] != 1:
        return tensor
    return ctx.concat([tensor, ctx.full(ctx.sizes(tensor), -math.inf, ctx.dtype(tensor))], axis)


def _first(ctx: ConverterContext, results: NetworkTensor, tensor: NetworkTensor, axis: int) -> NetworkTensor:
    """Of `_not_alone`, what belongs to the tensor."""
    sizes = ctx.sizes(tensor)
    return ctx.slice(results, [0], [1], [1], axes=[axis]) if sizes[axis] == 1 else results


def _log_softmax_layers(ctx: ConverterContext, tensor: NetworkTensor, dim: int) -> NetworkTensor:
    """x - max - log(sum(exp(x - max))), which is finite where softmax underflows to 0."""
    dtype = ctx.dtype(tensor)
    if ctx.rank(tensor) == 0:
        return ctx.squeeze(_log_softmax_layers(ctx, ctx.unsqueeze(tensor, [0]), dim), [0])
    axis, wide = dim % ctx.rank(tensor), widened(ctx, tensor)
    accompanied = _not_alone(ctx, wide, axis)
    shifted = ctx.elementwise("SUB", accompanied, ctx.reduce("MAX", accompanied, [axis], True))
    total = ctx.reduce("SUM", ctx.unary("EXP", shifted), [axis], True)
    return ctx.cast(ctx.elementwise("SUB", _first(ctx, shifted, wide, axis), ctx.unary("LOG", total)), dtype)


@converter_table(
    {aten.softmax.int: softmax_layer, aten.log_softmax.int: _log_softmax_layers},
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
    {aten._softmax.default: softmax_layer, aten._log_softmax.default: _log_softmax_layers},
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
