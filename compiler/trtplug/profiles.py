"""Optimization profiles: several ranges of sizes that one engine is tuned for, each by itself.

A profile is written ``batch=1`` or ``batch=2..8..32, tokens=1..128``: sizes (their min, opt and max; without the middle
one opt is max) by the names that ``Input(dims=…)`` gave them, or by the input and axis, ``x[0]``. What a profile does
not name keeps its whole range.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from trtplug.errors import ExecutorError, SettingsError
from trtplug_registry import Engine, ShapeRange, unknown_name

if TYPE_CHECKING:  # executors choose a profile by shapes alone, and need not load SymPy for that
    import sympy

    from trtplug.ranges import Range, Span

Profiles: TypeAlias = Sequence[Sequence[ShapeRange]]
"""By profile and input: the smallest, typical and largest shape, of a size the number itself as a shape of one."""

_ITEM = re.compile(r"\s*([A-Za-z_]\w*(?:\[\d+\])?)\s*=\s*(\d+)(?:\.\.(\d+))?(?:\.\.(\d+))?\s*")


# --- what a user writes -----------------------------------------------------------------------------------------------


def parsed(text: str) -> dict[str, Span]:
    """The ranges of one profile by name.

    Raises:
        SettingsError: it is not written as a profile is, names a size twice, or a range is not min <= opt <= max.
    """
    found: dict[str, Span] = {}
    for item in text.split(","):
        match = _ITEM.fullmatch(item)
        if match is None:
            raise SettingsError(
                f"profiles: {item.strip()!r} is no range of sizes: write name=size or name=min..opt..max"
            )
        name, *points = match.groups()
        given = [int(point) for point in points if point is not None]
        span = given[0], given[min(1, len(given) - 1)], given[-1]
        if not span[0] <= span[1] <= span[2]:
            raise SettingsError(f"profiles: {item.strip()!r} is not min <= opt <= max")
        if name in found:
            raise SettingsError(f"profiles: {text!r} says twice what {name} is")
        found[name] = span
    return found


def named_sizes(inputs: Sequence[tuple[str, Any]], ranges: Mapping[sympy.Symbol, Range]) -> dict[str, Any]:
    """What can be named in a profile: each dimension of the inputs, as an int or an expression.

    Args:
        inputs: names, and fake values.
        ranges: of the symbols, with the user's names for them.
    """
    found: dict[str, Any] = {}
    for name, value in inputs:
        sizes = value.shape if isinstance(value, torch.Tensor) else [value]
        for axis, size in enumerate(sizes):
            if isinstance(size, torch.SymInt):
                found[f"{name}[{axis}]" if isinstance(value, torch.Tensor) else name] = size.node.expr
            elif isinstance(value, torch.Tensor):
                found[f"{name}[{axis}]"] = int(size)
    return {span.name: symbol for symbol, span in ranges.items() if span.name} | found


def narrowed(
    ranges: Mapping[sympy.Symbol, Range], sizes: Mapping[str, Any], texts: Sequence[str], *, clip: bool = False
) -> Mapping[sympy.Symbol, Range]:
    """The ranges with the profiles as their parts; what no profile holds is not in them any more.

    Args:
        ranges: of the symbols.
        sizes: from `named_sizes`.
        texts: the profiles; without any, nothing changes.
        clip: leave out what is beyond the ranges, is no size of these inputs, or does not vary, instead of raising.

    Raises:
        UnknownNameError: a profile names what is no dimension of the inputs.
        SettingsError: what it names does not vary, follows from other sizes, or varies less than the profile says; or
            the same size is given two ranges.
    """
    found: list[dict[sympy.Symbol, Span]] = []
    for text in texts:
        made = _assigned(text, ranges, sizes, clip)
        if made is not None and made not in found:
            found.append(made)
    if not any(found):
        return ranges  # none, or nothing of them that varies here
    return {
        symbol: _with_parts(span, [made.get(symbol, (span.min, span.opt, span.max)) for made in found])
        for symbol, span in ranges.items()
    }


def _assigned(
    text: str, ranges: Mapping[sympy.Symbol, Range], sizes: Mapping[str, Any], clip: bool
) -> dict[sympy.Symbol, Span] | None:
    """A profile's ranges by symbol; None where nothing is left of it."""
    made: dict[sympy.Symbol, Span] = {}
    for name, span in parsed(text).items():
        if name not in sizes and not clip:
            raise unknown_name("dimension in profiles", name, sizes)
        size = sizes.get(name, 0)
        if size not in ranges:
            if clip:
                continue
            why = "does not vary" if isinstance(size, int) else f"follows from other sizes: it is {size}"
            raise SettingsError(f"profiles: {text!r}: {name} {why}")
        whole = ranges[size]
        if not whole.min <= span[0] <= span[2] <= whole.max:
            if not clip:
                raise SettingsError(f"profiles: {text!r} is beyond the range of {name}, {whole.min}..{whole.max}")
            span = max(span[0], whole.min), min(max(span[1], whole.min), whole.max), min(span[2], whole.max)
            if span[0] > span[2]:
                return None
        if made.setdefault(size, span) != span:
            raise SettingsError(f"profiles: {text!r} gives {name} two ranges: it is the same size as another one")
    return made


