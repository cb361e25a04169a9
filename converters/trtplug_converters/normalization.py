"""Layer and root-mean-square normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trtplug_converters._shared import parameters_dtype, widened
from trtplug_registry import (
    FLOATS,
    Anything,
    Choose,
    Converter,
    ConverterContext,
    Domain,
    ListOf,
    NetworkTensor,
    Optional,
    OutputsUsed,
    Relation,
    Static,
    Tensor,
    converter,
)

aten = torch.ops.aten

NO_MEANING = Anything(because="chooses among Torch's kernels, or matters in training only")
UNUSED = OutputsUsed((0,), because="the other results are for training")
PARAMETER = Optional(Tensor(FLOATS))
VECTOR = Tensor(FLOATS, rank=(1, 1))


def normalized(
    ctx: ConverterContext, input: Any, axes: Sequence[int], scale: Any, shift: Any, eps: float, groups: int = 1
) -> NetworkTensor:
    """A normalization layer over some axes; scale and shift have the input's rank.

    Halves beside float32 parameters are widened: the layer takes one dtype.
    """
    dtype, wide = ctx.dtype(input), ctx.dtype(scale)
    mask = sum(1 << axis for axis in axes)
    layer = ctx.add("normalization_v2", ctx.cast(input, wide), scale, shift, mask, epsilon=eps, num_groups=groups)
    return ctx.cast(layer.get_output(0), dtype)


def parameters(
    ctx: ConverterContext, input: NetworkTensor, weight: Any, bias: Any, missing: Sequence[Any]
) -> tuple[NetworkTensor, NetworkTensor]:
    """Weight and bias in one dtype; where there is none, ones and zeros of the shape `missing`."""
    dtype = next((ctx.dtype(given) for given in (weight, bias) if given is not None), ctx.dtype(input))
    ones, zeros = (torch.full(tuple(missing), value, dtype=dtype) for value in (1.0, 0.0))
    return (
        ctx.constant(ones) if weight is None else weight,
        ctx.constant(zeros) if bias is None else bias,
    )


# --- layer norm and its root-mean-square kin --------------------------------------------------------------------------


def _fit_normalized_shape(call: dict[str, Any], choose: Choose) -> None:
    facts = call["input"]
    count = choose.integer(1, facts.rank)
    call["normalized_shape"] = list(facts.shape[facts.rank - count :])
    for name in ("weight", "bias"):
        if call.get(name) is not None:
            call[name] = call[name]._replace(shape=facts.shape[facts.rank - count :])


def _calm(call: dict[str, Any], choose: Choose) -> None:
    call["eps"] = choose.one_of((1e-2, 0.5))
    if call["input"].dtype != torch.float16:
        call["input"] = call["input"]._replace(values=(-1e4, 1e4))


NORMALIZED_SHAPE = ListOf(Static(0), shortest=1)
ROWS = Tensor(FLOATS, rank=(1, 8))
LAYER_NORM = Domain(
    Relation("normalized_shape of the last axes", ("input", "normalized_shape"), arrange=_fit_normalized_shape),
    parameters_dtype("weight", "bias"),
    Relation("a variance that does not overflow", ("input", "eps"), arrange=_calm),
    UNUSED,
    input=ROWS,
    normalized_shape=NORMALIZED_SHAPE,
    weight=PARAMETER,
    bias=PARAMETER,
    eps=Static(),
)


def _layer_norm(ctx: ConverterContext, input: Any, count: int, weight: Any, bias: Any, eps: float) -> NetworkTensor:
    """A normalization layer over the last `count` axes."""
    rank = ctx.rank(input)
    given = parameters(ctx, input, weight, bias, [1] * count)
    scale, shift = (ctx.unsqueeze(parameter, range(rank - count)) for parameter in given)
    return normalized(ctx, input, range(rank - count, rank), scale, shift, eps)


@converter(aten.layer_norm.default, Domain(*LAYER_NORM.relations, **LAYER_NORM.arguments, cudnn_enable=NO_MEANING))
def layer_norm(
    ctx: ConverterContext,
    input: NetworkTensor,
    normalized_shape: Sequence[int],
    weight: NetworkTensor | None = None,
    bias: NetworkTensor | None = None,
    eps: float = 1e-05,
    cudnn_enable: bool = True,
) -> NetworkTensor:
    """``layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, ...) -> Tensor``."""
    return _layer_norm(ctx, input, len(normalized_shape), weight, bias, eps)


@converter(aten.native_layer_norm.default, LAYER_NORM)
def native_layer_norm(
    ctx: ConverterContext,
    input: NetworkTensor,
    normalized_shape: Sequence[int],
    weight: NetworkTensor | None,
    bias: NetworkTensor | None,
    eps: float,
) -> tuple[NetworkTensor | None, ...]:
    """``native_layer_norm(Tensor input, SymInt[] normalized_shape, ...) -> (Tensor, Tensor, Tensor)``."""
    return _layer_norm(ctx, input, len(normalized_shape), weight, bias, eps), None, None


def _rms_norm(ctx: ConverterContext, input: Any, count: int, weight: Any, eps: float | None) -> NetworkTensor:
    """x / sqrt(mean(x²) + eps) * weight over the last `count` axes, in float32."""
    wide, dtype = widened(ctx, input), ctx.dtype(input)
    rank = ctx.rank(input)
    mean = ctx.reduce("AVG", ctx.elementwise("PROD", wide, wide), range(rank - count, rank), True)
    shifted = ctx.elementwise("SUM", mean, torch.finfo(torch.float32).eps if eps is None else eps)
    result = ctx.elementwise("PROD", wide, ctx.unary("RECIP", ctx.unary("SQRT", shifted)))
    result = result if weight is None else ctx.elementwise("PROD", result, widened(ctx, weight))
    return ctx.cast(result, dtype)


RMS_NORM = Domain(
    Relation("normalized_shape of the last axes", ("input", "normalized_shape"), arrange=_fit_normalized_shape),
    parameters_dtype("weight"),
    input=ROWS,
    normalized_shape=NORMALIZED_SHAPE,
    weight=PARAMETER,
    eps=Optional(Static()),
)


@converter(aten.rms_norm.default, RMS_NORM)
def rms_norm(
    ctx: ConverterContext,
    input: NetworkTensor,
    normalized_shape: Sequence[int],
    weight: NetworkTensor | None = None,
    eps: float | None = None,
) -> NetworkTensor:
    """``rms_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, float? eps=None) -> Tensor``."""
    return _rms_norm(ctx, input, len(normalized_shape), weight, eps)


@converter(aten._fused_rms_norm.default, Domain(*RMS_NORM.relations, UNUSED, **RMS_NORM.arguments))
def fused_rms_norm(
    ctx: ConverterContext,
    input: NetworkTensor,
    normalized_shape: Sequence[int],
    weight: NetworkTensor | None,
    eps: float | None,
) -> tuple[NetworkTensor | None, ...]:
    """``_fused_rms_norm(Tensor input, int[] normalized_shape, Tensor? weight, float? eps) -> (Tensor, Tensor)``."""
    return _rms_norm(ctx, input, len(normalized_shape), weight, eps), None


CONVERTERS: tuple[Converter, ...] = (layer_norm, native_layer_norm, rms_norm, fused_rms_norm)
