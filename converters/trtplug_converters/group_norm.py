"""Group and instance normalization."""

from __future__ import annotations

import math
from typing import Any

import torch

from trtplug_converters._shared import parameters_dtype, widened
from trtplug_converters.batch_norm import fit_channels, moderate
from trtplug_converters.normalization import NO_MEANING, UNUSED, VECTOR, normalized, parameters
from trtplug_registry import (
    FLOATS,
    Choose,
    Converter,
    ConverterContext,
    Domain,
    NetworkSize,
    NetworkTensor,
    Only,
    Optional,
    Relation,
    Size,
    Static,
    Tensor,
    converter,
)

aten = torch.ops.aten


def _group_norm(ctx: ConverterContext, input: Any, groups: Any, weight: Any, bias: Any, eps: float) -> NetworkTensor:
    """A normalization layer with groups; without spatial elements to speak of, over the groups as an axis."""
    rank, shape = ctx.rank(input), ctx.facts(input).shape
    given = parameters(ctx, input, weight, bias, [shape[1]])
    scale, shift = (ctx.unsqueeze(parameter, [0, *range(2, rank)]) for parameter in given)
    if 0 in shape[2:] or all(size == 1 for size in shape[2:]):  # TensorRT does not build it
        return _group_norm_by_reshape(ctx, input, groups, scale, shift, eps)
    axes = range(1 if groups == 1 else 2, rank)  # one group is no grouping at all
    return normalized(ctx, input, axes, scale, shift, eps, groups)


def _group_norm_by_reshape(
    ctx: ConverterContext, input: Any, groups: int, scale: Any, shift: Any, eps: float
) -> NetworkTensor:
    """The channels of each group as one axis, normalized; then scale and shift, in float32."""
    sizes = ctx.sizes(input)
    split = [sizes[0], groups, 0 if 0 in ctx.facts(input).shape else sizes[1] // groups]
    ones, zeros = ctx.constant([[[1.0]]], torch.float32), ctx.constant([[[0.0]]], torch.float32)
    result = normalized(ctx, ctx.reshape(widened(ctx, input), split), [2], ones, zeros, eps)
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
        fit_channels("weight", "bias"),
        parameters_dtype("weight", "bias"),
        moderate("input", "weight", "bias"),
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
        fit_channels("weight", "bias"),
        parameters_dtype("weight", "bias"),
        moderate("input", "weight", "bias"),
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
        fit_channels("weight", "bias"),
        parameters_dtype("weight", "bias"),
        moderate("input", "weight", "bias"),
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


CONVERTERS: tuple[Converter, ...] = (group_norm, native_group_norm, instance_norm)
