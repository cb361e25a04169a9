"""The elements of drawn tensors: ordinary values, values all distinct, and the edges of each dtype mixed in."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from hypothesis import strategies as st

from trtplug.testing.drawn import static_shape
from trtplug.testing.strategies import integers, sampled
from trtplug_registry import TensorFacts

KINDS = ("distinct", "ordinary", "edges", "positive")


def edges(dtype: torch.dtype) -> tuple[Any, ...]:
    """The values of a dtype where implementations go wrong.

    The smallest integer of each type is left out: divided by -1 it ends the process, in eager Torch too.
    """
    if dtype == torch.bool:
        return (False, True)
    if dtype.is_floating_point:
        info = torch.finfo(dtype)
        subnormal = info.smallest_normal / 4
        ordinary = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5)
        extreme = (math.inf, -math.inf, math.nan, info.max, info.min, info.smallest_normal, subnormal, -subnormal)
        return ordinary + extreme + (1 + info.eps,)
    most = torch.iinfo(dtype).max
    wide = (2**24 + 1,) if most > 2**24 else ()  # the first integer that float32 rounds
    return tuple(value for value in (0, 1, -1, 2, -2, 127, 128, *wide, most, -most) if -most <= value <= most)


@dataclasses.dataclass(frozen=True)
class Fill:
    """How a tensor is filled; the same fill always gives the same values.

    Attributes:
        kind: ``distinct`` (no two alike, as far as the dtype and the range go), ``ordinary`` (small random numbers),
            ``edges`` (ordinary ones and `mixed`), or ``positive`` (small, no zero: nothing that eager refuses).
        seed: of the random numbers.
        mixed: what ``edges`` mixes in.
    """

    kind: str = "distinct"
    seed: int = 0
    mixed: tuple[Any, ...] = ()

    def __call__(self, facts: TensorFacts) -> torch.Tensor:
        """A contiguous tensor of these facts, within ``facts.values``."""
        shape = static_shape(facts)
        count = math.prod(shape)
        random = torch.Generator().manual_seed(self.seed)
        if facts.dtype == torch.bool:
            values = torch.randint(0, 2, (count,), generator=random).bool()
            return (values if self.kind != "positive" else torch.ones(count, dtype=torch.bool)).reshape(shape)
        low, high = self._range(facts)
        wide = torch.float64 if facts.dtype.is_floating_point or facts.dtype.is_complex else torch.int64
        if wide == torch.int64:
            values = self._integers(count, int(low), int(high), random)
        else:
            values = self._floats(count, low, high, random)
        allowed = [value for value in self.mixed if _within(value, facts.values)]
        if self.kind == "edges" and allowed:
            chosen = torch.tensor(allowed, dtype=wide)[torch.randint(0, len(allowed), (count,), generator=random)]
            values = torch.where(torch.rand(count, generator=random) < 0.3, chosen, values)
            if count:
                values[0] = chosen[0]
        return values.to(facts.dtype).reshape(shape)

    def _range(self, facts: TensorFacts) -> tuple[float, float]:
        low, high = {"positive": (1, 5), "ordinary": (-4, 4), "edges": (-4, 4)}.get(self.kind, (-16, 16))
        if facts.dtype in (torch.uint8,):
            low = max(low, 0)
        if facts.values is None:
            return low, high
        least, most = facts.values
        if least > high or most < low:  # away from zero altogether
            return (least, min(most, least + 32)) if least > high else (max(least, most - 32), most)
        return max(low, least), min(high, most)

    def _integers(self, count: int, low: int, high: int, random: torch.Generator) -> torch.Tensor:
        if high < low:  # nothing is admitted, so that only an empty tensor makes sense
            return torch.full((count,), low, dtype=torch.int64)
        if self.kind == "distinct":
            return low + (torch.arange(count) + self.seed) % (high - low + 1)
        return torch.randint(low, high + 1, (count,), generator=random)

    def _floats(self, count: int, low: float, high: float, random: torch.Generator) -> torch.Tensor:
        if self.kind == "distinct":  # quarters are exact in every dtype
            steps = max(0, int((high - low) * 4))
            return low + ((torch.arange(count, dtype=torch.float64) * 7 + self.seed) % (steps + 1)) / 4
        return low + (high - low) * torch.rand(count, generator=random, dtype=torch.float64)


def in_order(elements: torch.Tensor) -> torch.Tensor:
    """The elements in order along the last axis, nan first: where a search that asks "is this one less?" has it."""
    ordered = elements.sort(-1).values
    first = ordered.isnan() if ordered.is_floating_point() else torch.zeros_like(ordered, dtype=torch.bool)
    return ordered.gather(-1, first.to(torch.int8).argsort(dim=-1, descending=True, stable=True))


def _within(value: Any, values: tuple[float, float] | None) -> bool:
    return values is None or values[0] <= value <= values[1]


@st.composite
def fills(draw: st.DrawFn, facts: TensorFacts, place: str) -> Fill:
    """How to fill one tensor."""
    kind = draw(sampled(("distinct", "ordinary", "edges", "edges")), label=f"{place}: kind of values")
    seed = draw(integers(0, 999), label=f"{place}: seed")
    if kind != "edges":
        return Fill(kind, seed)
    options = [value for value in edges(facts.dtype) if _within(value, facts.values)] if facts.dtype in _EDGED else []
    mixed = draw(st.lists(sampled(options), min_size=1, max_size=4), label=f"{place}: edges") if options else []
    return Fill(kind, seed, tuple(mixed))


_EDGED = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16}
    | {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}
)
