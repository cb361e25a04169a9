"""Functions of one or two elements that TensorRT has no layer for, written with those that it has."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table, floating, result_of

aten = torch.ops.aten


# --- signs ------------------------------------------------------------------------------------------------------------


def signbit(self: Tensor) -> Tensor:
    """Whether the sign is negative, that of -0.0 too. (Of a nan it is taken to be positive.)"""
    if not self.is_floating_point():
        return self < 0 if self.dtype != torch.bool else torch.zeros_like(self)
    return (self < 0) | ((self == 0) & (self.reciprocal() < 0))


def copysign(self: Tensor, other: Tensor) -> Tensor:
    dtype = result_of(self, other)
    size = self.to(dtype).abs()
    return torch.where(signbit(other), -size, size)


def copysign_number(self: Tensor, other: float) -> Tensor:
    size = self.to(result_of(self)).abs()
    return -size if math.copysign(1, other) < 0 else size.clone()


def fmax(self: Tensor, other: Tensor) -> Tensor:
    """The larger one, nan only where both are."""
    return _but_for_nan(self, other, torch.maximum)


def fmin(self: Tensor, other: Tensor) -> Tensor:
    return _but_for_nan(self, other, torch.minimum)


def _but_for_nan(self: Tensor, other: Tensor, choose: object) -> Tensor:
    assert callable(choose)
    dtype = torch.promote_types(self.dtype, other.dtype)
    self, other = torch.broadcast_tensors(self.to(dtype), other.to(dtype))
    chosen: Tensor = choose(self, other)
    if not dtype.is_floating_point:
        return chosen
    return torch.where(self.isnan(), other, torch.where(other.isnan(), self, chosen))


# --- angles and lengths -----------------------------------------------------------------------------------------------


def atan2(self: Tensor, other: Tensor) -> Tensor:
    """The angle of the point (other, self), from the arc tangent of |self| / |other| in the right quadrant."""
    y, x = floating(self), floating(other)
    across, along = y.abs(), x.abs()
    alike = (across == along) & ((across == 0) | across.isinf())  # where the quotient is nan, and the angle is not
    angle = torch.where(alike, torch.where(across == 0, 0.0, math.pi / 4), (across / along).atan())
    angle = torch.where(signbit(x), math.pi - angle, angle)
    return torch.where(signbit(y), -angle, angle).to(result_of(self, other))


def hypot(self: Tensor, other: Tensor) -> Tensor:
    """sqrt(self² + other²), scaled by the larger one so that no square overflows; an infinity outdoes nan."""
    one, two = floating(self).abs(), floating(other).abs()
    longer, shorter = torch.maximum(one, two), torch.minimum(one, two)
    ratio = shorter / longer
    length = torch.where(longer == 0, longer, longer * (1 + ratio * ratio).sqrt())
    return torch.where(one.isinf() | two.isinf(), math.inf, length).to(result_of(self, other))


def angle(self: Tensor) -> Tensor:
    """0, or pi below 0; nan stays."""
    if self.is_complex():
        raise NotImplementedError("complex numbers are not TensorRT types")
    x = self if self.is_floating_point() else self.to(torch.float32)
    return torch.where(x.isnan(), x, torch.where(x < 0, math.pi, 0.0).to(x.dtype))


# --- the complementary error function ---------------------------------------------------------------------------------

TAIL, DEPTH = 2.0, 16
"""From here on 1 - erf(x) loses digits, and so many terms of the continued fraction give all of float32's."""


def erfc(self: Tensor) -> Tensor:
    """1 - erf(x), or from 2 on exp(-x²) / sqrt(pi) / (x + 1/2 / (x + 2/2 / (x + 3/2 / …))), Laplace's fraction."""
    x = floating(self)
    far = x.clamp(min=TAIL)
    fraction = far
    for term in range(DEPTH, 0, -1):
        fraction = far + (term / 2) / fraction
    tail = (-far * far).exp() / (math.sqrt(math.pi) * fraction)
    return torch.where(x > TAIL, tail, 1 - x.erf()).to(result_of(self))


