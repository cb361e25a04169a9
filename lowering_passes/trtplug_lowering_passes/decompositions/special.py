"""Special functions of floats: the error function's inverses and tails, Bessel's I, the gamma function's logarithm.

Each is a polynomial in a variable t that runs from -1 to 1 over an interval, by interpolation in Chebyshev's nodes with
40 digits, to about float32's precision; beside it stand the factors that hold the function's poles and decay.
Definitions and expansions: NIST's Digital Library of Mathematical Functions, chapters 5, 7 and 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table, floating, result_of

aten = torch.ops.aten

# fmt: off
_ERFINV_NEAR = (  # erfinv(x) / x in w = -log(1 - x²), 0 to 5
    1.50140929, 0.616600752, -0.02610825, -0.0195741951, 0.00852569193, -0.000484344899, -0.00083579449, 0.000284068257,
    2.43901159e-05, -3.33366806e-05, 4.45550222e-06)
_ERFINV_FAR = (  # the same in sqrt(w), 2.23 to 4.03
    2.96333885, 0.903409898, 0.00564487278, -0.00380901713, 0.00244779186, -0.00146866462, 0.000667770277,
    -0.000152979614, -4.49571671e-05, 4.76057612e-05, -1.15045896e-05)
_NDTRI_TAIL = (  # -ndtri(p) / r in 1 / r, r = sqrt(-2 log(p)), 0.065 to 0.495
    0.82017082, -0.22258614, -0.0466201007, 0.00834096596, -0.00211858889, 0.000668985711, -0.000256703672,
    0.000146872626, -7.60558687e-05, -1.4320075e-05, 1.17238742e-05, 3.6024554e-05, -2.20866077e-05)
_ERFCX = (  # (1 + 2 x) erfcx(x) in (x - 2) / (x + 2), from 0 on
    1.27697837, -0.0927637592, -0.166030392, 0.164049402, -0.0542201847, -0.00801863614, 0.0087242946, 0.00121666549,
    -0.00146351173, -0.000357177894, 0.000221105453, 6.31001822e-05, -2.01089315e-05)
_I0E_NEAR = (  # exp(-x) I0(x), 0 to 5
    0.270046443, -0.158654481, 0.138405427, -0.124627821, 0.10508243, -0.0801004246, 0.0546957813, -0.0334943533,
    0.0184717551, -0.00927010551, 0.00431153132, -0.00180925359, 0.000631934265, -0.000235010535, 0.000125098522,
    -3.81512618e-05)
_I0E_FAR = (  # sqrt(x) exp(-x) I0(x) in 1 / x, 0 to 1 / 5
    0.404244512, 0.00566012738, 0.000410488399, 6.72056776e-05, 2.21050268e-05, 9.96319795e-06, -2.04601079e-07,
    -4.24896962e-06, -8.9065162e-07, 6.80568746e-07)
_I1E_NEAR = (  # exp(-x) I1(x) / x, 0 to 5
    0.0826338604, -0.101805933, 0.097346738, -0.0799443349, 0.0578972735, -0.0374385305, 0.0218010396, -0.0115084006,
    0.00555519387, -0.00248708809, 0.00101567269, -0.000354731979, 0.000128249929, -6.37508638e-05, 1.92004118e-05)
_I1E_FAR = (  # sqrt(x) exp(-x) I1(x) in 1 / x, 0 to 1 / 5
    0.383466244, -0.0160492472, -0.000643264444, -8.76691556e-05, -2.61757377e-05, -1.14577806e-05, -1.71170953e-07,
    4.47312777e-06, 1.05357253e-06, -6.73504474e-07)
_LGAMMA_NEAR = (  # lgamma(x) / ((x - 1) (x - 2)), 0.5 to 3
    0.450139314, -0.149352029, 0.0695632324, -0.0372120142, 0.0214247927, -0.0129447244, 0.00802652072, -0.00469006225,
    0.00299466797, -0.0036237645, 0.00242703268, 0.00266424823, -0.00185967085, -0.00531548169, 0.00365619943,
    0.00352733699, -0.00243261899, -0.00134333631, 0.000923955056)
# fmt: on

_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
_DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132)
_TRIGAMMA = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66)
"""Of the asymptotic series of lgamma, digamma and their like, in 1 / x²."""

SHIFT = 6
"""So far the recurrences go before the series begin."""


def polynomial(t: Tensor, coefficients: Sequence[float]) -> Tensor:
    """By Horner's rule, the constant term first."""
    value = t * coefficients[-1] + coefficients[-2]
    for coefficient in reversed(coefficients[:-2]):
        value = value * t + coefficient
    return value


