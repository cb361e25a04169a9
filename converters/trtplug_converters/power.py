"""Powers: products and roots where eager computes them so, else the POW layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from trtplug_converters.pointwise import NUMBER, elementwise, in_dtype, keeps_dtype, rounding_once
from trtplug_registry import (
    FLOATS,
    INTS,
    NUMBERS,
    Choose,
    Converter,
    Domain,
    Relation,
    Static,
    Tensor,
    broadcastable,
    converter,
    same_dtype,
)

aten = torch.ops.aten


def square(ctx: Any, x: Any) -> Any:
    return elementwise(ctx, "PROD", x, x)


def cube(ctx: Any, x: Any) -> Any:
    return elementwise(ctx, "PROD", square(ctx, x), x)


def inverse(ctx: Any, x: Any) -> Any:
    return ctx.unary("RECIP", x)


def root(ctx: Any, x: Any) -> Any:
    return ctx.unary("SQRT", x)


# eager computes these by multiplication and roots, which differ from POW at -0.0 and -inf
EXACT_POWERS: Mapping[float, Callable[[Any, Any], Any]] = {
    2: square,
    3: cube,
    -1: inverse,
    -2: lambda ctx, x: inverse(ctx, square(ctx, x)),
    0.5: root,
    -0.5: lambda ctx, x: inverse(ctx, root(ctx, x)),
}


def whole_power(ctx: Any, x: Any, exponent: int) -> Any:
    """x ** exponent by squaring: products wrap around as eager's do, where TensorRT's powers of integers saturate."""
    if exponent < 2:
        return x if exponent == 1 else elementwise(ctx, "POW", x, 0)
    half = whole_power(ctx, x, exponent // 2)
    even = elementwise(ctx, "PROD", half, half)
    return elementwise(ctx, "PROD", even, x) if exponent % 2 else even


EXPONENT = Static(-(2**24), 2**24, nan=True, because="float32 rounds larger exponents, and odd ones become even")


def whole_exponent() -> Relation:
    """Integers have no negative powers (eager raises)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        if not call["self"].dtype.is_floating_point and call["exponent"] < 0:
            call["exponent"] = choose.integer(0, 5)

    return Relation("no negative power of integers", ("self", "exponent"), None, arrange)


@converter(
    aten.pow.Tensor_Scalar,
    Domain(keeps_dtype("exponent"), whole_exponent(), self=Tensor(NUMBERS), exponent=EXPONENT),
)
def power(ctx: Any, self: Any, exponent: Any) -> Any:
    """pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor

    POW; products, a reciprocal or a root for the exponents that eager computes so, and products for integers.
    """
    if ctx.dtype(self) in INTS:
        return whole_power(ctx, self, exponent)
    if exponent == 1:
        return self
    exact = EXACT_POWERS.get(exponent)
    if exact is not None:
        return rounding_once(ctx, lambda x: exact(ctx, x), self)
    return elementwise(ctx, "POW", *in_dtype(ctx, self, exponent))


SATURATES = "TensorRT's powers of integers go by way of float64 and saturate, where eager's wrap around"


@converter(
    aten.pow.Scalar,
    Domain(keeps_dtype("self", beside=("exponent",)), self=NUMBER, exponent=Tensor(FLOATS, because=SATURATES)),
)
def power_of_number(ctx: Any, self: Any, exponent: Any) -> Any:
    """pow.Scalar(Scalar self, Tensor exponent) -> Tensor

    POW.
    """
    return elementwise(ctx, "POW", *in_dtype(ctx, self, exponent))


@converter(
    aten.pow.Tensor_Tensor,
    Domain(
        same_dtype("self", "exponent"),
        broadcastable("self", "exponent"),
        self=Tensor(FLOATS, because=SATURATES),
        exponent=Tensor(FLOATS, because=SATURATES),
    ),
)
def power_of_tensors(ctx: Any, self: Any, exponent: Any) -> Any:
    """pow.Tensor_Tensor(Tensor self, Tensor exponent) -> Tensor

    POW.
    """
    return ctx.elementwise("POW", self, exponent)


CONVERTERS: tuple[Converter, ...] = (power, power_of_number, power_of_tensors)