# --- bits of integers -------------------------------------------------------------------------------------------------


def _width(tensor: Tensor) -> int:
    return torch.iinfo(tensor.dtype).bits


def _powers(tensor: Tensor, count: int) -> Tensor:
    """1, 2, 4, …, in the tensor's dtype."""
    factors = torch.full((count,), 2, dtype=tensor.dtype, device=tensor.device)
    one = torch.ones(1, dtype=tensor.dtype, device=tensor.device)
    return torch.cat([one, factors[1:]]).cumprod(0, dtype=tensor.dtype)


def _bits(tensor: Tensor) -> Tensor:
    """Two's complement along a new last axis, lowest first, the sign last: bool [..., 32] or [..., 64]."""
    powers = _powers(tensor, _width(tensor) - 1)
    quotients = torch.div(tensor.unsqueeze(-1), powers, rounding_mode="floor")
    return torch.cat([quotients.remainder(2) == 1, (tensor < 0).unsqueeze(-1)], -1)


def _number(bits: Tensor, like: Tensor) -> Tensor:
    values = torch.where(bits[..., :-1], _powers(like, _width(like) - 1), 0)
    lowest = torch.scalar_tensor(torch.iinfo(like.dtype).min, dtype=like.dtype, device=like.device)
    return values.sum(-1, dtype=like.dtype) + torch.where(bits[..., -1], lowest, 0)


def _bitwise(self: Tensor, other: Tensor, combine: object) -> Tensor:
    assert callable(combine)
    dtype = torch.promote_types(self.dtype, other.dtype)
    if dtype not in (torch.int32, torch.int64):
        raise NotImplementedError("only int32 and int64 are integers of TensorRT's arithmetic")
    self, other = self.to(dtype), other.to(dtype)
    return _number(combine(_bits(self), _bits(other)), self)


def bitwise_and(self: Tensor, other: Tensor) -> Tensor:
    return _bitwise(self, other, torch.logical_and)


def bitwise_or(self: Tensor, other: Tensor) -> Tensor:
    return _bitwise(self, other, torch.logical_or)


def bitwise_xor(self: Tensor, other: Tensor) -> Tensor:
    return _bitwise(self, other, torch.logical_xor)


def _as_tensor(number: float, like: Tensor) -> Tensor:
    return torch.scalar_tensor(number, dtype=like.dtype, device=like.device)


def _and_number(combine: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, int], Tensor]:
    def bits(self: Tensor, other: int) -> Tensor:
        self = self.to(torch.result_type(self, other))
        return combine(self, _as_tensor(other, self))

    return bits


def _shifted(self: Tensor, by: Tensor, left: bool) -> Tensor:
    """Times or divided by a power of two; all bits are gone where the shift is negative or as wide as the type."""
    dtype = torch.promote_types(self.dtype, by.dtype)
    if dtype not in (torch.int32, torch.int64):
        raise NotImplementedError("only int32 and int64 are integers of TensorRT's arithmetic")
    self, by = torch.broadcast_tensors(self.to(dtype), by.to(dtype))
    most = _width(self) - 2
    beyond = (by < 0) | (by > most)
    power = torch.index_select(_powers(self, most + 1), 0, by.clamp(0, most).reshape(-1)).reshape(by.shape)
    if not left:
        sign = torch.where(self < 0, -1, 0).to(dtype)
        return torch.where(beyond, sign, torch.div(self, power, rounding_mode="floor"))
    last = torch.where(by == most + 1, (self.remainder(2) * torch.iinfo(dtype).min), 0)
    return torch.where(beyond, last, self * power)


def left_shift(self: Tensor, other: Tensor) -> Tensor:
    return _shifted(self, other, True)


def right_shift(self: Tensor, other: Tensor) -> Tensor:
    return _shifted(self, other, False)


def left_shift_number(self: Tensor, other: int) -> Tensor:
    return _shifted(self, _as_tensor(other, self), True)


def right_shift_number(self: Tensor, other: int) -> Tensor:
    return _shifted(self, _as_tensor(other, self), False)


# --- nearness ---------------------------------------------------------------------------------------------------------