def within(x: Tensor, low: float, high: float) -> Tensor:
    """t from -1 at `low` to 1 at `high`; nan stays."""
    return (x.clamp(low, high) - (low + high) / 2) / ((high - low) / 2)


def _of_floats(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function in float32, its result in the dtype of its argument, or float32 of integers."""

    def rounded(self: Tensor) -> Tensor:
        return function(floating(self)).to(result_of(self))

    return rounded


# --- the error function -----------------------------------------------------------------------------------------------


def erfinv(x: Tensor) -> Tensor:
    w = -((1 - x) * (1 + x)).clamp(min=2.0**-24).log()
    near = polynomial(within(w, 0, 5), _ERFINV_NEAR)
    far = polynomial(within(w.sqrt(), 2.23, 4.03), _ERFINV_FAR)
    value = x * torch.where(w < 5, near, far)
    value = torch.where(x.abs() == 1, x * math.inf, value)
    return torch.where(x.abs() > 1, math.nan, value)


def ndtri(p: Tensor) -> Tensor:
    """The inverse of the normal distribution: sqrt(2) erfinv(2 p - 1) in the middle, a series in the tails."""
    tail = torch.minimum(p, 1 - p)
    root = (-2 * tail.log()).sqrt()
    far = root * polynomial(within(1 / root, 0.065, 0.495), _NDTRI_TAIL)
    far = torch.where(tail == 0, math.inf, far)
    far = torch.where(p < 0.5, -far, far)
    value = torch.where(tail < 0.125, far, math.sqrt(2) * erfinv((p - 0.5).clamp(-0.4, 0.4) * 2))
    return torch.where((p < 0) | (p > 1), math.nan, value)


def erfcx(x: Tensor) -> Tensor:
    """exp(x²) erfc(x); of a negative x it is 2 exp(x²) - erfcx(-x)."""
    size = x.abs()
    t = torch.where(size > 1e9, 1.0, (size - 2) / (size + 2))
    value = polynomial(t, _ERFCX) / (1 + 2 * size)
    return torch.where(x < 0, 2 * (x * x).exp() - value, value)


# --- Bessel's I -------------------------------------------------------------------------------------------------------


def _i(size: Tensor, near: Sequence[float], far: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The polynomials of both intervals, at |x|."""
    return polynomial(within(size, 0, 5), near), polynomial(within(1 / size, 0, 0.2), far) / size.clamp(min=1).sqrt()


def i0e(x: Tensor) -> Tensor:
    size = x.abs()
    near, far = _i(size, _I0E_NEAR, _I0E_FAR)
    return torch.where(size > 5, far, near)


def i0(x: Tensor) -> Tensor:
    return x.abs().exp() * i0e(x)


def i1e(x: Tensor) -> Tensor:
    size = x.abs()
    near, far = _i(size, _I1E_NEAR, _I1E_FAR)
    return torch.where(size > 5, torch.where(x < 0, -far, far), x * near)


def i1(x: Tensor) -> Tensor:
    return x.abs().exp() * i1e(x)


# --- the gamma function -----------------------------------------------------------------------------------------------


def _from_whole(x: Tensor) -> Tensor:
    """pi times the distance to the nearest whole number, of its sign."""
    return (x - x.round()) * math.pi


def _asymptotic(x: Tensor, series: Sequence[float]) -> Tensor:
    return polynomial(1 / (x * x), series)


def lgamma(x: Tensor) -> Tensor:
    """log|gamma(x)|; below 1/2 by reflection, log(pi / |sin(pi x)|) - lgamma(1 - x).

    That sine is pi times the distance to the nearest whole number, which may be tiny, times a sinc, which is not.
    """
    mirrored = x < 0.5
    z = torch.where(mirrored, 1 - x, x)
    near = (z - 1) * (z - 2) * polynomial(within(z, 0.5, 3), _LGAMMA_NEAR)
    big = z.clamp(min=3)
    far = (big - 0.5) * (big.log() - 1) + (0.5 * math.log(2 * math.pi) - 0.5) + _asymptotic(big, _STIRLING) / big
    value = torch.where(z < 3, near, torch.where(z.isinf(), math.inf, far))
    angle = _from_whole(x)
    sinc = torch.where(angle == 0, 1.0, angle.sin() / angle)
    reflected = -(x - x.round()).abs().log() - sinc.log() - value
    pole = x.isinf() | ((x <= 0) & (x == x.floor()))
    return torch.where(pole, math.inf, torch.where(mirrored, reflected, value))


def digamma(x: Tensor) -> Tensor:
    """Its recurrence, then its series; below 0 by reflection, digamma(1 - x) - pi / tan(pi x)."""
    mirrored = x < 0
    z = torch.where(mirrored, 1 - x, x)
    steps = torch.zeros_like(z)
    for step in range(SHIFT):
        steps = steps + 1 / (z + step)
    far = z + SHIFT
    value = far.log() - 0.5 / far - _asymptotic(far, _DIGAMMA) / (far * far) - steps
    value = torch.where(mirrored, value - math.pi / _from_whole(x).tan(), value)
    value = torch.where(mirrored & (x == x.floor()), math.nan, value)
    return torch.where(x == 0, -1 / x, torch.where(x == math.inf, x, value))


def trigamma(x: Tensor) -> Tensor:
    """As digamma, of which it is the derivative; below 1/2 it is (pi / sin(pi x))² - trigamma(1 - x).

    The sine is of a rounded product, as eager's: at poles below 0 both are large numbers.
    """
    mirrored = x < 0.5
    z = torch.where(mirrored, 1 - x, x)
    steps = torch.zeros_like(z)
    for step in range(SHIFT):
        steps = steps + 1 / ((z + step) * (z + step))
    far = z + SHIFT
    value = (1 + 0.5 / far + _asymptotic(far, _TRIGAMMA) / (far * far)) / far + steps
    sine = math.pi / (x * math.pi).sin()
    return torch.where(mirrored, sine * sine - value, value)


def j0(x: Tensor) -> Tensor:
    """The spherical one, sin(x) / x."""
    wave = torch.where(x.isinf(), 0.0, x.sin() / x)
    return torch.where(x == 0, 1.0, wave)


def polygamma(n: int, self: Tensor) -> Tensor:
    if n not in (0, 1):
        raise NotImplementedError("higher derivatives are values of the zeta function")
    return _of_floats(trigamma if n else digamma)(self)


TABLE: Table = {
    **{
        getattr(aten, name).default: _of_floats(function)
        for name, function in {
            "erfinv": erfinv,
            "special_ndtri": ndtri,
            "special_erfcx": erfcx,
            "special_i0e": i0e,
            "i0": i0,
            "special_i0": i0,
            "special_i1e": i1e,
            "special_i1": i1,
            "special_modified_bessel_i0": i0,
            "special_modified_bessel_i1": i1,
            "special_spherical_bessel_j0": j0,
            "lgamma": lgamma,
            "digamma": digamma,
        }.items()
    },
    aten.polygamma.default: polygamma,
}
