"""Attention, rotary embedding, key-value caches."""

from __future__ import annotations

import torch
from torch import Tensor


def _causal(queries: int, keys: int, lower_right: bool, device: torch.device) -> Tensor:
    """Which keys each query sees, bool [queries, keys]: up to its own place, counted from the first or the last key."""
    offset = keys - queries if lower_right else 0
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(offset)


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, lengths: Tensor | None, softmax: bool, causal: str
) -> Tensor:
    """ATTENTION: softmax(query @ key^T + mask) @ value. There is no 1 / sqrt(head size): scale the query.

    Where:
        query: [N, H, Q, D]; key, value: [N, H / r, K, D], each head serving r heads of the query.
        mask: [n, h, Q, K], added where float; where bool, false hides the key.
        lengths: [N], the keys of each batch item that count.
        softmax: False leaves the scores as they are.
        causal: NONE, UPPER_LEFT or LOWER_RIGHT.
    """
    if key.shape[1] != query.shape[1]:
        key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value))
    scores = torch.matmul(query, key.mT)
    seen = torch.ones((), dtype=torch.bool, device=query.device)
    if mask is not None and mask.dtype is torch.bool:
        seen = seen & mask
    elif mask is not None:
        scores = scores + mask
    if causal != "NONE":
        seen = seen & _causal(query.shape[2], key.shape[2], causal == "LOWER_RIGHT", query.device)
    if lengths is not None:
        seen = seen & (torch.arange(key.shape[2], device=query.device) < lengths.reshape(-1, 1, 1, 1))
    scores = torch.where(seen, scores, -torch.inf if softmax else 0.0)
    return torch.matmul(torch.softmax(scores, -1) if softmax else scores, value)


def rotary_embedding(
    x: Tensor, cosine: Tensor, sine: Tensor, positions: Tensor | None, interleaved: bool, size: int
) -> Tensor:
    """ROTARY_EMBEDDING of the first `size` (0: all) of the last axis.

    Where:
        x: [N, H, S, D]; the pairs are neighbours (interleaved) or lie half the size apart.
        cosine, sine: [N, S, size / 2], or [positions, size / 2] indexed by `positions` [N, S].
    """
    if positions is not None:
        cosine, sine = cosine[positions.long()], sine[positions.long()]
    turned, rest = x[..., : size or None], x[..., size or x.shape[-1] :]
    half = turned.shape[-1] // 2
    c, s = cosine[:, None, :, :half], sine[:, None, :, :half]
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else (turned[..., :half], turned[..., half:])
    first, second = a * c - b * s, a * s + b * c
    both = torch.stack([first, second], -1).flatten(-2) if interleaved else torch.cat([first, second], -1)
    return torch.cat([both, rest], -1)


def kv_cache_update(cache: Tensor, update: Tensor, starts: Tensor) -> Tensor:
    """KV_CACHE_UPDATE, LINEAR: cache [N, H, S, D] with update [N, H, s, D] written at starts[n] of axis 2."""
    result = cache.clone()
    for item, start in enumerate(starts.tolist()):
        stop = start + update.shape[2]
        if start < 0 or stop > cache.shape[2]:
            raise IndexError(f"cache entries {start} … {stop - 1} of {cache.shape[2]}")
        result[item, :, start:stop] = update[item]
    return result
