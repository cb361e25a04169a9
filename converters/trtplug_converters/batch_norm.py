"""Batch normalization in inference."""

from __future__ import annotations

from typing import Any

import torch

from trtplug_converters._shared import parameters_dtype, widened
from trtplug_converters.normalization import NO_MEANING, UNUSED, VECTOR
from trtplug_registry import (
    FLOATS,
    Choose,
    Converter,
    ConverterContext,
    Domain,
    NetworkTensor,
    Only,
    Optional,
    Relation,
    Static,
    Tensor,
    converter,
)

aten = torch.ops.aten


def moderate(*names: str) -> Relation:
    """Elements and eps that do not drown the result: eager folds mean, variance, weight and bias into x * a + b."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        if not call["input"].dtype.is_floating_point:  # eager has no kernel, but where there is nothing to compute
            call["input"] = call["input"]._replace(shape=tuple(max(1, size) for size in call["input"].shape))
        for name in names:
            if call[name] is not None:
                call[name] = call[name]._replace(values=(0 if name == "running_var" else -100, 100))
        call["eps"] = choose.one_of((1e-2, 0.1, 2.0))

    return Relation("moderate elements and eps", ("eps", *names), None, arrange)


def _per_channel(ctx: ConverterContext, input: NetworkTensor, vector: NetworkTensor) -> NetworkTensor:
    """``[C]`` as ``[C, 1, ...]``, which broadcasts along axis 1 of the input."""
    return ctx.unsqueeze(vector, range(1, ctx.rank(input) - 1))


def _scale_and_shift(
    ctx: ConverterContext, weight: Any, bias: Any, mean: Any, var: Any, eps: float
) -> tuple[NetworkTensor, NetworkTensor]:
    """weight / sqrt(var + eps), and bias - mean times that, in float32: two constants where all four are known."""
    given = [(tensor, None if tensor is None else ctx.frozen(tensor)) for tensor in (weight, bias, mean, var)]
    if all(value is not None for tensor, value in given if tensor is not None):
        gain, offset, centre, spread = (0.0 if value is None else value.float() for _, value in given)
        scale = torch.rsqrt(spread + torch.tensor(eps)) * (1.0 if weight is None else gain)
        return ctx.constant(scale), ctx.constant(offset - centre * scale)
    weight, bias, mean, var = (None if tensor is None else widened(ctx, tensor) for tensor, _ in given)
    scale = ctx.unary("RECIP", ctx.unary("SQRT", ctx.elementwise("SUM", var, eps)))
    scale = scale if weight is None else ctx.elementwise("PROD", scale, weight)
    return scale, ctx.elementwise("SUB", 0.0 if bias is None else bias, ctx.elementwise("PROD", mean, scale))


def _batch_norm(
    ctx: ConverterContext, input: Any, weight: Any, bias: Any, mean: Any, var: Any, eps: float
) -> NetworkTensor:
    """A product and a sum along axis 1, in float32."""
    scale, shift = _scale_and_shift(ctx, weight, bias, mean, var, eps)
    result = ctx.elementwise("PROD", widened(ctx, input), _per_channel(ctx, input, scale))
    return ctx.cast(ctx.elementwise("SUM", result, _per_channel(ctx, input, shift)), ctx.dtype(input))


def fit_channels(*names: str) -> Relation:
    """One element per channel, axis 1 of the input (eager demands it). Not every Torch takes a vector as input."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        if call["input"].rank == 1:
            call["input"] = call["input"]._replace(shape=(*call["input"].shape, 1))
        for name in names:
            if call[name] is not None:
                call[name] = call[name]._replace(shape=call["input"].shape[1:2])

    return Relation(f"{', '.join(names)} of one element per channel", ("input", *names), None, arrange)


STATISTICS = ("weight", "bias", "running_mean", "running_var")
BATCH_NORM = Domain(
    fit_channels(*STATISTICS),
    parameters_dtype(*STATISTICS),
    moderate("input", *STATISTICS),
    UNUSED,
    input=Tensor(FLOATS, rank=(1, 8)),
    weight=Optional(VECTOR),
    bias=Optional(VECTOR),
    running_mean=VECTOR,
    running_var=VECTOR,
    momentum=NO_MEANING,
    eps=Static(),
)


@converter(
    aten.batch_norm.default,
    Domain(
        *BATCH_NORM.relations,
        **BATCH_NORM.arguments,
        training=Only(False, because="in training the statistics are the batch's own, and the running ones change"),
        cudnn_enabled=NO_MEANING,
    ),
)
def batch_norm(
    ctx: ConverterContext,
    input: NetworkTensor,
    weight: NetworkTensor | None,
    bias: NetworkTensor | None,
    running_mean: NetworkTensor,
    running_var: NetworkTensor,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> NetworkTensor:
    """``batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, ...) -> Tensor``."""
    return _batch_norm(ctx, input, weight, bias, running_mean, running_var, eps)


@converter(aten._native_batch_norm_legit_no_training.default, BATCH_NORM)
def native_batch_norm(
    ctx: ConverterContext,
    input: NetworkTensor,
    weight: NetworkTensor | None,
    bias: NetworkTensor | None,
    running_mean: NetworkTensor,
    running_var: NetworkTensor,
    momentum: float,
    eps: float,
) -> tuple[NetworkTensor | None, ...]:
    """``_native_batch_norm_legit_no_training(Tensor input, Tensor? weight, ...) -> (Tensor, Tensor, Tensor)``."""
    return _batch_norm(ctx, input, weight, bias, running_mean, running_var, eps), None, None


CONVERTERS: tuple[Converter, ...] = (batch_norm, native_batch_norm)
