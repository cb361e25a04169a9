"""Division of floats with a remainder, exactly: ``fmod``, ``remainder``, ``floor_divide``.

TensorRT has a quotient, which is rounded; eager's remainder is that of the exact one. A divisor that is a power of two
has an exact quotient. Of others, with |x| = a 2^p and |y| = b 2^q, a and b whole, the rest is (a 2^(p - q) mod b) 2^q,
which integers of 64 bits compute a few binary digits at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.exponents import DIGITS, LOWEST, scaled, split
from trtplug_lowering_passes.decompositions.shared import Table, constant, widened

aten = torch.ops.aten

EXACT = 2.0**24
"""A float32 that is so many times a power of two, or more, is a multiple of it."""

AT_ONCE = 63 - DIGITS - 1
"""So many binary digits more than b has still fit into an int64."""

_REACH = {torch.float16: (-24, 15), torch.bfloat16: (-133, 127), torch.float32: (LOWEST, 127)}
"""Exponents of the smallest and of the largest power of two in a dtype."""


def _rest(x: Tensor, y: Tensor, digits: int) -> Tensor:
    """fmod of float32, the quotient having at most so many binary digits: of the sign of x, nan as eager says."""
    (a, p), (b, q) = split(x), split(y)
    p, q = p - (DIGITS - 1), q - (DIGITS - 1)
    whole = 2.0 ** (DIGITS - 1)
    a, b = ((mantissa * whole).to(torch.int64) for mantissa in (a, b))
    powers = constant([1 << count for count in range(AT_ONCE + 1)], x, torch.int64)
    left = (p - q).clamp(min=0)
    rest = _modulo(a, b)
    for _ in range(-(-digits // AT_ONCE)):
        now = left.clamp(max=AT_ONCE)
        rest = _modulo(rest * torch.index_select(powers, 0, now.reshape(-1)).reshape(now.shape), b)
        left = left - now
    rest = scaled(rest.to(torch.float32), q)
    rest = torch.where(x.abs() < y.abs(), x, torch.where(x < 0, -rest, rest))
    return torch.where(~x.isfinite() | y.isnan() | (y == 0), math.nan, rest)


def _modulo(a: Tensor, b: Tensor) -> Tensor:
    """Of positive integers, without the ops that this module writes with others."""
    return a - torch.div(a, b, rounding_mode="trunc") * b


def _rest_of_power(x: Tensor, divisor: float) -> Tensor:
    """fmod by a power of two: nan of an infinity."""
    quotient = x * (1 / divisor)
    rest = x - quotient.trunc() * divisor
    whole = (quotient.abs() >= EXACT) | (rest == 0)
    return torch.where(whole & x.isfinite(), x * 0, rest)


def _is_power(number: float) -> bool:
    return abs(math.frexp(number)[0]) == 0.5 and 2.0**-100 <= abs(number) <= 2.0**100


def _operands(self: Any, other: Any, *, rounded: bool = True) -> tuple[Tensor, Tensor, float | None, torch.dtype]:
    """Both in float32, the divisor as a number where it is one, and the result's dtype.

    Beside halves, eager rounds a number to their dtype first, or does not (`rounded`).
    """
    dtype = torch.result_type(self, other)
    if dtype not in _REACH:
        raise NotImplementedError("not floats of TensorRT's arithmetic")
    like = self if isinstance(self, Tensor) else other
    own = dtype if rounded else torch.float32
    x, y = (
        widened(
            side.to(dtype) if isinstance(side, Tensor) else torch.scalar_tensor(side, dtype=own, device=like.device)
        )
        for side in (self, other)
    )
    number = _rounded(other, own) if isinstance(other, int | float) else None
    return *torch.broadcast_tensors(x, y), number, dtype


def _leaves_nothing(number: float | None) -> bool:
    """Whether a divisor is 0 or nan: every rest is nan, written without the constants that TensorRT fails to fold."""
    return number is not None and not abs(number) > 0


def _rounded(number: float, dtype: torch.dtype) -> float:
    """As an element of the dtype, by way of float32, as Torch does."""
    number = number if dtype == torch.float32 else _rounded(number, torch.float32)
    if not math.isfinite(number):
        return number
    limits, size = torch.finfo(dtype), abs(number)
    digits = 2 - math.frexp(limits.eps)[1]
    step = math.ldexp(1, max(math.frexp(size)[1], math.frexp(limits.tiny)[1]) - digits)
    nearest = round(size / step) * step
    return math.copysign(nearest if nearest <= limits.max else math.inf, number)


def _truncated_rest(x: Tensor, y: Tensor, number: float | None, dtype: torch.dtype) -> Tensor:
    if number is not None and _is_power(number):
        return _rest_of_power(x, number)
    smallest, largest = _REACH[dtype]
    least = smallest if number is None or not number or not math.isfinite(number) else math.frexp(number)[1] - 1
    return _rest(x, y, largest - least)


def fmod(self: Any, other: Any) -> Tensor:
    x, y, number, dtype = _operands(self, other)
    if _leaves_nothing(number):
        return (x * math.nan).to(dtype)
    return _truncated_rest(x, y, number, dtype).to(dtype)


def remainder(self: Any, other: Any) -> Tensor:
    """Of the divisor's sign."""
    x, y, number, dtype = _operands(self, other)
    if _leaves_nothing(number):
        return (x * math.nan).to(dtype)
    rest = _truncated_rest(x, y, number, dtype)
    return torch.where(_against(rest, y), rest + y, rest).to(dtype)


