"""Decompositions beside eager on drawn bits: exact ones to the bit, special functions to float32's precision."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import trtplug
import trtplug_lowering_passes

aten = torch.ops.aten
TABLE = trtplug_lowering_passes.trtplug_decompositions()
EDGES = (0.0, -0.0, 1.0, -1.0, 0.3, 3.0, -2.5, 2.0**24, 1e-38, 1e-45, 3e38, math.inf, -math.inf, math.nan)


def bits(dtype: torch.dtype, count: int = 20_000) -> torch.Tensor:
    """Each pattern of bits as likely as each other, and the edges with each other."""
    random = torch.Generator().manual_seed(5)
    whole, width = (torch.int32, 32) if dtype == torch.float32 else (torch.int16, 16)
    drawn = torch.randint(-(2 ** (width - 1)), 2 ** (width - 1), (count,), generator=random).to(whole).view(dtype)
    near = torch.randn(count, generator=random).to(dtype) * 10
    return torch.cat((drawn, near, torch.tensor(EDGES).to(dtype).repeat(len(EDGES))))


def differ(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """By value or by sign; one nan is as good as another."""
    assert found.dtype == expected.dtype
    same = (found == expected) & (torch.signbit(found) == torch.signbit(expected))
    return ~(same | (found.isnan() & expected.isnan()))


def quotient_overflows(x: torch.Tensor, y: Any) -> torch.Tensor:
    """Where eager's vectorized kernel gives nan, though the remainder exists, and its other kernel does not."""
    most = torch.finfo(torch.float32).max
    return (
        (x.double() / y).abs() >= most if not isinstance(y, torch.Tensor) else (x.double() / y.double()).abs() >= most
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("divisor", [None, 3, 0.3, -7.5, 2 * math.pi, 0.5, -4, 1e-3, 0, math.inf, math.nan])
def test_remainders(divisor: float | None, dtype: torch.dtype) -> None:
    x = bits(dtype)
    y: Any = x.roll(1)[torch.randperm(x.numel(), generator=torch.Generator().manual_seed(1))]
    y = y if divisor is None else divisor
    kind = "Tensor" if divisor is None else "Scalar"
    for packet in (aten.fmod, aten.remainder):
        op = getattr(packet, kind)
        wrong = differ(TABLE[op](x, y), op(x, y)) & ~quotient_overflows(x, y)
        assert not wrong.any(), (op, x[wrong][:3], y[wrong][:3] if divisor is None else y)


@pytest.mark.parametrize("divisor", [None, 3, 0.3, -7.5, 0.5, -4, 1e30, 0])
def test_floors_of_quotients(divisor: float | None) -> None:
    x = bits(torch.float32)
    y: Any = x.flip(0) if divisor is None else divisor
    for op, more in ((aten.floor_divide.default, {}),):
        wrong = differ(TABLE[op](x, y, **more), op(x, y, **more))
        assert not wrong.any(), (x[wrong][:3], y[wrong][:3] if divisor is None else y)


class ByNothing(torch.nn.Module):
    """Whole quotients and rests of a number by 0 and nan: constants, as TensorRT finds out."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.tensor(0.0))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        functions = (torch.floor_divide, torch.remainder, torch.fmod, torch.div)
        return [function(x, by) for function in functions for by in (0.0, -0.0, math.nan, self.nothing)]


def test_a_number_by_nothing_is_built() -> None:
    x = torch.tensor(-3.0)
    compiled = trtplug.compile(ByNothing(), (x,), min_block_size=1)
    assert not compiled.report.torch_ops, str(compiled.report)
    for value in (x, torch.tensor(2.0), torch.tensor(0.0)):
        torch.testing.assert_close(compiled(value), ByNothing()(value), equal_nan=True)


def test_floors_of_quotients_of_halves() -> None:
    """Eager's scalar kernel, one element at a time: its vectorized one rounds each step to the half type."""
    x, y = bits(torch.float16, 200)[:400], bits(torch.float16, 200).flip(0)[:400]
    found = TABLE[aten.floor_divide.default](x, y)
    expected = torch.stack([torch.floor_divide(one, other) for one, other in zip(x, y, strict=True)])
    assert not differ(found, expected).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_mantissas_and_exponents(dtype: torch.dtype) -> None:
    x = bits(dtype)
    mantissa, exponent = TABLE[aten.frexp.Tensor](x)
    expected = torch.frexp(x)
    assert not differ(mantissa, expected.mantissa).any()
    assert torch.equal(exponent, expected.exponent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_neighbours(dtype: torch.dtype) -> None:
    x = bits(dtype)
    y = x.flip(0)
    wrong = differ(TABLE[aten.nextafter.default](x, y), torch.nextafter(x, y))
    assert not wrong.any(), (x[wrong][:3], y[wrong][:3])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_integers(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(2)
    limits = torch.iinfo(dtype)
    x, y = (torch.randint(limits.min + 1, limits.max, (500,), generator=random, dtype=dtype) for _ in range(2))
    small = torch.randint(-9, 70, (500,), generator=random, dtype=dtype)
    y[:100] = 0
    for op, operands in (
        (aten.pow.Tensor_Tensor, (x, small)),
        (aten.pow.Tensor_Tensor, (small, small)),
        (aten.pow.Tensor_Tensor, (x, y.abs())),
        (aten.pow.Scalar, (-3, small.abs())),
        (aten.gcd.default, (x, y)),
        (aten.gcd.default, (x // 6 * 4, small)),
        (aten.lcm.default, (x // 1000, small)),
        (aten.mm.default, (x.reshape(20, 25), y.reshape(25, 20))),
    ):
        assert torch.equal(TABLE[op](*operands), op(*operands)), op


WIDE = torch.cat((torch.linspace(-12, 12, 5001), torch.logspace(-30, 30, 500), -torch.logspace(-30, 1, 300)))
UNIT = torch.cat((torch.linspace(0, 1, 5001), torch.logspace(-37, 0, 500), 1 - torch.logspace(-7, 0, 500)))
POINTS = torch.tensor((*EDGES, 0.5, -0.5, 2.0, -2.0, -3.5, 5.0, -5.0, 90.0, -90.0))

SPECIAL = {
    aten.erfinv.default: torch.cat((UNIT, -UNIT)),
    aten.special_ndtri.default: UNIT,
    aten.special_erfcx.default: WIDE,
    aten.special_i0.default: WIDE,
    aten.special_modified_bessel_i0.default: WIDE,
    aten.special_modified_bessel_i1.default: WIDE,
    aten.special_spherical_bessel_j0.default: WIDE,
    aten.special_i0e.default: WIDE,
    aten.special_i1.default: WIDE,
    aten.special_i1e.default: WIDE,
    aten.lgamma.default: WIDE,
    aten.digamma.default: WIDE,
}


@pytest.mark.parametrize("op", SPECIAL, ids=str)
def test_special_functions(op: Any) -> None:
    """Beside float64's, within 4e-6 of the value, or of 1 where it is smaller; beside eager where it is not finite."""
    x = SPECIAL[op]
    exact, found = op(x.double()), TABLE[op](x).double()
    within = exact.abs() < 1e30
    error = ((found - exact).abs() / exact.abs().clamp(min=1))[within]
    assert error.max() < 4e-6, x[within][error.argmax()]
    torch.testing.assert_close(TABLE[op](POINTS), op(POINTS), rtol=1e-5, atol=1e-5, equal_nan=True)
    for dtype in (torch.int64, torch.bool):
        whole = torch.tensor([0, 1, 1, 0]).to(dtype)
        torch.testing.assert_close(TABLE[op](whole), op(whole), rtol=1e-5, atol=1e-5)


def test_trigamma() -> None:
    x = torch.cat((WIDE[WIDE > 1e-10], torch.tensor([-0.5, -1.3, -7.7, math.inf])))
    torch.testing.assert_close(TABLE[aten.polygamma.default](1, x), torch.polygamma(1, x), rtol=1e-5, atol=1e-6)
    with pytest.raises(NotImplementedError):
        TABLE[aten.polygamma.default](2, x)


@pytest.mark.parametrize("rows", [3, 10])
def test_products_of_groups(rows: int) -> None:
    random = torch.Generator().manual_seed(3)
    x, weight = torch.randn(rows, 4, generator=random), torch.randn(4, 4, 5, generator=random)
    ends = torch.tensor([1, 1, 2, rows - 1])  # nobody in the second group, and a row after the last one
    expected = torch.zeros(rows, 5)
    for group, (start, end) in enumerate(zip([0, 1, 1, 2], ends.tolist(), strict=True)):
        expected[start:end] = x[start:end] @ weight[group]
    torch.testing.assert_close(TABLE[aten._grouped_mm.default](x, weight, ends), expected)


def test_what_would_take_too_many_comparisons_is_refused() -> None:
    x = torch.empty(2, 5000, device="meta")
    for op, args in (
        (aten.sort.default, (x,)),
        (aten.topk.default, (x, 4000)),
        (aten.isin.Tensor_Tensor, (x, x)),
        (aten.mm.default, (x.long().mT.expand(5000, 2), x.long())),
    ):
        with pytest.raises(NotImplementedError, match="too many"):
            TABLE[op](*args)
