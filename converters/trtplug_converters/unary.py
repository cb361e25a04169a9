"""Functions of one tensor, element by element."""

from __future__ import annotations

import math
from typing import Any

import torch

from trtplug_converters.pointwise import elementwise, rounding_once, truncated
from trtplug_registry import ALL, FLOATS, INTS, NUMBERS, Converter, Domain, Tensor, converter, converter_table

aten = torch.ops.aten

FLOAT_FUNCTIONS = {
    aten.acos.default: "ACOS",
    aten.acosh.default: "ACOSH",
    aten.asin.default: "ASIN",
    aten.asinh.default: "ASINH",
    aten.atan.default: "ATAN",
    aten.atanh.default: "ATANH",
    aten.cos.default: "COS",
    aten.cosh.default: "COSH",
    aten.erf.default: "ERF",
    aten.exp.default: "EXP",
    aten.log.default: "LOG",
    aten.reciprocal.default: "RECIP",
    aten.sin.default: "SIN",
    aten.sinh.default: "SINH",
    aten.sqrt.default: "SQRT",
    aten.tan.default: "TAN",
}


@converter_table(FLOAT_FUNCTIONS, Domain(self=Tensor(ALL)))
def function(op: str, ctx: Any, self: Any) -> Any:
    """exp(Tensor self) -> Tensor

    One unary layer; integers and bools become float32 first, as in eager.
    """
    return ctx.unary(op, ctx.cast(self, ctx.outputs[0].dtype))


@converter_table({aten.sigmoid.default: "SIGMOID", aten.tanh.default: "TANH"}, Domain(self=Tensor(ALL)))
def sigmoidal(op: str, ctx: Any, self: Any) -> Any:
    """sigmoid(Tensor self) -> Tensor

    One activation layer.
    """
    return ctx.activation(op, ctx.cast(self, ctx.outputs[0].dtype))


# --- functions of several layers ----------------------------------------------------------------------------------


def rsqrt(ctx: Any, x: Any) -> Any:
    return ctx.unary("RECIP", ctx.unary("SQRT", x))


def exp2(ctx: Any, x: Any) -> Any:
    return ctx.elementwise("POW", 2.0, x)


def expm1(ctx: Any, x: Any) -> Any:
    """(e^x + 1) tanh(x / 2), which loses no digits near 0."""
    above = ctx.elementwise("SUM", ctx.unary("EXP", x), 1.0)
    return ctx.elementwise("PROD", above, ctx.activation("TANH", ctx.elementwise("PROD", x, 0.5)))


def log1p(ctx: Any, x: Any) -> Any:
    """log(1 + x); near 0, where 1 + x loses digits, 2 atanh(x / (x + 2))."""
    near = ctx.elementwise("LESS", ctx.unary("ABS", x), 0.5)
    ratio = ctx.elementwise("DIV", x, ctx.elementwise("SUM", x, 2.0))
    return ctx.select(
        near,
        ctx.elementwise("PROD", ctx.unary("ATANH", ratio), 2.0),
        ctx.unary("LOG", ctx.elementwise("SUM", x, 1.0)),
    )


def logarithm(ctx: Any, x: Any, base: float) -> Any:
    return ctx.elementwise("PROD", ctx.unary("LOG", x), 1 / math.log(base))


def log2(ctx: Any, x: Any) -> Any:
    return logarithm(ctx, x, 2)


def log10(ctx: Any, x: Any) -> Any:
    return logarithm(ctx, x, 10)


COMPOSED = {
    aten.rsqrt.default: rsqrt,
    aten.exp2.default: exp2,
    aten.expm1.default: expm1,
    aten.log1p.default: log1p,
    aten.log2.default: log2,
    aten.log10.default: log10,
}


@converter_table(COMPOSED, Domain(self=Tensor(ALL)))
def composed(compute: Any, ctx: Any, self: Any) -> Any:
    """rsqrt(Tensor self) -> Tensor

    A few layers, in float32 for half types, so that the result is rounded once.
    """
    return rounding_once(ctx, lambda x: compute(ctx, x), ctx.cast(self, ctx.outputs[0].dtype))


