"""Two ops, as eager Torch computes them."""

from __future__ import annotations

import torch


@torch.library.custom_op("acme::bias_relu", mutates_args=())
def bias_relu(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``relu(x + bias)`` for ``x`` of shape [..., n] and ``bias`` of shape [n], both of one dtype."""
    return torch.relu(x + bias)


@bias_relu.register_fake
def _(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    torch._check(bias.dim() == 1 and x.dim() >= 1 and x.shape[-1] == bias.shape[0], lambda: "bias is [n], x [..., n]")
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("acme::hard_swish", mutates_args=())
def hard_swish(x: torch.Tensor) -> torch.Tensor:
    """``x * clamp(x + 3, 0, 6) / 6``"""
    return x * (x + 3).clamp(0, 6) / 6


@hard_swish.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
