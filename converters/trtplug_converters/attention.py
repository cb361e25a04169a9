"""Scaled dot-product attention, as the products and the softmax that it consists of.

TensorRT has an attention layer too. It is not used: whether it can run is known only on the GPU, and it says nothing of
rows without any key.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from trtplug_converters.creation import counted, places
from trtplug_converters.softmax import softmax_layer
from trtplug_registry import (
    BOOL,
    FLOATS,
    MAX_RANK,
    Call,
    Choose,
    Converter,
    ConverterContext,
    Domain,
    NetworkSize,
    NetworkTensor,
    Only,
    Optional,
    Relation,
    Static,
    SymbolicSize,
    Tensor,
    Tolerance,
    converter,
    same_dtype,
)

aten = torch.ops.aten

INFINITE = (
    "rows whose scores are all -inf are found by the mask: an infinite query or key makes them NaN here and 0 in eager"
)
MODERATE = 2.0
"""Elements are drawn up to here, and scales up to 1, so that scores stay where halves resolve them."""
SEEN, UNSEEN = 0.0, -math.inf
"""What is added to the score of a key that a query looks at, and of one that it does not."""
ROUNDED = "scores are rounded to halves before the exponential, which eager's fused kernel keeps in float32"


def attends() -> Relation:
    """Queries, keys, values and mask fit together (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        query = call["query"]
        if query.rank < 2:
            return
        if call["scale"] is not None:
            call["scale"] = choose.one_of([0.5, 1.0, -1.0, 0.125, 0.0])
        *batch, length, width = query.shape
        keys, values = choose.integer(0 if choose.integer(0, 9) == 9 else 1, 4), choose.integer(1, 4)
        if call["enable_gqa"] and batch:
            heads = batch[-1] or 1  # without heads, eager divides by 0 and ends the process
            batch = [*batch[:-1], heads * choose.integer(1, 3)]
            call["query"] = query._replace(shape=(*batch, length, width))
            inner = [*batch[:-1], heads]
        else:
            inner = batch
        call["key"] = query._replace(shape=(*inner, keys, width))
        call["value"] = query._replace(shape=(*inner, keys, values))
        mask = call["attn_mask"]
        if mask is not None:
            call["is_causal"] = False
            whole = [*batch, length, keys]
            rank = choose.one_of([2, len(whole)])
            shape = [1 if choose.integer(0, 3) == 0 else size for size in whole[len(whole) - rank :]]
            dtype = choose.one_of([query.dtype, torch.float32, torch.bool])
            call["attn_mask"] = mask._replace(shape=tuple(shape), dtype=dtype)

    names = ("query", "key", "value", "attn_mask", "is_causal", "scale", "enable_gqa")
    return Relation("shapes of queries, keys, values and mask that fit", names, None, arrange)


def values_for_keys() -> Relation:
    """As many values as keys, as far as sizes are known to be equal."""

    def holds(call: Call) -> bool:
        keys, values = call["key"].shape[-2], call["value"].shape[-2]
        return bool(keys == values)

    return Relation("as many values as keys", ("value", "key"), holds, because="eager reads past the shorter of them")


def heads_to_repeat() -> Relation:
    """Heads that are shared are there."""

    def holds(call: Call) -> bool:
        if not call["enable_gqa"]:
            return True
        if min(call[name].rank for name in ("query", "key", "value")) < 3:
            return False
        shared = [call[name].shape[-3] for name in ("key", "value")]
        return all((size.bounds()[0] if isinstance(size, SymbolicSize) else size) > 0 for size in shared)

    return Relation(
        "heads to share", ("enable_gqa", "query", "key", "value"), holds, because="no element of an empty axis"
    )


OPERAND = Tensor(
    FLOATS,
    rank=(2, MAX_RANK),
    values=(-MODERATE, MODERATE),
    because={"rank": "eager takes matrices", "values": INFINITE, "dtypes": "matrix products are of floats"},
)


@converter(
    aten.scaled_dot_product_attention.default,
    Domain(
        same_dtype("query", "key", "value"),
        attends(),
        values_for_keys(),
        heads_to_repeat(),
        query=OPERAND,
        key=OPERAND,
        value=OPERAND,
        attn_mask=Optional(Tensor(FLOATS + BOOL, rank=(2, MAX_RANK), because={"rank": "eager takes matrices"})),
        dropout_p=Only(0.0, because="dropout draws random numbers, and TensorRT would draw others"),
        is_causal=Only(False, True),
        scale=Optional(Static()),
        enable_gqa=Only(False, True),
    ),
    tolerance={
        torch.float16: Tolerance(1e-2, 1e-2, ROUNDED),
        torch.bfloat16: Tolerance(6e-2, 6e-2, ROUNDED),
    },
    keeps_nan=False,
)
def attention(
    ctx: ConverterContext,
    query: NetworkTensor,
    key: NetworkTensor,
    value: NetworkTensor,
    attn_mask: NetworkTensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> NetworkTensor:
    """``scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float
    dropout_p=0., bool is_causal=False, *, float? scale=None, bool enable_gqa=False) -> Tensor``: softmax(scale * query
    key^T + mask) value; a query that may look at no key gets 0.
    """
    if enable_gqa:
        heads = ctx.sizes(query)[-3]
        key, value = (repeated_heads(ctx, tensor, heads) for tensor in (key, value))
    scores = ctx.matmul(scaled(ctx, query, scale), key, transpose=(False, True))
    bias = bias_of(ctx, attn_mask, is_causal, scores)
    if bias is not None:
        scores = ctx.elementwise("SUM", ctx.cast(scores, ctx.dtype(bias)), bias)
    weights = softmax_layer(ctx, scores, -1)
    result = ctx.matmul(ctx.cast(weights, ctx.dtype(value)), value)
    # a pass that recognised attention knows more of where the mask comes from
    if attn_mask is None or ctx.node.meta.get("sees_keys") or not may_have_blind_rows(ctx, bias):
        return result
    most = ctx.reduce("MAX", bias, [-1], keepdim=True)
    return ctx.select(ctx.elementwise("EQUAL", most, UNSEEN), 0.0, result)


def repeated_heads(ctx: ConverterContext, tensor: NetworkTensor, heads: NetworkSize) -> NetworkTensor:
    """Each head for as many queries' heads as share it."""
    times = ctx.size_math("FLOOR_DIV", heads, ctx.sizes(tensor)[-3])
    if isinstance(times, int) and times == 1:
        return tensor
    place = counted(ctx, 0, 1, heads)
    return ctx.gather(tensor, ctx.elementwise("DIV", place, times), -3)


def scaled(ctx: ConverterContext, query: NetworkTensor, scale: float | None) -> NetworkTensor:
    """The query times the scale, by default 1 / sqrt(its width)."""
    width = ctx.sizes(query)[-1]
    if scale == 1:
        return query
    if scale is not None:
        return ctx.elementwise("PROD", query, scale)
    if isinstance(width, int):
        return ctx.elementwise("PROD", query, 1 / math.sqrt(width)) if width > 1 else query
    root = ctx.unary("SQRT", ctx.cast(width, torch.float32))
    return ctx.elementwise("DIV", query, ctx.cast(root, ctx.dtype(query)))


def bias_of(
    ctx: ConverterContext, mask: NetworkTensor | None, is_causal: bool, scores: NetworkTensor
) -> NetworkTensor | None:
    """What is added to the scores: 0 or -inf in their dtype, or a mask of floats in float32, which holds any sum."""
    dtype = ctx.dtype(scores)

    def chosen(condition: NetworkTensor, if_true: float, if_false: float) -> NetworkTensor:
        return ctx.select(condition, ctx.constant(if_true, dtype), ctx.constant(if_false, dtype))

    if is_causal:  # which excludes a mask
        row, column = places(ctx, ctx.sizes(scores)[-2:])
        return chosen(ctx.elementwise("GREATER", column, row), UNSEEN, SEEN)
    if mask is None:
        return None
    known = ctx.frozen(mask)
    if ctx.dtype(mask) == torch.bool:
        if known is not None:
            return ctx.constant(torch.where(known, SEEN, UNSEEN), dtype)
        return chosen(mask, SEEN, UNSEEN)
    return ctx.cast(mask, torch.float32)


def may_have_blind_rows(ctx: ConverterContext, bias: NetworkTensor) -> bool:
    """Whether some query may look at no key, as far as is known now."""
    known = ctx.frozen(bias)
    return known is None or bool((known == UNSEEN).all(-1).any())


CONVERTERS: tuple[Converter, ...] = (attention,)
