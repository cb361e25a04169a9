"""Attention, written with products and a softmax."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table

aten = torch.ops.aten


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query keyᵀ scale + mask) value, as ``torch.nn.functional`` documents it.

    Args:
        query: [..., Hq, L, E].
        key: [..., H, S, E]; H is Hq, or divides it with `enable_gqa`.
        value: [..., H, S, Ev].
        attn_mask: broadcastable to [..., Hq, L, S]; bool (True takes part) or added.

    Returns:
        [..., Hq, L, Ev]. A row that is masked throughout gives 0, as Torch's kernels do.
    """
    if dropout_p:
        raise NotImplementedError("dropout in attention is random")
    if enable_gqa:
        groups = query.size(-3) // key.size(-3)
        key, value = (_repeat_heads(tensor, groups) for tensor in (key, value))
    factor = 1 / math.sqrt(query.size(-1)) if scale is None else scale
    scores = torch.matmul(query, key.transpose(-2, -1)) * factor
    if is_causal:
        rows = torch.arange(query.size(-2), device=query.device).unsqueeze(1)
        columns = torch.arange(key.size(-2), device=query.device)
        attn_mask = columns <= rows
    if attn_mask is None:
        return torch.matmul(torch.softmax(scores, -1), value)
    masked = torch.where(attn_mask, scores, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return torch.matmul(aten._safe_softmax.default(masked, -1), value)


def _repeat_heads(tensor: Tensor, groups: int) -> Tensor:
    """[..., H, S, E] to [..., H * groups, S, E], each head `groups` times in a row."""
    *leading, heads, length, width = tensor.shape
    wide = tensor.unsqueeze(-3).expand(*leading, heads, groups, length, width)
    return wide.reshape(*leading, heads * groups, length, width)


TABLE: Table = {aten.scaled_dot_product_attention.default: scaled_dot_product_attention}
