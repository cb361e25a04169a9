"""A finite range for every size that Dynamo leaves open."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch

from trtplug.profiles import Profiles, holds, named_sizes, narrowed, profiles_in, shapes_of
from trtplug.ranges import Range, size_range

MAX_SIZE = 8192
"""The maximum of a size that nothing bounds, unless the size that was seen is larger; it becomes a guard."""
MOST_ELEMENTS = 2**31
"""Where an input would have more elements at those maxima, which no engine takes, they are lower."""

_UNBOUNDED = 2**31


def bounded(fakes: Sequence[Any]) -> dict[sympy.Symbol, Range]:
    """A finite range for every symbol in the inputs' shapes. A maximum that is ours becomes a guard of Dynamo's.

    A call beyond it compiles again, for twice the size that it has.
    """
    shapes = [value.shape for value in fakes if isinstance(value, torch.Tensor)]
    sizes = [size for size in (*fakes, *itertools.chain(*shapes)) if isinstance(size, torch.SymInt)]
    limit = MAX_SIZE
    while limit > 1 and any(_elements(shape, limit) >= MOST_ELEMENTS for shape in shapes):
        limit //= 2
    ranges: dict[sympy.Symbol, Range] = {}
    for size in sizes:
        for symbol in sorted(size.node.expr.free_symbols, key=str):
            span = ranges.setdefault(symbol, _range(symbol, size, limit))
            if size.node.expr == symbol:
                assert size <= span.max  # evaluated now, so that it is a guard
    return ranges


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the settings' profiles leave of the shapes that Dynamo's guards let through.

    Attributes:
        ranges: of each symbol, with the profiles as parts.
        places: of the inputs that vary.
        profiles: their ranges in each profile; () where nothing is limited.
    """

    ranges: Mapping[sympy.Symbol, Range]
    places: tuple[int, ...] = ()
    profiles: Profiles = ()

    def hold(self, inputs: Sequence[Any]) -> bool:
        """Whether a call is within them."""
        if not self.profiles:
            return True
        shapes = shapes_of(inputs[place] for place in self.places)
        return any(holds(profile, shapes) for profile in self.profiles)


def limited(names: Sequence[str], fakes: Sequence[Any], texts: Sequence[str]) -> Limits:
    """The profiles of a graph, as far as they are about its inputs and what Dynamo lets vary.

    Of a profile that names what is no size of this graph, or one that is fixed in it, the rest counts.

    Args:
        names: of the inputs.
        fakes: them.
        texts: the settings' profiles.
    """
    whole = bounded(fakes)
    ranges = narrowed(whole, named_sizes(list(zip(names, fakes, strict=True)), whole), texts, clip=True)
    if ranges is whole:
        return Limits(whole)
    spans = {place: [size_range(size, ranges) for size in _sizes(value)] for place, value in enumerate(fakes)}
    varying = [place for place, found in spans.items() if any(span.parts or span.min < span.max for span in found)]
    profiles = profiles_in([spans[place] for place in varying])
    one = tuple(
        zip(*([tuple(getattr(s, p) for s in spans[place]) for place in varying] for p in ("min", "opt", "max")))
    )
    return Limits(ranges, tuple(varying), profiles or (one,))


def _sizes(value: Any) -> Sequence[Any]:
    return value.shape if isinstance(value, torch.Tensor) else [value] if isinstance(value, torch.SymInt) else []


def _range(symbol: sympy.Symbol, size: torch.SymInt, limit: int) -> Range:
    environment = size.node.shape_env
    span = environment.var_to_range[symbol]
    hint = int(_hints(environment).get(symbol, 0) or 0)
    low = max(int(span.lower), 0)
    high = int(span.upper) if float(span.upper) < _UNBOUNDED else max(limit, 2 * hint, low)
    return Range(low, min(max(hint, low), high), high)


def _elements(shape: Sequence[Any], limit: int) -> int:
    """Of a tensor whose open sizes are at their maxima; a size that is an expression counts as 1."""
    sizes = [size for size in shape if not isinstance(size, torch.SymInt)]
    symbols = [size for size in shape if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol]
    return math.prod(map(int, sizes)) * math.prod(_range(size.node.expr, size, limit).max for size in symbols)


def _hints(environment: Any) -> Any:
    """The sizes that were seen, by symbol; the attribute's name changed after torch 2.11."""
    found = getattr(environment, "backed_var_to_val", None)
    return environment.var_to_val if found is None else found
