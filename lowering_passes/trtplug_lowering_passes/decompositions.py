"""How ops without a converter are written with others: Torch's own core ATen table, and what it lacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch import _decomp as torch_decompositions
from torch._ops import OpOverload

aten = torch.ops.aten

_BEYOND_CORE = (
    aten.addmm,
    aten.baddbmm,
    aten.native_layer_norm,
    aten.native_group_norm,
    aten._softmax,
    aten._log_softmax,
    aten.gelu,
    aten.hardtanh,
    aten.elu,
    aten.leaky_relu,
    aten.var,
    aten.native_batch_norm,
    aten._native_batch_norm_legit_no_training,
)
"""Core ops that Torch can write with simpler ones all the same; asked only where no converter takes them."""


def decompositions() -> Mapping[OpOverload, Callable[..., Any]]:
    """The table. Torch's is read when this is called, a few milliseconds.

    Composite ops are not in it: an op that is made of others says so itself, and lowering asks it.
    """
    table = {**_core(), **torch_decompositions.get_decompositions(_BEYOND_CORE)}
    found = {
        op: function
        for op, function in table.items()
        if isinstance(op, OpOverload) and not op._schema.is_mutable and torch.Tag.nondeterministic_seeded not in op.tags
    }
    found[aten.scaled_dot_product_attention.default] = scaled_dot_product_attention  # it refuses what is random itself
    return found


def _core() -> Mapping[Any, Any]:
    # the public table also collects every composite op, which takes a third of a second
    without_composites = getattr(torch_decompositions, "_core_aten_decompositions_post_autograd", None)
    return dict((without_composites or torch_decompositions.core_aten_decompositions)().items())


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
