"""Layer, batch, group, instance and root-mean-square normalization."""

from __future__ import annotations

import math
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
    NetworkSize,
    NetworkTensor,
    Only,
    Optional,
    OutputsUsed,
    Relation,
    Size,
    Static,
    Tensor,
    converter,
)

aten = torch.ops.aten

NO_MEANING = Anything(because="chooses among Torch's kernels, or matters in training only")
UNUSED = OutputsUsed((0,), because="the other results are for training")
PARAMETER = Optional(Tensor(FLOATS))
VECTOR = Tensor(FLOATS, rank=(1, 1))


def _normalized(
    ctx: ConverterContext, input: Any, axes: Sequence[int], scale: Any, shift: Any, eps: float, groups: int = 1
) -> NetworkTensor:
    """A normalization layer over some axes; scale and shift have the input's rank.

    Halves beside float32 parameters are widened: the layer takes one dtype.
    """
    dtype, wide = ctx.dtype(input), ctx.dtype(scale)
    mask = sum(1 << axis for axis in axes)
    layer = ctx.add("normalization_v2", ctx.cast(input, wide), scale, shift, mask, epsilon=eps, num_groups=groups)
    return ctx.cast(layer.get_output(0), dtype)


def _parameters(
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
    given = _parameters(ctx, input, weight, bias, [1] * count)
    scale, shift = (ctx.unsqueeze(parameter, range(rank - count)) for parameter in given)
    return _normalized(ctx, input, range(rank - count, rank), scale, shift, eps)


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


def _moderate(*names: str) -> Relation:
    """Elements and eps that do not drown the result: eager folds mean, variance, weight and bias into x * a + b."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        if not call["input"].dtype.is_floating_point:  # eager has no kernel, but where there is nothing to compute
            call["input"] = call["input"]._replace(shape=tuple(max(1, size) for size in call["input"].shape))
        for name in names:
            if call[name] is not None:
                call[name] = call[name]._replace(values=(0 if name == "running_var" else -100, 100))
        call["eps"] = choose.one_of((1e-2, 0.1, 2.0))

    return Relation("moderate elements and eps", ("eps", *names), None, arrange)


# --- batch norm in inference ------------------------------------------------------------------------------------------


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


def _fit_channels(*names: str) -> Relation:
    """One element per channel, axis 1 of the input (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        for name in names:
            if call[name] is not None:
                call[name] = call[name]._replace(shape=call["input"].shape[1:2] or (1,))

    return Relation(f"{', '.join(names)} of one element per channel", ("input", *names), None, arrange)


STATISTICS = ("weight", "bias", "running_mean", "running_var")
BATCH_NORM = Domain(
    _fit_channels(*STATISTICS),
    parameters_dtype(*STATISTICS),
    _moderate("input", *STATISTICS),
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


# --- group and instance norm ------------------------------------------------------------------------------------------


def _group_norm(ctx: ConverterContext, input: Any, groups: Any, weight: Any, bias: Any, eps: float) -> NetworkTensor:
    """A normalization layer with groups; without spatial elements to speak of, over the groups as an axis."""
    rank, shape = ctx.rank(input), ctx.facts(input).shape
    given = _parameters(ctx, input, weight, bias, [shape[1]])
    scale, shift = (ctx.unsqueeze(parameter, [0, *range(2, rank)]) for parameter in given)
    if 0 in shape[2:] or all(size == 1 for size in shape[2:]):  # TensorRT does not build it
        return _group_norm_by_reshape(ctx, input, groups, scale, shift, eps)
    axes = range(1 if groups == 1 else 2, rank)  # one group is no grouping at all
    return _normalized(ctx, input, axes, scale, shift, eps, groups)


def _group_norm_by_reshape(
    ctx: ConverterContext, input: Any, groups: int, scale: Any, shift: Any, eps: float
) -> NetworkTensor:
    """The channels of each group as one axis, normalized; then scale and shift, in float32."""
    sizes = ctx.sizes(input)
    split = [sizes[0], groups, 0 if 0 in ctx.facts(input).shape else sizes[1] // groups]
    ones, zeros = ctx.constant([[[1.0]]], torch.float32), ctx.constant([[[0.0]]], torch.float32)
    result = _normalized(ctx, ctx.reshape(widened(ctx, input), split), [2], ones, zeros, eps)
    result = ctx.elementwise("PROD", ctx.reshape(result, sizes), widened(ctx, scale))
    return ctx.cast(ctx.elementwise("SUM", result, widened(ctx, shift)), ctx.dtype(input))


def _fit_groups(groups: str) -> Relation:
    """Groups that divide the channels, and sizes that say what the input's shape says (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        facts = call["input"]
        call[groups] = choose.integer(1, 3)
        shape = (facts.shape[0], call[groups] * choose.integer(1, 2), *facts.shape[2:])
        call["input"] = facts._replace(shape=shape)
        if "HxW" in call:
            call["N"], call["C"], call["HxW"] = shape[0], shape[1], math.prod(shape[2:])

    return Relation(f"{groups} that divide the channels", ("input", groups), None, arrange)


GROUPED = Tensor(
    FLOATS, rank=(2, 8), static_axes=(1,), because="the layer's scale has one element per channel and is a constant"
)


@converter(
    aten.group_norm.default,
    Domain(
        _fit_groups("num_groups"),
        _fit_channels("weight", "bias"),
        parameters_dtype("weight", "bias"),
        _moderate("input", "weight", "bias"),
        input=GROUPED,
        num_groups=Static(1),
        weight=Optional(VECTOR),
        bias=Optional(VECTOR),
        eps=Static(),
        cudnn_enabled=NO_MEANING,
    ),
    needs=("INetworkDefinition.add_normalization_v2",),
)
def group_norm(
    ctx: ConverterContext,
    input: NetworkTensor,
    num_groups: int,
    weight: NetworkTensor | None = None,
    bias: NetworkTensor | None = None,
    eps: float = 1e-05,
    cudnn_enabled: bool = True,
) -> NetworkTensor:
    """``group_norm(Tensor input, int num_groups, Tensor? weight=None, Tensor? bias=None, ...) -> Tensor``."""
    return _group_norm(ctx, input, num_groups, weight, bias, eps)


@converter(
    aten.native_group_norm.default,
    Domain(
        _fit_groups("group"),
        _fit_channels("weight", "bias"),
        parameters_dtype("weight", "bias"),
        _moderate("input", "weight", "bias"),
        UNUSED,
        input=GROUPED,
        weight=Optional(VECTOR),
        bias=Optional(VECTOR),
        N=Size(),
        C=Size(),
        HxW=Size(),
        group=Static(1),
        eps=Static(),
    ),
    needs=("INetworkDefinition.add_normalization_v2",),
)
def native_group_norm(
    ctx: ConverterContext,
    input: NetworkTensor,
    weight: NetworkTensor | None,
    bias: NetworkTensor | None,
    N: NetworkSize,
    C: NetworkSize,
    HxW: NetworkSize,
    group: int,
    eps: float,
) -> tuple[NetworkTensor | None, ...]:
    """``native_group_norm(Tensor input, Tensor? weight, Tensor? bias, SymInt N, ...) -> (Tensor, Tensor, Tensor)``."""
    return _group_norm(ctx, input, group, weight, bias, eps), None, None


OWN_STATISTICS = Only(None, because="with running statistics it is a batch norm, into which it decomposes")


@converter(
    aten.instance_norm.default,
    Domain(
        _fit_channels("weight", "bias"),
        parameters_dtype("weight", "bias"),
        _moderate("input", "weight", "bias"),
        input=GROUPED,
        weight=Optional(VECTOR),
        bias=Optional(VECTOR),
        running_mean=OWN_STATISTICS,
        running_var=OWN_STATISTICS,
        use_input_stats=Only(True, because=OWN_STATISTICS.because),
        momentum=NO_MEANING,
        eps=Static(),
        cudnn_enabled=NO_MEANING,
    ),
    needs=("INetworkDefinition.add_normalization_v2",),
)
def instance_norm(
    ctx: ConverterContext,
    input: NetworkTensor,
    weight: NetworkTensor | None,
    bias: NetworkTensor | None,
    running_mean: NetworkTensor | None,
    running_var: NetworkTensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> NetworkTensor:
    """``instance_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, ...) -> Tensor``."""
    return _group_norm(ctx, input, ctx.facts(input).shape[1] or 1, weight, bias, eps)


CONVERTERS: tuple[Converter, ...] = (
    layer_norm,
    native_layer_norm,
    rms_norm,
    fused_rms_norm,
    batch_norm,
    native_batch_norm,
    group_norm,
    native_group_norm,
    instance_norm,
)
