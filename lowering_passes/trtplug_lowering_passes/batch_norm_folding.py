"""Batch normalization becomes part of the convolution before it."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._nodes import (
    argument,
    calls,
    constant_of,
    drop_unread,
    only_user,
    replace,
    tensor_of,
)
from trtplug_lowering_passes._weights import LINEAR_MAPS, LinearMap, all_finite, linear_map, replace_weights
from trtplug_registry import applied, decline, lowering_pass

aten = torch.ops.aten

_WITH_MODE = {aten.batch_norm.default, aten.native_batch_norm.default}
_NORMS = _WITH_MODE | {aten._native_batch_norm_legit_no_training.default}
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@lowering_pass(
    "batch-norm-folding",
    ops=_NORMS,
    phase="early",
    after=["constant-folding-early"],
    before=["precision", "dead-code-early"],
)
def fold_batch_norm(graph_module: fx.GraphModule) -> bool:
    """Scales a convolution's weights by what a batch normalization does to its result.

        x ─ conv(w, b) ─ batch_norm(γ, β, μ, σ²) ─ y    →    x ─ conv(w s, (b - μ) s + β) ─ y,  s = γ / √(σ² + ε)

    Also of transposed convolutions, and of ``linear`` where the normalization is over its features. Each weight is
    rounded once more, by at most u of it (2⁻²⁴ in float32, 2⁻¹¹ in float16, 2⁻⁸ in bfloat16), in place of eager's
    rounding of the convolution's result, by at most u of that:

        folded  |error| ≤ u (|y| + |(b - μ) s + β| + Σ |w s x|)        eager  |error| ≤ u (|y| + |s| |Σ w x + b|)

    Where the signs of w x are as if drawn, Σ |w x|'s roundings add up to about those of Σ w x. Where the sum cancels,
    it is the folded one that is farther from float64, by what rounding the weights to that dtype has cost before.

    Declines where the convolution's result or weights are read elsewhere, where the statistics are not constant (in
    training), where s is not finite, and where weights become so small that float16 rounds them by more than u.
    """
    old: list[Any] = []
    changed = False
    for node in calls(graph_module.graph):
        if node.target not in _NORMS:
            continue
        reason, unread = _fold(graph_module, node)
        if reason:
            decline(graph_module, "batch-norm-folding", reason)
        changed |= bool(unread)
        old += unread
    if changed:
        drop_unread(graph_module, old)
    return changed


def _fold(graph_module: fx.GraphModule, norm: fx.Node) -> tuple[str, list[Any]]:
    """Why not, or the constants that are no longer read."""
    source = norm.args[0]
    if not isinstance(source, fx.Node) or source.target not in LINEAR_MAPS:
        return "", []
    result = _result(norm)
    names = ("weight", "bias", "running_mean", "running_var")
    nodes = [argument(norm, name) for name in names]
    gamma, beta, mean, variance = (constant_of(graph_module, node) for node in nodes)
    if norm.target in _WITH_MODE and argument(norm, "training"):
        return "it normalizes by the batch", []
    if mean is None or variance is None or (nodes[0] is not None and gamma is None):
        return "its statistics are no constants", []
    if (nodes[1] is not None and beta is None) or result is None:
        return "its parameters are no constants, or its statistics are read", []
    if only_user(source) is None:
        return "the convolution's result is read elsewhere too", []
    given = linear_map(graph_module, source)
    if isinstance(given, str):
        return given, []
    tensor = tensor_of(source)
    if tensor is None or (source.target is aten.linear.default and tensor.dim() != 2):
        return "it does not normalize features", []
    if given.weight.dtype not in _DTYPES:
        return "", []
    factor, offset = _affine(gamma, beta, mean, variance, argument(norm, "eps"))
    wide = given.scaled(factor.float())
    weight, bias = wide.to(given.weight.dtype), _bias(given, factor, offset)
    half = weight.dtype == torch.float16
    if not (_rounded_once(given, wide, weight, bias) if half else all_finite(weight, bias)):
        small = half and all_finite(weight, bias)
        return f"the folded weights are {'too small for float16' if small else 'not finite'}", []
    applied(graph_module, "batch-norm-folding")
    old = replace_weights(graph_module, source, weight, bias, *nodes)
    replace(result, source)
    if result is not norm:
        graph_module.graph.erase_node(norm)
    return "", [*old, *nodes]


def _result(norm: fx.Node) -> fx.Node | None:
    """The normalized tensor, where the statistics beside it are not read."""
    if norm.target is aten.batch_norm.default:
        return norm
    users = list(norm.users)
    if any(user.target is not operator.getitem or (user.args[1] != 0 and user.users) for user in users):
        return None
    for user in users:
        if user.args[1] != 0:
            norm.graph.erase_node(user)
    return only_user(norm)


def _affine(
    gamma: torch.Tensor | None, beta: torch.Tensor | None, mean: torch.Tensor, variance: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The normalization as x * factor + offset, each float64[channels]."""
    factor = torch.rsqrt(variance.double() + eps)
    factor = factor if gamma is None else factor * gamma.double()
    offset = -mean.double() * factor
    return factor, offset if beta is None else offset + beta.double()


def _bias(given: LinearMap, factor: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    bias = offset if given.bias is None else offset + given.bias.double() * factor
    return bias.to(given.weight.dtype)


def _rounded_once(given: LinearMap, wide: torch.Tensor, narrow: torch.Tensor, bias: torch.Tensor) -> bool:
    """Whether float16 rounded each output's weights as it rounds usual numbers, by their Euclidean norms.

    Then they are finite; and whether the bias is. One answer: a GPU is waited for at each.
    """
    error, size = (given.by_output(values).norm(dim=1) for values in (wide - narrow, wide))
    return bool(((error <= 2.0**-11 * size) & bias.isfinite()).all())
