"""Arithmetic of two operands, tensors or numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trtplug_converters._shared import widened
from trtplug_converters.pointwise import (
    NUMBER,
    elementwise,
    in_dtype,
    is_number,
    keeps_dtype,
    number_in,
    operand,
    precise,
    some_tensor,
    tensor_dtype,
    truncated,
)
from trtplug_registry import (
    ALL,
    FLOATS,
    INTS,
    NUMBERS,
    Choose,
    Converter,
    Domain,
    Only,
    Relation,
    Static,
    Tensor,
    TensorFacts,
    broadcastable,
    converter,
    converter_table,
    same_dtype,
    tensors_in,
)

aten = torch.ops.aten
Dtypes = tuple[torch.dtype, ...]


OPERANDS = ("self", "other")


def either_side(dtypes: Dtypes, *more: Relation, because: str = "", **arguments: Any) -> Domain:
    """Two operands, one of which may be a number."""
    return Domain(
        some_tensor(dtypes, *OPERANDS),
        same_dtype(*OPERANDS),
        broadcastable(*OPERANDS),
        keeps_dtype(*OPERANDS, beside=OPERANDS),
        *more,
        self=operand(dtypes, because),
        other=operand(dtypes, because),
        **arguments,
    )


def number_right(dtypes: Dtypes, *more: Relation, because: str = "", **arguments: Any) -> Domain:
    """A tensor and a number."""
    return Domain(keeps_dtype("other"), *more, self=Tensor(dtypes, because=because), other=NUMBER, **arguments)


def two_tensors(dtypes: Dtypes, *more: Relation, because: str = "", **arguments: Any) -> Domain:
    """Two tensors."""
    tensors = dict.fromkeys(OPERANDS, Tensor(dtypes, because=because))
    return Domain(same_dtype(*OPERANDS), broadcastable(*OPERANDS), *more, **tensors, **arguments)


# --- sums ---------------------------------------------------------------------------------------------------------


def terms(ctx: Any, self: Any, other: Any, alpha: Any) -> list[Any]:
    """Both operands and alpha, rounded as in eager: with an alpha, the numbers are in the tensors' dtype first."""
    return [*precise(ctx, self, other), 1] if alpha == 1 else in_dtype(ctx, self, other, alpha)


def scaled_sum(ctx: Any, op: str, left: Any, right: Any, alpha: Any, dtype: torch.dtype) -> Any:
    """left ± alpha * right, rounded to the dtype once."""
    if alpha != 1:
        left, right = (side if is_number(side) else widened(ctx, side) for side in (left, right))
        is_plain = is_number(right)
        right = number_in(right * alpha, dtype) if is_plain else elementwise(ctx, "PROD", right, alpha)
    return ctx.cast(elementwise(ctx, op, left, right), dtype)


def sum_of_operands(op: str, ctx: Any, self: Any, other: Any, *, alpha: Any = 1) -> Any:
    """add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor

    One elementwise layer, a product before it where alpha is not 1; the sum of bools is OR.
    """
    left, right, alpha = terms(ctx, self, other, alpha)
    return scaled_sum(ctx, op, left, right, alpha, tensor_dtype(ctx, self, other))


def sum_with_number(op: str, ctx: Any, self: Any, other: Any, alpha: Any = 1) -> Any:
    """add.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor

    One elementwise layer.
    """
    left, right, alpha = terms(ctx, self, other, alpha)
    return scaled_sum(ctx, op, left, right, alpha, tensor_dtype(ctx, self, other))


ALPHA = Static(nan=True)


def alpha_fits() -> Relation:
    """Beside integers and bools alpha is no float (eager demands it); and its product with an operand is finite.

    Eager rounds ``self + alpha * other`` once, so that only the sum can overflow there.
    """

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        tensors = {name: call[name] for name in OPERANDS if isinstance(call[name], TensorFacts)}
        if not any(facts.dtype.is_floating_point for facts in tensors.values()):
            call["alpha"] = choose.integer(-3, 3)
        elif abs(call["alpha"]) > 1:
            call.update({name: facts._replace(values=(-1e3, 1e3)) for name, facts in tensors.items()})

    return Relation("an alpha that fits the operands", (*OPERANDS, "alpha"), None, arrange)


