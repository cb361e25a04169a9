"""Whether two executors agree, and how they differ where they don't."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from trtplug.reference.latitude import otherwise, undefined
from trtplug.testing.compare import Mismatch, mismatch
from trtplug.testing.parity.rounding import UNIT, relative_move, terms
from trtplug_registry import Tolerance

SHOWN = 10
"""Elements of a difference that are spelt out."""

_DRAWS = 8
_SPREAD = 4.0  # of the widest difference seen between so few draws to what rounding may do

Move = Callable[[torch.Tensor], torch.Tensor]
Evaluate = Callable[[Move], Sequence[torch.Tensor]]
"""Computes the reference's results from operands that are all moved."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of one comparison.

    Attributes:
        verdict: ``agrees``, ``differs``, ``refused`` (TensorRT does not define or build it), ``fails`` (it does not
            run), ``unmodelled`` (the reference executor does not know it) or ``crash`` (it ended its process).
        how: in words, where it does not agree; where it does, what was allowed for, if anything was.
        size: largest difference over the largest value, of those that are finite.
    """

    verdict: str
    how: str = ""
    size: float = 0.0


@dataclasses.dataclass(frozen=True)
class Allowance:
    """What two executors may differ in, besides the laws' tolerances.

    Attributes:
        terms: that the longest sum adds up; see `trtplug.testing.parity.rounding`.
        tf32: whether operands of float32 may be rounded to TF32.
        undefined: for each result, the elements that TensorRT does not define.
        tolerance: by dtype, instead of the laws' own.
    """

    terms: int = 1
    tf32: bool = False
    undefined: Sequence[torch.Tensor] = ()
    tolerance: Mapping[torch.dtype, Tolerance] | None = None


def allowance(
    reference: fx.GraphModule,
    inputs: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
    *,
    tf32: bool = False,
    tolerance: Mapping[torch.dtype, Tolerance] | None = None,
) -> Allowance:
    """What TensorRT may make of a network otherwise than the reference executor, for these inputs.

    Args:
        reference: the lifted network.
        inputs: of it.
        expected: what it makes of them.
        tf32, tolerance: see `Allowance`.
    """
    pairs = zip(expected, otherwise(reference, inputs), strict=True)
    away = [undefined(one, two) for one, two in pairs]
    return Allowance(max(terms(reference, inputs), default=1), tf32, away, tolerance)


def judge(
    actual: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor],
    evaluate: Evaluate,
    allowed: Allowance | None = None,
) -> Finding:
    """Compares TensorRT's results with the reference executor's.

    Args:
        actual: TensorRT's.
        expected: the reference executor's.
        inputs: of both.
        evaluate: the reference executor, on operands that are moved.
        allowed: what they may differ in.
    """
    allowed = allowed or Allowance()
    actual = [tensor.detach().cpu() for tensor in actual]
    expected = [tensor.detach().cpu() for tensor in expected]
    size = relative_difference(actual, expected)
    notes, compared = [], actual
    if _alike(actual, expected):
        compared = [
            torch.where(away.cpu(), theirs, ours) for ours, theirs, away in zip(actual, expected, allowed.undefined)
        ] or actual
    if mismatch(actual, expected, allowed.tolerance) is not None and compared is not actual:
        notes.append("but for what TensorRT does not define")
    found = mismatch(compared, expected, allowed.tolerance)
    if found is not None and found.what == "values" and within_rounding(found, compared, inputs, evaluate, allowed):
        notes.append(f"as far as sums of {allowed.terms} terms are defined")
        found = None
    if found is not None:
        return Finding("differs", describe(found, actual, expected, inputs), size)
    if not notes and mismatch(actual, expected, allowed.tolerance, signed_zeros=True) is not None:
        notes.append("zeros differ in sign")
    return Finding("agrees", ", ".join(notes), size)


def _alike(actual: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> bool:
    return len(actual) == len(expected) and all(a.shape == b.shape for a, b in zip(actual, expected))


def within_rounding(
    found: Mismatch, actual: Sequence[Any], inputs: Sequence[torch.Tensor], evaluate: Evaluate, allowed: Allowance
) -> bool:
    """Whether a difference is no more than what moving the inputs, as far as rounding of sums may, can make."""
    if found.places is None or not any(tensor.dtype in UNIT for tensor in inputs):
        return False
    if allowed.terms == 1 and not allowed.tf32:
        return False
    ours = actual[found.result].double()
    random = torch.Generator().manual_seed(0)

    def move(tensor: torch.Tensor) -> torch.Tensor:
        return _moved(tensor, allowed, random) if tensor.dtype in UNIT else tensor

    spread = torch.stack([evaluate(move)[found.result].detach().cpu().double() for _ in range(_DRAWS)])
    low, high = spread.amin(0), spread.amax(0)
    width = (high - low) * _SPREAD
    return bool(((ours >= low - width) & (ours <= high + width))[found.places].all())


def _moved(tensor: torch.Tensor, allowed: Allowance, random: torch.Generator) -> torch.Tensor:
    noise = torch.rand(tensor.shape, generator=random, dtype=torch.float64) * 2 - 1
    by = relative_move(tensor.dtype, allowed.terms, allowed.tf32)
    return (tensor.double() * (1 + by * noise.to(tensor.device))).to(tensor.dtype)


def relative_difference(actual: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """The largest difference over the largest value, of the elements that are finite in both."""
    largest = 0.0
    for ours, theirs in zip(actual, expected):
        if ours.shape != theirs.shape or not ours.is_floating_point():
            continue
        one, two = ours.double(), theirs.double()
        finite = one.isfinite() & two.isfinite()
        if bool(finite.any()):
            scale = float(two[finite].abs().max()) or 1.0
            largest = max(largest, float((one - two)[finite].abs().max()) / scale)
    return largest


def describe(
    found: Mismatch, actual: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]
) -> str:
    """A difference in words: each element with what went in there, where inputs and results have one shape."""
    if found.places is None:
        return found.text.replace("eager", "the reference")
    ours, theirs = actual[found.result], expected[found.result]
    here = [tensor for tensor in inputs if tensor.shape == ours.shape]
    lines = []
    for place in found.places.nonzero().tolist()[:SHOWN]:
        at = tuple(place)
        of = ", ".join(repr(tensor[at].item()) for tensor in here) or f"at {place}"
        lines.append(f"{of} -> {ours[at].item()!r}, reference {theirs[at].item()!r}")
    count = f"result {found.result}: {int(found.places.sum())} of {found.places.numel()}"
    return f"{count}: " + "; ".join(lines)