def _with_parts(span: Range, parts: list[Span]) -> Range:
    low, high = min(part[0] for part in parts), max(part[2] for part in parts)
    return dataclasses.replace(span, min=low, opt=parts[0][1], max=high, parts=tuple(parts) if len(parts) > 1 else ())


# --- which one holds a call -------------------------------------------------------------------------------------------


def profiles_in(inputs: Sequence[Sequence[Range]]) -> tuple[tuple[ShapeRange, ...], ...]:
    """The profiles of inputs whose sizes have these ranges, each once; () where there is one at most."""
    count = max([0, *[len(span.parts) for spans in inputs for span in spans]])
    found = []
    for number in range(count):
        points = [[span.part(number) for span in spans] for spans in inputs]
        low, typical, high = ([tuple(point[part] for point in shape) for shape in points] for part in range(3))
        found.append(tuple(zip(low, typical, high)))
    distinct = tuple(dict.fromkeys(found))
    return distinct if len(distinct) > 1 else ()


def holding(profiles: Profiles, shapes: Sequence[Sequence[int]]) -> int | None:
    """The number of the profile that a call is best run with; None where none holds it.

    Of those that hold all shapes, the one whose typical sizes are nearest by ratio; then the narrowest, then the first.
    """
    held = [number for number, profile in enumerate(profiles) if holds(profile, shapes)]
    ranked = [(_distance(profiles[number], shapes), _width(profiles[number]), number) for number in held]
    return min(ranked)[-1] if ranked else None


def holds(profile: Sequence[ShapeRange], shapes: Sequence[Sequence[int]]) -> bool:
    """Whether all shapes lie within a profile."""
    return all(
        len(low) == len(shape) and all(a <= size <= b for a, size, b in zip(low, shape, high))
        for (low, _, high), shape in zip(profile, shapes, strict=True)
    )


def shapes_of(inputs: Iterable[Any]) -> list[tuple[int, ...]]:
    """The shapes of a call's tensors; a size is a shape of one."""
    return [tuple(value.shape) if isinstance(value, torch.Tensor) else (int(value),) for value in inputs]


def profile_of(engine: Engine, inputs: Sequence[Any]) -> int:
    """The number of the profile to run a call of an engine with; 0 where the engine has one at most.

    Raises:
        ExecutorError: none of its profiles holds the call.
    """
    profiles = engine.profiles
    if not profiles:
        return 0
    names = [name for name, _ in engine.inputs]
    if len(inputs) != len(names):
        raise ExecutorError(f"{engine.name} takes {len(names)} inputs, not {len(inputs)}")
    shapes = shapes_of(inputs)
    number = holding(profiles, shapes)
    if number is None:
        given = ", ".join(f"{name} {list(shape)}" for name, shape in zip(names, shapes))
        raise ExecutorError(f"{engine.name} has no optimization profile for {given}; it has {words(profiles, names)}")
    return number


def _distance(profile: Sequence[ShapeRange], shapes: Sequence[Sequence[int]]) -> float:
    pairs = [pair for (_, typical, _), shape in zip(profile, shapes) for pair in zip(typical, shape)]
    return sum(abs(math.log(max(size, 1) / max(opt, 1))) for opt, size in pairs)


def _width(profile: Sequence[ShapeRange]) -> float:
    return sum(math.log((b + 1) / (a + 1)) for low, _, high in profile for a, b in zip(low, high))


def words(profiles: Profiles, names: Sequence[str]) -> str:
    """The profiles for people: of each the sizes that differ between them."""
    alike = [len({profile[place] for profile in profiles}) == 1 for place in range(len(names))]
    texts = (
        ", ".join(
            f"{name} {list(low)} to {list(high)}"
            for name, (low, _, high), same in zip(names, profile, alike)
            if not same
        )
        for profile in profiles
    )
    return "; or ".join(texts)
