"""Element by element: casts, arithmetic, activations, fills."""

from __future__ import annotations

import torch
from torch import Tensor

from trtplug.reference.semantics.checks import ints

_CONVERSIONS = {
    torch.int32: (-(2**31), 2**31 - 1),
    torch.int64: (-(2**63), 2**63 - 1),
    torch.uint8: (0, 2**32 - 1),
}


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """CAST. Floats are truncated and saturate, as CUDA's conversions do (seen on a GPU).

    NaN becomes 0 as int32 and the least integer as int64. int8 and uint8 are the low bits of the int32 and uint32.
    Integers wrap around when narrowed; anything that is not 0 is true.
    """
    if not x.is_floating_point() or dtype.is_floating_point or dtype is torch.bool:
        return x.to(dtype)
    least, most = _CONVERSIONS.get(dtype, _CONVERSIONS[torch.int32])
    y = torch.nan_to_num(x.double(), nan=float(least) if dtype is torch.int64 else 0.0)
    high = y >= float(most)
    inside = torch.where(high, 0, y).clamp(min=float(least)).to(torch.int64)
    return torch.where(high, most, inside).to(dtype)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """DIV: true division of floats; integers truncate towards 0, and the one overflow wraps around."""
    if a.is_floating_point():
        return torch.div(a, b)
    return _divided(a, b, "trunc")


def floor_divide(a: Tensor, b: Tensor) -> Tensor:
    """FLOOR_DIV: the quotient rounded down; for floats the rounded quotient's floor, not Python's exact one."""
    if a.is_floating_point():
        return torch.floor(torch.div(a, b))
    return _divided(a, b, "floor")


def _divided(a: Tensor, b: Tensor, rounding_mode: str) -> Tensor:
    """Integers; the processor traps on the lowest over -1."""
    flip = b == -1
    quotient = torch.div(a, torch.where(flip, 1, b), rounding_mode=rounding_mode)
    return torch.where(flip, -quotient, quotient)


def sign(x: Tensor) -> Tensor:
    """SIGN: -1, 0 or 1, and nan where x is."""
    return torch.where(torch.isnan(x), x, torch.sign(x)) if x.is_floating_point() else torch.sign(x)


def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    """CLIP to alpha … beta; for integers the bounds are first brought into the dtype's range."""
    if x.is_floating_point():
        return torch.clamp(x, alpha, beta)
    info = torch.iinfo(x.dtype)
    low, high = (int(min(max(bound, info.min), info.max)) for bound in (alpha, beta))
    return torch.clamp(x, low, high)


def power(a: Tensor, b: Tensor) -> Tensor:
    """POW: a ** b; integers go by way of float64 and saturate, so that 0 to a negative power is the greatest."""
    if a.is_floating_point():
        return torch.pow(a, b)
    return cast(torch.pow(a.double(), b.double()), a.dtype)


def gelu_erf(x: Tensor) -> Tensor:
    """GELU_ERF: 0.5 * x * (1 + erf(x / sqrt(2))); Torch's own gelu makes NaN of inf on some CPUs."""
    return 0.5 * x * (1 + torch.erf(x * 0.5**0.5))


def selu(x: Tensor, alpha: float, beta: float) -> Tensor:
    """SELU: beta * x above 0, else beta * alpha * (exp(x) - 1)."""
    return torch.where(x > 0, beta * x, beta * alpha * torch.expm1(x))


def softplus(x: Tensor, alpha: float, beta: float) -> Tensor:
    """SOFTPLUS: alpha * log(exp(beta * x) + 1)."""
    return alpha * torch.logaddexp(beta * x, torch.zeros_like(x))


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    """HARD_SIGMOID: alpha * x + beta, clipped to 0 … 1."""
    return torch.clamp(alpha * x + beta, 0, 1)


def scaled_tanh(x: Tensor, alpha: float, beta: float) -> Tensor:
    """SCALED_TANH: alpha * tanh(beta * x)."""
    return alpha * torch.tanh(beta * x)


def thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    """THRESHOLDED_RELU: x where it is above alpha, else 0."""
    return torch.where(x > alpha, x, torch.zeros_like(x))


def parametric_relu(x: Tensor, slopes: Tensor) -> Tensor:
    """PARAMETRIC_RELU: x where it is at least 0, else x times its slope."""
    return torch.where(x >= 0, x, x * slopes)


def scale(x: Tensor, factor: Tensor | None, shift: Tensor | None, power: Tensor | None) -> Tensor:
    """SCALE: (x * factor + shift) ** power, each broadcast against x."""
    y = x if factor is None else x * factor
    y = y if shift is None else y + shift
    return y if power is None else torch.pow(y, power)


def linspace(
    shape: list[int] | Tensor, start: Tensor | float, delta: Tensor | list[float], dtype: torch.dtype
) -> Tensor:
    """FILL, LINSPACE: start + sum over axes of (index along the axis * that axis' delta).

    Where:
        shape: output shape; the result is on its device where it is a tensor.
        start: number or 0-d tensor.
        delta: one number per axis, as a list or 1-D tensor (0-d counts as one axis).
    """
    like = next((t for t in (shape, start, delta) if isinstance(t, Tensor)), None)
    device = None if like is None else like.device
    dims = ints(shape)
    steps = torch.as_tensor(delta, dtype=dtype, device=device).reshape(-1)
    result = torch.as_tensor(start, dtype=dtype, device=device).expand(dims).clone()
    for axis, step in enumerate(steps):
        along = torch.arange(dims[axis], dtype=dtype, device=device) * step
        result = result + along.reshape([-1] + [1] * (len(dims) - axis - 1))
    return result


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU_TANH: 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))."""
    return torch.nn.functional.gelu(x, approximate="tanh")
