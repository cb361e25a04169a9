"""Comparing results with eager's: number of results, then dtype, then shape, then values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from trtplug_registry import Tolerance

DEFAULT: Mapping[torch.dtype, Tolerance] = {
    torch.float64: Tolerance(1e-12, 1e-13, "rounding of float64"),
    torch.float32: Tolerance(1e-5, 2e-6, "rounding of float32, summed in another order"),
    torch.float16: Tolerance(2e-3, 1e-3, "eager rounds once, TensorRT after each layer: two units in the last place"),
    torch.bfloat16: Tolerance(
        1.6e-2, 8e-3, "eager rounds once, TensorRT after each layer: two units in the last place"
    ),
}
"""By dtype of the result; the absolute part is multiplied by the largest moderate element. Other dtypes are exact."""

MODERATE = 1e4
"""Larger elements do not loosen the tolerance of the others."""


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """The first difference between two results.

    Attributes:
        what: ``number``, ``dtype``, ``shape`` or ``values``.
        text: in words, with the elements at fault.
        result: which result.
        places: for values, a bool tensor that is True where they differ.
    """

    what: str
    text: str
    result: int = 0
    places: torch.Tensor | None = None

    def __str__(self) -> str:
        return self.text


def mismatch(
    actual: Sequence[Any],
    expected: Sequence[Any],
    tolerance: Mapping[torch.dtype, Tolerance] | None = None,
    *,
    signed_zeros: bool = False,
) -> Mismatch | None:
    """How `actual` differs from `expected`, or None.

    NaN equals NaN, infinities are exact, and -0.0 equals 0.0 unless `signed_zeros`.

    Args:
        actual: what was computed.
        expected: what eager computes.
        tolerance: by dtype of the result, instead of `DEFAULT`.
        signed_zeros: whether zeros must agree in sign.
    """
    if len(actual) != len(expected):
        return Mismatch("number", f"{len(actual)} results, eager has {len(expected)}")
    for number, (ours, theirs) in enumerate(zip(actual, expected, strict=True)):
        which = f"result {number}" if len(expected) > 1 else "the result"
        if ours.dtype != theirs.dtype:
            return Mismatch("dtype", f"{which} is {ours.dtype}, eager's is {theirs.dtype}", number)
        if tuple(ours.shape) != tuple(theirs.shape):
            return Mismatch("shape", f"{which} is {list(ours.shape)}, eager's is {list(theirs.shape)}", number)
        found = _values(ours.detach().cpu(), theirs.detach().cpu(), tolerance or {}, signed_zeros)
        if found is not None:
            wrong, allowed = found
            return Mismatch("values", f"{which} differs in {_describe(ours, theirs, wrong, allowed)}", number, wrong)
    return None


def _values(
    ours: torch.Tensor, theirs: torch.Tensor, tolerance: Mapping[torch.dtype, Tolerance], signed_zeros: bool
) -> tuple[torch.Tensor, str] | None:
    """Where two tensors of one dtype and shape differ, and what was allowed; None where they agree."""
    if torch.equal(ours, theirs) and not signed_zeros:
        return None
    if not ours.is_floating_point():
        steps = tolerance.get(ours.dtype)
        wrong = ours != theirs if steps is None else (ours.long() - theirs.long()).abs() > steps.absolute
        allowed = "exact" if steps is None else f"{steps.absolute:g} apart, since {steps.because}"
        return (wrong, allowed) if bool(wrong.any()) else None
    limits = tolerance.get(ours.dtype) or DEFAULT.get(ours.dtype) or Tolerance(0, 0, "exact")
    one, two = ours.double(), theirs.double()
    moderate = two[two.isfinite() & (two.abs() <= MODERATE)].abs()
    scale = max(1.0, float(moderate.max())) if moderate.numel() else 1.0
    near = (one - two).abs() <= limits.absolute * scale + limits.relative * two.abs()
    agrees = (one == two) | (one.isnan() & two.isnan()) | (near & one.isfinite() & two.isfinite())
    if signed_zeros:
        agrees &= ~((one == 0) & (two == 0)) | (one.signbit() == two.signbit())
    if bool(agrees.all()):
        return None
    return ~agrees, f"{limits.absolute * scale:.3g} + {limits.relative:.3g} * |eager|, for {limits.because}"


def _describe(ours: torch.Tensor, theirs: torch.Tensor, wrong: torch.Tensor, allowed: str) -> str:
    shown = []
    for place in wrong.nonzero().tolist()[:4]:
        at = tuple(place)
        shown.append(f"  at {list(at)}: {ours[at].item()!r}, eager {theirs[at].item()!r}")
    more = "\n  ..." if int(wrong.sum()) > 4 else ""
    count = f"{int(wrong.sum())} of {wrong.numel()} elements (allowed: {allowed})"
    return count + ":\n" + "\n".join(shown) + more


# --- results that rounding alone does not determine -------------------------------------------------------------------

Evaluate = Callable[[Mapping[str, torch.Tensor]], Sequence[Any]]


def undetermined(
    found: Mismatch, actual: Sequence[Any], inputs: Mapping[str, torch.Tensor], evaluate: Evaluate
) -> bool:
    """Whether a mismatch in values is no more than what tiny changes of huge inputs do to the exact result.

    A sum over ``[max, max, -max]`` is max or infinite, as the order of its terms goes; eager's order is not a law.
    Asked only where an input holds finite elements near its dtype's largest: the op is then evaluated in float64 on
    inputs that are moved by up to four units in the last place, and a wrong element passes if it lies within the spread
    of these results, or beyond its dtype's range where the terms themselves are; or if it is nan where they all are
    infinite, as ``[max, max, -inf]`` is where the largest are added first. Results that are no floats are never open.

    Args:
        found: the mismatch.
        actual: what was computed.
        inputs: the tensors, by place.
        evaluate: eager, from tensors by place to results.
    """
    floats = {place: tensor for place, tensor in inputs.items() if tensor.is_floating_point()}
    dtype = actual[found.result].dtype
    if found.places is None or not dtype.is_floating_point or not any(map(_huge, floats.values())):
        return False
    random = torch.Generator().manual_seed(0)
    spread = []
    try:
        for _ in range(8):
            moved = {place: _moved(tensor, random) for place, tensor in floats.items()}
            spread.append(evaluate({**inputs, **moved})[found.result].double())
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False  # eager has no float64 kernel for it
    exact = torch.stack(spread)
    ours = actual[found.result].detach().cpu().double()
    low, high = exact.amin(0), exact.amax(0)
    width = (high - low) * 4
    within = (ours >= low - width) & (ours <= high + width) & (width > 0)
    overflown = ~ours.isfinite() & (width > 0) & (width >= torch.finfo(dtype).eps)
    lost = low.isinf() & (low == high) & ours.isnan()
    return bool((within | overflown | lost)[found.places].all())


def is_exact(
    found: Mismatch,
    actual: Sequence[Any],
    inputs: Mapping[str, torch.Tensor],
    evaluate: Evaluate,
    tolerance: Mapping[torch.dtype, Tolerance],
) -> bool:
    """Whether a result that differs from eager's is what eager computes in float64: the rounding is then eager's own.

    A batch norm of equal elements is its bias, and x * a + b is off by digits; ``[max, max, -inf]`` sums up to -inf,
    and to nan where the largest are added first.

    Args:
        found: the mismatch in values.
        actual: what was computed.
        inputs: the tensors, by place.
        evaluate: eager, from tensors by place to results.
        tolerance: see `mismatch`.
    """
    ours = actual[found.result]
    wide = {p: t.double() if t.is_floating_point() else t for p, t in inputs.items()}
    if not ours.is_floating_point() or all(wide[place] is tensor for place, tensor in inputs.items()):
        return False
    try:
        exact = evaluate(wide)[found.result]
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False  # eager has no float64 kernel for it
    return exact.is_floating_point() and mismatch([ours], [exact.to(ours.dtype)], tolerance) is None


def _huge(tensor: torch.Tensor) -> bool:
    limit = math.sqrt(torch.finfo(tensor.dtype).max)
    return bool((tensor.isfinite() & (tensor.abs() > limit)).any())


def _moved(tensor: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    eps = torch.finfo(tensor.dtype).eps
    noise = torch.rand(tensor.shape, generator=random, dtype=torch.float64) * 2 - 1
    return tensor.double() * (1 + 4 * eps * noise)