sums = (
    *converter_table({aten.add.Tensor: "SUM"}, either_side(ALL, alpha_fits(), alpha=ALPHA))(sum_of_operands),
    *converter_table({aten.sub.Tensor: "SUB"}, either_side(NUMBERS, alpha_fits(), alpha=ALPHA))(sum_of_operands),
    *converter_table({aten.add.Scalar: "SUM"}, number_right(ALL, alpha_fits(), alpha=ALPHA))(sum_with_number),
    *converter_table({aten.sub.Scalar: "SUB"}, number_right(NUMBERS, alpha_fits(), alpha=ALPHA))(sum_with_number),
)


@converter(
    aten.rsub.Tensor,
    two_tensors(NUMBERS, alpha_fits(), alpha=ALPHA),
)
def rsub(ctx: Any, self: Any, other: Any, *, alpha: Any = 1) -> Any:
    """rsub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor

    other - alpha * self.
    """
    left, right, alpha = terms(ctx, self, other, alpha)
    return scaled_sum(ctx, "SUB", right, left, alpha, tensor_dtype(ctx, self, other))


@converter(aten.rsub.Scalar, number_right(NUMBERS, alpha_fits(), alpha=ALPHA))
def rsub_number(ctx: Any, self: Any, other: Any, alpha: Any = 1) -> Any:
    """rsub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor

    other - alpha * self.
    """
    left, right, alpha = terms(ctx, self, other, alpha)
    return scaled_sum(ctx, "SUB", right, left, alpha, tensor_dtype(ctx, self, other))


# --- products, quotients, extrema -----------------------------------------------------------------------------------


def one_layer(op: str, ctx: Any, self: Any, other: Any) -> Any:
    """mul.Tensor(Tensor self, Tensor other) -> Tensor

    One elementwise layer; of bools, the product is AND, the maximum OR.
    """
    return ctx.cast(elementwise(ctx, op, *precise(ctx, self, other)), tensor_dtype(ctx, self, other))


EXACT = "TensorRT's quotient of integers is an integer; the lowering makes floats of them first"
products = (
    *converter_table({aten.mul.Tensor: "PROD"}, either_side(ALL))(one_layer),
    *converter_table({aten.mul.Scalar: "PROD"}, number_right(ALL))(one_layer),
    *converter_table({aten.div.Tensor: "DIV"}, either_side(FLOATS, because=EXACT))(one_layer),
    *converter_table({aten.div.Scalar: "DIV"}, number_right(FLOATS, because=EXACT))(one_layer),
)
extrema = converter_table(
    {aten.maximum.default: "MAX", aten.minimum.default: "MIN"}, two_tensors(ALL), keeps_nan=False
)(one_layer)


# --- division without a remainder, and the remainder ----------------------------------------------------------------


def tensors_dtype(call: Mapping[str, Any]) -> torch.dtype:
    return tensors_in([call[name] for name in OPERANDS])[0].dtype


def nonzero_divisor() -> Relation:
    """Integers are not divided by 0 (eager raises)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        other, positive = call["other"], choose.boolean()
        if tensors_dtype(call).is_floating_point:
            return
        if isinstance(other, TensorFacts):
            call["other"] = other._replace(values=(1, 2**31 - 1) if positive else (1 - 2**31, -1))
        elif other == 0:
            call["other"] = 1 if positive else -1

    return Relation("a divisor other than 0", OPERANDS, None, arrange)


def telling_floats(**values: tuple[float, float]) -> Relation:
    """Floats, which the domain refuses, are operands that tell eager from TensorRT: by dtype, self and other."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        dtype = str(tensors_dtype(call)).removeprefix("torch.")
        for name, value in zip(OPERANDS, values.get(dtype, ()), strict=False):
            is_tensor = isinstance(call[name], TensorFacts)
            call[name] = call[name]._replace(values=(value, value)) if is_tensor else value

    return Relation("floats that tell", OPERANDS, None, arrange)