def isclose(self: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Between integers and bools the distance is a float32, as eager's."""
    close = self == other
    if equal_nan and self.is_floating_point():
        close = close | (self.isnan() & other.isnan())
    if rtol == 0 and atol == 0:
        return close
    if not self.is_floating_point():
        self, other = self.to(torch.float32), other.to(torch.float32)
    distance = (self - other).abs()
    return close | (distance.isfinite() & (distance <= atol + (rtol * other).abs()))


def round_to(self: Tensor, *, decimals: int) -> Tensor:
    """To so many places after the point (before it, where negative); integers are whole already."""
    if not self.is_floating_point():
        raise NotImplementedError("eager refuses integers")
    power = 10.0 ** abs(decimals)
    x = floating(self)
    return ((x * power).round() / power if decimals >= 0 else (x / power).round() * power).to(self.dtype)


def clip(self: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    dtype = self.dtype
    for bound in (min, max):
        dtype = dtype if bound is None else torch.promote_types(dtype, torch.result_type(self, bound))
    return torch.clamp(self.to(dtype), min, max)


def threshold(self: Tensor, threshold: float, value: float) -> Tensor:
    """With both numbers as elements of the tensor's dtype first."""
    bound, other = (torch.scalar_tensor(number, dtype=self.dtype, device=self.device) for number in (threshold, value))
    return torch.where(self <= bound, other, self)


def rrelu(
    self: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, generator: object = None
) -> Tensor:
    if training:
        raise NotImplementedError("random slopes")
    return torch.nn.functional.leaky_relu(self, (lower + upper) / 2)


_EXACT = torch.ldexp(torch.ones(1, dtype=torch.float16), torch.ones(1, dtype=torch.int32)).dtype is torch.float16
"""Whether Torch scales floats by whole powers exactly, in their own dtype; older versions multiply with the power."""


def ldexp(self: Tensor, other: Tensor) -> Tensor:
    """self times 2 to the other. A whole power beyond float32 is multiplied in three parts that are within."""
    if other.is_floating_point():
        return self * torch.pow(2.0, other)
    if not (_EXACT and self.is_floating_point()):
        return self * torch.pow(2.0, other.to(torch.float32))
    power = other.to(torch.int32).clamp(-378, 378)
    third = torch.div(power, 3, rounding_mode="trunc")
    one, two = torch.pow(2.0, third.to(torch.float32)), torch.pow(2.0, (power - 2 * third).to(torch.float32))
    return (self.to(torch.float32) * one * one * two).to(self.dtype)


TABLE: Table = {
    aten.ldexp.Tensor: ldexp,
    aten.signbit.default: signbit,
    aten.copysign.Tensor: copysign,
    aten.copysign.Scalar: copysign_number,
    aten.fmax.default: fmax,
    aten.fmin.default: fmin,
    aten.atan2.default: atan2,
    aten.angle.default: angle,
    aten.hypot.default: hypot,
    aten.erfc.default: erfc,
    aten.bitwise_and.Tensor: bitwise_and,
    aten.bitwise_or.Tensor: bitwise_or,
    aten.bitwise_xor.Tensor: bitwise_xor,
    aten.bitwise_and.Scalar: _and_number(bitwise_and),
    aten.bitwise_or.Scalar: _and_number(bitwise_or),
    aten.bitwise_xor.Scalar: _and_number(bitwise_xor),
    aten.bitwise_left_shift.Tensor: left_shift,
    aten.bitwise_right_shift.Tensor: right_shift,
    aten.bitwise_left_shift.Tensor_Scalar: left_shift_number,
    aten.bitwise_right_shift.Tensor_Scalar: right_shift_number,
    aten.__lshift__.Tensor: left_shift,
    aten.__rshift__.Tensor: right_shift,
    aten.__lshift__.Scalar: left_shift_number,
    aten.__rshift__.Scalar: right_shift_number,
    aten.isclose.default: isclose,
    aten.round.decimals: round_to,
    aten.rrelu.default: rrelu,
    aten.threshold.default: threshold,
    aten.clip.default: clip,
}
