"""Comparisons, logic on truth values, and choices by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trtplug_converters.pointwise import NUMBER, in_dtype, keeps_dtype, number_in
from trtplug_registry import (
    ALL,
    BOOL,
    Converter,
    Domain,
    Static,
    Tensor,
    broadcastable,
    converter,
    converter_table,
    same_dtype,
)

aten = torch.ops.aten

CONDITION = Tensor(BOOL, because="TensorRT chooses by bools")

# --- comparisons --------------------------------------------------------------------------------------------------

# nan is in no order, so that "at most" is more than "not above"
COMPARISONS: Mapping[str, tuple[str, ...]] = {
    "eq": ("EQUAL",),
    "ne": ("EQUAL", "NOT"),
    "lt": ("LESS",),
    "gt": ("GREATER",),
    "le": ("LESS", "EQUAL"),
    "ge": ("GREATER", "EQUAL"),
}


def compare(layers: tuple[str, ...], ctx: Any, self: Any, other: Any) -> Any:
    """eq.Tensor(Tensor self, Tensor other) -> Tensor

    One elementwise layer, NOT of it, or OR of two; bools are ordered as int32, and whether they differ is XOR:
    TensorRT builds no EQUAL of bools that it finds to be constants itself.
    """
    left, right = in_dtype(ctx, self, other)
    if ctx.dtype(left) == torch.bool and layers[0] == "EQUAL":
        differ = ctx.elementwise("XOR", left, right)
        return differ if layers[-1] == "NOT" else ctx.unary("NOT", differ)
    if ctx.dtype(left) == torch.bool:
        left, right = (side if isinstance(side, bool) else ctx.cast(side, torch.int32) for side in (left, right))
    result = ctx.elementwise(layers[0], left, right)
    if layers[-1] == "NOT":
        return ctx.unary("NOT", result)
    return result if len(layers) == 1 else ctx.elementwise("OR", result, ctx.elementwise(layers[1], left, right))


comparisons = (
    *converter_table(
        {getattr(aten, name).Tensor: layers for name, layers in COMPARISONS.items()},
        Domain(
            same_dtype("self", "other"),
            broadcastable("self", "other"),
            self=Tensor(ALL),
            other=Tensor(ALL),
        ),
    )(compare),
    *converter_table(
        {getattr(aten, name).Scalar: layers for name, layers in COMPARISONS.items()},
        Domain(keeps_dtype("other"), self=Tensor(ALL), other=NUMBER),
    )(compare),
)

# --- logic --------------------------------------------------------------------------------------------------------


@converter_table(
    {aten.logical_and.default: "AND", aten.logical_or.default: "OR", aten.logical_xor.default: "XOR"},
    Domain(broadcastable("self", "other"), self=Tensor(ALL), other=Tensor(ALL)),
)
def logic(op: str, ctx: Any, self: Any, other: Any) -> Any:
    """logical_and(Tensor self, Tensor other) -> Tensor

    One elementwise layer on whether the elements differ from 0; the operands' dtypes need not agree.
    """
    return ctx.elementwise(op, ctx.cast(self, torch.bool), ctx.cast(other, torch.bool))


BITS = "TensorRT has no layer for the bits of integers"
BITWISE = {"bitwise_and": "AND", "bitwise_or": "OR", "bitwise_xor": "XOR"}


def bitwise(op: str, ctx: Any, self: Any, other: Any) -> Any:
    """bitwise_and.Tensor(Tensor self, Tensor other) -> Tensor

    One elementwise layer on bools.
    """
    return ctx.elementwise(op, self, other)


bits = (
    *converter_table(
        {getattr(aten, name).Tensor: op for name, op in BITWISE.items()},
        Domain(
            same_dtype("self", "other"),
            broadcastable("self", "other"),
            self=Tensor(BOOL, because=BITS),
            other=Tensor(BOOL),
        ),
    )(bitwise),
    *converter_table(
        {getattr(aten, name).Scalar: op for name, op in BITWISE.items()},
        Domain(keeps_dtype("other"), self=Tensor(BOOL, because=BITS), other=NUMBER),
    )(bitwise),
)

# --- choices ------------------------------------------------------------------------------------------------------


@converter(
    aten.where.self,
    Domain(
        same_dtype("self", "other"),
        broadcastable("condition", "self", "other"),
        condition=CONDITION,
        self=Tensor(ALL),
        other=Tensor(ALL),
    ),
)
def where(ctx: Any, condition: Any, self: Any, other: Any) -> Any:
    """where.self(Tensor condition, Tensor self, Tensor other) -> Tensor

    One select layer.
    """
    return ctx.select(condition, self, other)


def where_number(ctx: Any, condition: Any, self: Any, other: Any) -> Any:
    """where.ScalarOther(Tensor condition, Tensor self, Scalar other) -> Tensor

    One select layer; numbers are rounded to the result's dtype, as in eager.
    """
    dtype = ctx.outputs[0].dtype
    if_true, if_false = (
        ctx.constant(number_in(side, dtype), dtype) if isinstance(side, int | float) else side for side in (self, other)
    )
    return ctx.select(condition, if_true, if_false)


numbers = (
    converter(
        aten.where.ScalarOther,
        Domain(
            broadcastable("condition", "self"),
            keeps_dtype("other"),
            condition=CONDITION,
            self=Tensor(ALL),
            other=Static(nan=True),
        ),
    )(where_number),
    converter(
        aten.where.ScalarSelf,
        Domain(
            broadcastable("condition", "other"),
            keeps_dtype("self", beside=("other",)),
            condition=CONDITION,
            self=Static(nan=True),
            other=Tensor(ALL),
        ),
    )(where_number),
    converter(aten.where.Scalar, Domain(condition=CONDITION, self=Static(nan=True), other=Static(nan=True)))(
        where_number
    ),
)


@converter(
    aten.masked_fill.Scalar,
    Domain(broadcastable("self", "mask"), self=Tensor(ALL), mask=CONDITION, value=Static(nan=True)),
)
def masked_fill(ctx: Any, self: Any, mask: Any, value: Any) -> Any:
    """masked_fill.Scalar(Tensor self, Tensor mask, Scalar value) -> Tensor

    One select layer; the value becomes the tensor's dtype, as in eager.
    """
    dtype = ctx.dtype(self)
    return ctx.select(mask, ctx.constant(torch.tensor(value).to(dtype).item(), dtype), self)


@converter(
    aten.masked_fill.Tensor,
    Domain(
        same_dtype("self", "value"),
        broadcastable("self", "mask"),
        self=Tensor(ALL),
        mask=CONDITION,
        value=Tensor(ALL, rank=(0, 0)),
    ),
)
def masked_fill_tensor(ctx: Any, self: Any, mask: Any, value: Any) -> Any:
    """masked_fill.Tensor(Tensor self, Tensor mask, Tensor value) -> Tensor

    One select layer.
    """
    return ctx.select(mask, value, self)


CONVERTERS: tuple[Converter, ...] = (*comparisons, *logic, *bits, where, *numbers, masked_fill, masked_fill_tensor)
