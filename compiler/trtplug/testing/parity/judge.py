"""Whether two executors agree, and how they differ where they don't."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from trtplug.testing.compare import Mismatch, mismatch
from trtplug_registry import Tolerance

SHOWN = 10
"""Elements of a difference that are spelt out."""

TF32_UNIT = 2.0**-11
"""Half a unit in the last place of TF32, which keeps 10 bits of a float32's fraction: what an operand may move."""

_DRAWS = 8
_SPREAD = 4.0  # of the widest difference seen between so few draws to what rounding may do

Evaluate = Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of one comparison.

    Attributes:
        verdict: ``agrees``, ``differs``, ``refused`` (TensorRT does not define or build it), ``fails`` (it does not
            run), ``unmodelled`` (the reference executor does not know it) or ``crash`` (it ended its process).
        how: in words, where it does not agree.
        size: largest difference over the largest value, of those that are finite.
    """

    verdict: str
    how: str = ""
    size: float = 0.0


def judge(
    actual: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor],
    evaluate: Evaluate,
    *,
    product: bool = False,
    tolerance: Mapping[torch.dtype, Tolerance] | None = None,
) -> Finding:
    """Compares TensorRT's results with the reference executor's.

    Args:
        actual: TensorRT's.
        expected: the reference executor's.
        inputs: of both.
        evaluate: the reference executor.
        product: whether float32 operands are multiplied and summed; a difference that moving them by half a unit of
            TF32 can make is then allowed.
        tolerance: by dtype, instead of the laws' own.
    """
    actual = [tensor.detach().cpu() for tensor in actual]
    expected = [tensor.detach().cpu() for tensor in expected]
    size = relative_difference(actual, expected)
    found = mismatch(actual, expected, tolerance)
    if found is None:
        signs = mismatch(actual, expected, tolerance, signed_zeros=True)
        return Finding("agrees", "" if signs is None else "zeros differ in sign", size)
    if found.what == "values" and product and within_tf32(found, actual, inputs, evaluate):
        return Finding("agrees", "as far as TF32 goes", size)
    return Finding("differs", describe(found, actual, expected, inputs), size)


def within_tf32(found: Mismatch, actual: Sequence[Any], inputs: Sequence[torch.Tensor], evaluate: Evaluate) -> bool:
    """Whether a difference is no more than rounding the float32 operands of products to TF32 does."""
    ours = actual[found.result].double()
    if found.places is None or not any(tensor.dtype is torch.float32 for tensor in inputs):
        return False
    random = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(_DRAWS):
        moved = [_moved(tensor, random) if tensor.dtype is torch.float32 else tensor for tensor in inputs]
        drawn.append(evaluate(moved)[found.result].detach().cpu().double())
    spread = torch.stack(drawn)
    low, high = spread.amin(0), spread.amax(0)
    width = (high - low) * _SPREAD
    return bool(((ours >= low - width) & (ours <= high + width))[found.places].all())


def _moved(tensor: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    noise = torch.rand(tensor.shape, generator=random) * 2 - 1
    return tensor * (1 + TF32_UNIT * noise.to(tensor.device))


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