def _against(rest: Tensor, y: Tensor) -> Tensor:
    return (rest != 0) & ((rest < 0) != (y < 0))


def floor_divide(self: Any, other: Any) -> Tensor:
    """(x - rest) / y, which is whole but for rounding; in float32, where eager's kernels for halves disagree.

    Integers have a layer, under another name.
    """
    whole = torch.result_type(self, other)
    if not whole.is_floating_point:
        self, other = (side.to(whole) if isinstance(side, Tensor) else side for side in (self, other))
        return torch.div(self, other, rounding_mode="floor")
    x, y, number, dtype = _operands(self, other, rounded=False)
    if _leaves_nothing(number):
        return (x / y).to(dtype)
    if number is not None and _is_power(number):
        quotient = (x * (1 / number)).floor()
        lost = (quotient == 0) & (x * math.copysign(1, number) < 0)  # less than any quotient
        return torch.where(x.isfinite(), torch.where(lost, -1.0, quotient), math.nan).to(dtype)
    rest = _truncated_rest(x, y, number, dtype)
    quotient = (x - rest) / y
    quotient = torch.where(_against(rest, y), quotient - 1, quotient)
    floor = quotient.floor()
    floor = torch.where(quotient - floor > 0.5, floor + 1, floor)
    ratio = x / y
    floor = torch.where(quotient == 0, ratio * 0, floor)  # 0 of the sign of the quotient
    return torch.where(y == 0, ratio, floor).to(dtype)


def divide(self: Any, other: Any, *, rounding_mode: str | None) -> Tensor:
    if rounding_mode != "floor":
        raise NotImplementedError("the others have converters")
    return torch.floor_divide(self, other)


def true_divide(self: Tensor, other: Any) -> Tensor:
    dtype = torch.result_type(self, other)
    dtype = dtype if dtype.is_floating_point else torch.float32
    return torch.div(self.to(dtype), other.to(dtype) if isinstance(other, Tensor) else other)


_FUNCTIONS: dict[Any, Callable[..., Tensor]] = {
    aten.fmod: fmod,
    aten.remainder: remainder,
    aten.floor_divide: floor_divide,
}

TABLE: Table = {
    **{
        getattr(packet, name): function
        for packet, function in _FUNCTIONS.items()
        for name in packet.overloads()
        if name in ("Tensor", "Scalar", "Scalar_Tensor") or (packet is aten.floor_divide and name == "default")
    },
    aten.true_divide.Tensor: true_divide,
    aten.div.Scalar_mode: divide,
    aten.div.Tensor_mode: divide,
}
