"""Normalizations of which Torch's own decomposition says something else than eager."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._decomp.decompositions import native_batch_norm_helper

from trtplug_lowering_passes.decompositions.shared import Table

aten = torch.ops.aten


def batch_norm_functional(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, ...]:
    """Torch's, with running statistics of their own dtype: it leaves those of halves in float32."""
    *results, mean, variance = native_batch_norm_helper(
        input, weight, bias, running_mean, running_var, training, momentum, eps, True
    )
    assert mean is not None
    assert variance is not None
    return (*results, mean.to(running_mean.dtype), variance.to(running_var.dtype))


TABLE: Table = {aten._native_batch_norm_legit_functional.default: batch_norm_functional}
