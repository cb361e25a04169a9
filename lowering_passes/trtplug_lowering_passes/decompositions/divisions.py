"""Divisions of floats by a power of two, whose quotients are exact: x % 1, x // 2.

Of other divisors TensorRT floors a rounded quotient, where eager floors the exact one, and they stay refused.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table, widened

aten = torch.ops.aten

EXACT = 2.0**24
"""A float32 that is so many times a power of two, or more, is a multiple of it."""


def _power_of_two(self: Tensor, other: object) -> float:
    if not self.is_floating_point() or not isinstance(other, int | float) or not other or not math.isfinite(other):
        raise NotImplementedError("only floats over a number")
    if abs(math.frexp(other)[0]) != 0.5 or not 2.0**-100 <= abs(other) <= 2.0**100:
        raise NotImplementedError("the quotient is rounded")
    return float(other)


def _truncated_rest(x: Tensor, divisor: float) -> Tensor:
    """x - trunc(x / divisor) divisor, of the sign of x: nan of an infinity."""
    quotient = x * (1 / divisor)
    rest = x - quotient.trunc() * divisor
    whole = (quotient.abs() >= EXACT) & x.isfinite()
    return torch.where(whole, x * 0, rest)


def fmod(self: Tensor, other: float) -> Tensor:
    divisor = _power_of_two(self, other)
    return _truncated_rest(widened(self), divisor).to(self.dtype)


def remainder(self: Tensor, other: float) -> Tensor:
    divisor = _power_of_two(self, other)
    rest = _truncated_rest(widened(self), divisor)
    against = rest > 0 if divisor < 0 else rest < 0
    return torch.where(against, rest + divisor, rest).to(self.dtype)


def floor_divide(self: Tensor, other: float) -> Tensor:
    divisor = _power_of_two(self, other)
    x = widened(self)
    quotient = (x * (1 / divisor)).floor()
    return torch.where(x.isfinite(), quotient, math.nan).to(self.dtype)


def divide(self: Tensor, other: float, *, rounding_mode: str | None) -> Tensor:
    if rounding_mode != "floor":
        raise NotImplementedError("the others have converters")
    return floor_divide(self, other)


TABLE: Table = {
    aten.fmod.Scalar: fmod,
    aten.remainder.Scalar: remainder,
    aten.floor_divide.default: floor_divide,
    aten.floor_divide.Scalar: floor_divide,
    aten.div.Scalar_mode: divide,
    aten.div.Tensor_mode: divide,
}
