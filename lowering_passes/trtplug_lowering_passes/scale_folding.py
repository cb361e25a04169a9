"""Factors after a convolution or a linear map become part of its weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._nodes import (
    argument,
    calls,
    constant_of,
    drop_unread,
    number,
    only_user,
    replace,
    tensor_of,
)
from trtplug_lowering_passes._weights import (
    LINEAR_MAPS,
    ROUNDED,
    LinearMap,
    all_finite,
    channel_axis,
    is_exact,
    linear_map,
    replace_weights,
    set_arguments,
)
from trtplug_lowering_passes.views import is_mover
from trtplug_registry import applied, decline, lowering_pass

aten = torch.ops.aten

_FACTORS = frozenset({aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar})


@lowering_pass(
    "scale-folding",
    ops=LINEAR_MAPS,
    phase="early",
    after=["attention", "batch-norm-folding", "linear-bias", "views-early"],
    before=["precision", "dead-code-early"],
)
def fold_scale(graph_module: fx.GraphModule) -> bool:
    """Scales weights and bias by a constant that their result is multiplied with, or divided by.

        x ─ conv(w, b) ─ mul(s) ─ y                                   →    x ─ conv(w s, b s) ─ y
        x ─ linear(w, b) ─ reshape ─ transpose ─ attention(scale=s)   →    … linear(w s, b s) … attention(scale=1)

    The factor is a number, or a constant with one element for each output channel. In float32 each weight is rounded
    once more, by at most 2⁻²⁴ of it, in place of the product's own rounding. In halves only by powers of two (to 2⁸
    either way), which round nothing; by others it declines. Also where result or weights are read elsewhere, and where
    a scaled weight is not finite.
    """
    old: list[Any] = []
    changed = False
    for node in calls(graph_module.graph):
        if node.target in _FACTORS:
            reason, unread = _fold(graph_module, node)
        elif node.target is aten.scaled_dot_product_attention.default:
            reason, unread = _fold_attention(graph_module, node)
        else:
            continue
        if reason is None:
            applied(graph_module, "scale-folding")
            changed = True
        elif reason:
            decline(graph_module, "scale-folding", reason)
        old += unread
    if changed:
        drop_unread(graph_module, old)
    return changed


def _fold(graph_module: fx.GraphModule, node: fx.Node) -> tuple[str | None, list[Any]]:
    """None and the constants that may no longer be read; or why not, "" where nothing suggests it."""
    if len(node.args) < 2:
        return "", []
    source, other = node.args[:2]
    if node.target is aten.mul.Tensor and constant_of(graph_module, source) is not None:
        source, other = other, source
    given = linear_map(graph_module, source)
    if isinstance(given, str):
        return "", []
    before, after = tensor_of(source), tensor_of(node)
    if before is None or after is None or before.dtype != after.dtype:
        return "", []
    factor = _factor(graph_module, other, given.outputs, channel_axis(given.node), before.dim())
    if factor is None:
        return "", []
    if node.target in (aten.div.Tensor, aten.div.Scalar):
        factor = 1 / factor
    constants = [other] if isinstance(other, fx.Node) else []
    reason, old = _scale(graph_module, given, factor, constants)
    if reason is None:
        replace(node, given.node)
    return reason, [*old, *constants]


def _fold_attention(graph_module: fx.GraphModule, node: fx.Node) -> tuple[str | None, list[Any]]:
    """The factor of attention's scores becomes one of its queries, which a linear map makes."""
    scale, source = argument(node, "scale"), argument(node, "query")
    width = tensor_of(source)
    if scale is None and width is not None and type(width.shape[-1]) is int and width.shape[-1]:
        scale = 1 / math.sqrt(width.shape[-1])
    if scale is None or scale == 1 or [*node.args, *node.kwargs.values()].count(source) > 1:
        return "", []  # or what is scaled are keys or values too
    while is_mover(source) and only_user(source) is not None:
        source = source.args[0]
    given = linear_map(graph_module, source)
    if isinstance(given, str):
        return "", []
    reason, old = _scale(graph_module, given, torch.tensor([scale], dtype=torch.float64), [])
    if reason is None:
        set_arguments(node, scale=1.0)
    return reason, old


def _scale(
    graph_module: fx.GraphModule, given: LinearMap, factor: torch.Tensor, constants: list[Any]
) -> tuple[str | None, list[Any]]:
    if only_user(given.node) is None:
        return "the result is read elsewhere too", []
    if given.weight.dtype != torch.float32 and not is_exact(factor):
        return ROUNDED, []
    factor = factor.to(given.weight.device)  # a number is on the CPU, the weights may be on a GPU
    weight = given.scaled(factor.to(given.weight.dtype))
    bias = None if given.bias is None else (given.bias.double() * factor).to(given.bias.dtype)
    if not all_finite(weight, bias):
        return "the scaled weights are not finite", []
    return None, replace_weights(graph_module, given.node, weight, bias, *constants)


def _factor(graph_module: fx.GraphModule, value: Any, channels: int, axis: int, rank: int) -> torch.Tensor | None:
    """The factor of each channel, or one for all, as float64; None where it is something else."""
    if not isinstance(value, fx.Node):
        known = number(value)
        return None if known is None else torch.tensor([known], dtype=torch.float64)
    constant = constant_of(graph_module, value)
    if constant is None or not constant.dtype.is_floating_point or constant.dim() > rank:
        return None
    if constant.numel() == 1:
        return constant.double().reshape(1)
    shape = [1] * constant.dim()
    if len(shape) < axis or constant.numel() != channels:
        return None
    shape[-axis] = channels
    return constant.double().reshape(-1) if list(constant.shape) == shape else None
