"""Floats taken apart: whole mantissas and powers of two, exactly, whatever a device makes of logarithms and powers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table, constant, widened

aten = torch.ops.aten

DIGITS = 24
"""Binary digits of a float32."""

LOWEST, HIGHEST = -149, 127
"""Exponents of the smallest and the largest power of two in float32."""

_FAR = 64
"""Larger and smaller numbers are scaled before their logarithm is taken."""


def power_of_two(exponent: Tensor) -> Tensor:
    """2 ** exponent, float32, from a table: exact. The exponents are int64 in [-149, 127]."""
    table = constant([math.ldexp(1, each) for each in range(LOWEST, HIGHEST + 1)], exponent, torch.float32)
    return torch.index_select(table, 0, (exponent - LOWEST).reshape(-1)).reshape(exponent.shape)


def scaled(mantissa: Tensor, exponent: Tensor) -> Tensor:
    """mantissa * 2 ** exponent, float32, in two steps, so that neither factor leaves the range."""
    half = torch.div(exponent, 2, rounding_mode="floor")
    return mantissa * power_of_two(half) * power_of_two(exponent - half)


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of float32 the mantissa in [1, 2), and the exponent, int64: ``|x| == mantissa * 2 ** exponent``.

    Of 0, inf and nan it is that of 1. A logarithm, which may be off by one here or there, is corrected.
    """
    size = torch.where(x.isfinite() & (x != 0), x.abs(), 1.0)
    tiny, huge = size < 2.0**-_FAR, size > 2.0**_FAR
    size = torch.where(tiny, size * 2.0**96, torch.where(huge, size * 2.0**-_FAR, size))
    moved = torch.where(tiny, 96, torch.where(huge, -_FAR, 0))
    guess = size.log2().floor().to(torch.int64)
    mantissa = size * power_of_two(-guess)
    above, below = mantissa >= 2, mantissa < 1
    mantissa = torch.where(above, mantissa * 0.5, torch.where(below, mantissa * 2, mantissa))
    return mantissa, guess + above.to(torch.int64) - below.to(torch.int64) - moved


def frexp(self: Tensor) -> tuple[Tensor, Tensor]:
    """The mantissa in [1/2, 1), of the sign of x, and the exponent, int32; 0, inf and nan are their own mantissa."""
    x = widened(self)
    mantissa, exponent = split(x)
    own = (x == 0) | ~x.isfinite()
    mantissa = torch.where(own, x, torch.where(x < 0, -mantissa, mantissa) * 0.5)
    return mantissa.to(self.dtype), torch.where(own, 0, exponent + 1).to(torch.int32)


def nextafter(self: Tensor, other: Tensor) -> Tensor:
    """The float beside x in the direction of the other operand.

    A step away from 0 is the last digit's worth; towards 0 it is half of that from a power of two.
    """
    if self.dtype != other.dtype or self.dtype == torch.float64:
        raise NotImplementedError("TensorRT has no float64, and neighbours of two dtypes are nobody's")
    limits = torch.finfo(self.dtype)
    digit = round(math.log2(limits.eps))
    least = round(math.log2(limits.smallest_normal)) + digit
    x, other = torch.broadcast_tensors(widened(self), widened(other))
    size = x.abs()
    mantissa, exponent = split(x)
    outwards = torch.where(x < 0, other < x, other > x) | (x == 0)
    exponent = exponent - ((mantissa == 1) & ~outwards).to(torch.int64)
    step = power_of_two((exponent + digit).clamp(min=least))
    bound = torch.where(size.isinf(), limits.max, torch.where(outwards, size + step, size - step))
    bound = torch.where(x == 0, 2.0**least, bound)
    negative = torch.where(x == 0, other < 0, x < 0)
    moved = torch.where(negative, -bound, bound)
    result = torch.where(x == other, other, torch.where(x.isnan() | other.isnan(), math.nan, moved))
    return result.to(self.dtype)


TABLE: Table = {aten.frexp.Tensor: frexp, aten.nextafter.default: nextafter}
