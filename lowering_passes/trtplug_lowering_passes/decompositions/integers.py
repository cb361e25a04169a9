"""Products of matrices, powers, and common divisors of integers, exact and wrapping around as eager's do.

TensorRT multiplies matrices of floats only, and its powers of integers saturate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table

aten = torch.ops.aten

INTS = (torch.int32, torch.int64)

MOST_PRODUCTS = 2**24
"""A matrix product of integers is a sum over all the products, which are held at once."""


def _only_integers(*dtypes: torch.dtype) -> None:
    if any(dtype not in INTS for dtype in dtypes):
        raise NotImplementedError("only int32 and int64 are integers of TensorRT's arithmetic")


# --- matrices ---------------------------------------------------------------------------------------------------------


def product(self: Tensor, mat2: Tensor) -> Tensor:
    """[..., M, K] by [..., K, N]."""
    _only_integers(self.dtype)
    sizes = (*self.shape, mat2.size(-1))
    if all(isinstance(size, int) for size in sizes) and torch.Size(sizes).numel() > MOST_PRODUCTS:
        raise NotImplementedError("too many products to hold at once")
    return (self.unsqueeze(-1) * mat2.unsqueeze(-3)).sum(-2, dtype=self.dtype)


# --- powers -----------------------------------------------------------------------------------------------------------


def power(self: Tensor, exponent: Tensor) -> Tensor:
    """By repeated squaring, a binary digit of the exponent at a time. Of negative ones only 1 and -1 have powers."""
    dtype = torch.result_type(self, exponent)
    _only_integers(dtype)
    base, left = self.to(dtype), exponent.to(dtype)
    unit = torch.where(left.remainder(2) == 1, base, torch.ones_like(base))
    inverse = torch.where((base == 1) | (base == -1), unit, 0)
    negative, left = left < 0, left.clamp(min=0)
    result = torch.ones_like(left)
    for _ in range(torch.iinfo(dtype).bits - 1):
        half = torch.div(left, 2, rounding_mode="trunc")
        result = torch.where(left != half * 2, result * base, result)
        base, left = base * base, half
    return torch.where(negative, inverse, result)


def power_of_number(self: float, exponent: Tensor) -> Tensor:
    dtype = torch.result_type(self, exponent)
    _only_integers(dtype)
    return power(torch.scalar_tensor(self, dtype=dtype, device=exponent.device), exponent.to(dtype))


# --- divisors ---------------------------------------------------------------------------------------------------------

_STEPS = {torch.int32: 46, torch.int64: 92}
"""Of Euclid's algorithm, most for neighbours in Fibonacci's sequence."""


def gcd(self: Tensor, other: Tensor) -> Tensor:
    """Euclid's algorithm, its steps written out."""
    dtype = torch.promote_types(self.dtype, other.dtype)
    _only_integers(dtype)
    a, b = torch.broadcast_tensors(self.to(dtype).abs(), other.to(dtype).abs())
    for _ in range(_STEPS[dtype]):
        done = a == 0
        divisor = torch.where(done, 1, a)
        rest = b - torch.div(b, divisor, rounding_mode="trunc") * divisor
        a, b = torch.where(done, 0, rest), torch.where(done, b, a)
    largest: Tensor = b
    return largest


def lcm(self: Tensor, other: Tensor) -> Tensor:
    divisor: Tensor = torch.gcd(self, other)
    safe = torch.where(divisor == 0, 1, divisor)
    multiple: Tensor = (torch.div(self, safe, rounding_mode="trunc") * other).abs()
    result: Tensor = torch.where(divisor == 0, 0, multiple)
    return result


TABLE: Table = {
    aten.mm.default: product,
    aten.bmm.default: product,
    aten.pow.Tensor_Tensor: power,
    aten.pow.Scalar: power_of_number,
    aten.gcd.default: gcd,
    aten.lcm.default: lcm,
}