# --- parts of a number --------------------------------------------------------------------------------------------


@converter_table({aten.abs.default: "ABS", aten.neg.default: "NEG"}, Domain(self=Tensor(NUMBERS)))
def number(op: str, ctx: Any, self: Any) -> Any:
    """abs(Tensor self) -> Tensor

    One unary layer, for integers too.
    """
    return ctx.unary(op, self)


@converter_table(dict.fromkeys((aten.sign.default, aten.sgn.default), "SIGN"), Domain(self=Tensor(ALL)))
def sign(op: str, ctx: Any, self: Any) -> Any:
    """sign(Tensor self) -> Tensor

    One unary layer; a bool is its own sign. TensorRT's sign of nan is nan, eager's is 0.
    """
    if ctx.dtype(self) == torch.bool:
        return self
    signs = ctx.unary(op, self)
    return ctx.select(ctx.unary("ISNAN", self), 0.0, signs) if ctx.dtype(self) in FLOATS else signs


@converter_table(
    {aten.ceil.default: "CEIL", aten.floor.default: "FLOOR", aten.round.default: "ROUND"},
    Domain(self=Tensor(NUMBERS)),
)
def whole(op: str, ctx: Any, self: Any) -> Any:
    """floor(Tensor self) -> Tensor

    One unary layer; integers are whole already.
    """
    return self if ctx.dtype(self) in INTS else ctx.unary(op, self)


@converter(aten.trunc.default, Domain(self=Tensor(NUMBERS)))
def trunc(ctx: Any, self: Any) -> Any:
    """trunc(Tensor self) -> Tensor

    CEIL below 0, else FLOOR; integers are whole already.
    """
    return self if ctx.dtype(self) in INTS else truncated(ctx, self)


@converter(aten.square.default, Domain(self=Tensor(ALL)))
def square(ctx: Any, self: Any) -> Any:
    """square(Tensor self) -> Tensor

    The product with itself; bools become int64 first, as in eager.
    """
    own = ctx.cast(self, ctx.outputs[0].dtype)
    return elementwise(ctx, "PROD", own, own)


# --- predicates ---------------------------------------------------------------------------------------------------


@converter_table({aten.isnan.default: "ISNAN", aten.isinf.default: "ISINF"}, Domain(self=Tensor(ALL)))
def predicate(op: str, ctx: Any, self: Any) -> Any:
    """isnan(Tensor self) -> Tensor

    One unary layer; false for integers and bools.
    """
    if ctx.dtype(self) in FLOATS:
        return ctx.unary(op, self)
    return ctx.unary("NOT", ctx.elementwise("EQUAL", self, self))


@converter(aten.isfinite.default, Domain(self=Tensor(ALL)))
def isfinite(ctx: Any, self: Any) -> Any:
    """isfinite(Tensor self) -> Tensor

    Neither ISNAN nor ISINF; true for integers and bools.
    """
    if ctx.dtype(self) not in FLOATS:
        return ctx.elementwise("EQUAL", self, self)
    return ctx.unary("NOT", ctx.elementwise("OR", ctx.unary("ISNAN", self), ctx.unary("ISINF", self)))


@converter(aten.logical_not.default, Domain(self=Tensor(ALL)))
def logical_not(ctx: Any, self: Any) -> Any:
    """logical_not(Tensor self) -> Tensor

    NOT of whether an element differs from 0.
    """
    return ctx.unary("NOT", ctx.cast(self, torch.bool))


@converter(aten.bitwise_not.default, Domain(self=Tensor((torch.bool, *INTS))))
def bitwise_not(ctx: Any, self: Any) -> Any:
    """bitwise_not(Tensor self) -> Tensor

    NOT of bools; of integers -1 - x, which is the same bits.
    """
    return ctx.unary("NOT", self) if ctx.dtype(self) == torch.bool else ctx.elementwise("SUB", -1, self)


CONVERTERS: tuple[Converter, ...] = (
    *function,
    *sigmoidal,
    *composed,
    *number,
    *sign,
    *whole,
    trunc,
    square,
    *predicate,
    isfinite,
    logical_not,
    bitwise_not,
)