def mode_fits_dtype() -> Relation:
    """Floats are not floored, integers not divided exactly."""

    def modes(call: Mapping[str, Any]) -> tuple[Any, ...]:
        first = call["self"] if isinstance(call["self"], TensorFacts) else call["other"]
        return (None, "trunc") if first.dtype.is_floating_point else ("trunc", "floor")

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        if call["rounding_mode"] not in modes(call):
            call["rounding_mode"] = choose.one_of(modes(call))

    return Relation(
        "rounding_mode none or trunc of floats, trunc or floor of integers",
        ("rounding_mode", "self", "other"),
        lambda call: call["rounding_mode"] in modes(call),
        arrange,
        f"{EXACT}; and it floors the rounded quotient of floats, eager the exact one",
    )


def divide(ctx: Any, self: Any, other: Any, *, rounding_mode: Any) -> Any:
    """div.Tensor_mode(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor

    DIV, and for trunc of floats CEIL or FLOOR of the quotient; FLOOR_DIV for floor.
    """
    if rounding_mode is None:
        return one_layer("DIV", ctx, self, other)
    left, right = in_dtype(ctx, self, other)
    quotient = elementwise(ctx, "FLOOR_DIV" if rounding_mode == "floor" else "DIV", left, right)
    return truncated(ctx, quotient) if ctx.dtype(quotient).is_floating_point else quotient


MODE = Only(None, "trunc", "floor")
divisions = (
    converter(aten.div.Tensor_mode, either_side(NUMBERS, nonzero_divisor(), mode_fits_dtype(), rounding_mode=MODE))(
        divide
    ),
    converter(aten.div.Scalar_mode, number_right(NUMBERS, nonzero_divisor(), mode_fits_dtype(), rounding_mode=MODE))(
        divide
    ),
)


def floor_divide(ctx: Any, self: Any, other: Any) -> Any:
    """floor_divide(Tensor self, Tensor other) -> Tensor

    FLOOR_DIV.
    """
    return elementwise(ctx, "FLOOR_DIV", *in_dtype(ctx, self, other))


def remainder(quotient: str, ctx: Any, self: Any, other: Any) -> Any:
    """remainder.Tensor(Tensor self, Tensor other) -> Tensor

    self - other * quotient, the quotient floored for remainder and truncated for fmod.
    """
    left, right = in_dtype(ctx, self, other)
    whole = elementwise(ctx, quotient, left, right)
    return elementwise(ctx, "SUB", left, elementwise(ctx, "PROD", whole, right))


INEXACT = "TensorRT has no remainder of floats, and floors their rounded quotient where eager floors the exact one"
# quotients just below 5, infinite (65520 is, as float16), and below 0 by less than float32 can say
FLOORS = telling_floats(float32=(1.5, 0.3), float16=(65520, 0.3), bfloat16=(-1e-38, 1e18))
REMAINDERS = telling_floats(float32=(1.5, 0.3), float16=(100, 0.3), bfloat16=(100, 0.3))
remainders = (
    converter(aten.floor_divide.default, either_side(INTS, nonzero_divisor(), FLOORS, because=INEXACT))(floor_divide),
    *converter_table(
        {aten.remainder.Tensor: "FLOOR_DIV", aten.fmod.Tensor: "DIV"},
        two_tensors(INTS, nonzero_divisor(), REMAINDERS, because=INEXACT),
    )(remainder),
    *converter_table(
        {aten.remainder.Scalar: "FLOOR_DIV", aten.fmod.Scalar: "DIV"},
        number_right(INTS, nonzero_divisor(), REMAINDERS, because=INEXACT),
    )(remainder),
)


CONVERTERS: tuple[Converter, ...] = (
    *sums,
    rsub,
    rsub_number,
    *products,
    *extrema,
    *divisions,
    *remainders,
)
