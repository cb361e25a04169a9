"""Choosing what of a drawn call becomes symbolic."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from trtplug.testing.drawn import DrawnCall
from trtplug.testing.symbolic import Plan, SizeOf
from trtplug_registry import Domain, Either, ListOf, Optional, Size, Spec, Tensor


def draw_plan(
    data: st.DataObject,
    call: DrawnCall,
    domain: Domain,
    constants: Sequence[str],
    must: str | None = None,
    together: bool = True,
) -> Plan | None:
    """A random non-empty choice of symbolic sizes; None where the call has none that the specs let be symbolic.

    Args:
        data: to draw from.
        call: an example.
        domain: whose specs say which axes may be symbolic.
        constants: places that are not inputs.
        must: an argument of which some axis is symbolic.
        together: whether axes of equal size are at times symbolic together: an op that demands them to be equal would
            else make nearly all of them fixed. Findings that are recorded are drawn without.
    """
    possible = list(_axes(call, domain, constants))
    first = [at for at in possible if must is None or at[0].partition("[")[0] == must]
    if not first:
        return None
    chosen = {data.draw(st.sampled_from(first), label="a symbolic axis")}
    if together and data.draw(st.booleans(), label="and all axes of its size"):
        (size,) = {call.tensors[place].shape[axis] for place, axis in chosen}
        chosen |= {(place, axis) for place, axis in possible if call.tensors[place].shape[axis] == size}
    chosen |= {at for at in possible if data.draw(st.booleans(), label=f"{at[0]} axis {at[1]} symbolic")}
    axes: dict[str, tuple[int, ...]] = {}
    for place, axis in sorted(chosen):
        axes[place] = (*axes.get(place, ()), axis)
    return Plan(axes, dict(_sizes(data, call, domain, sorted(chosen))))


def _axes(call: DrawnCall, domain: Domain, constants: Sequence[str]) -> Iterator[tuple[str, int]]:
    specs = domain.tensors()
    for place, facts in call.tensors.items():
        spec = specs.get(place.partition("[")[0], Tensor())
        if place in constants or not spec.dynamic:
            continue
        for axis, size in enumerate(facts.shape):
            fixed = axis in spec.static_axes or axis - facts.rank in spec.static_axes
            if isinstance(size, int) and size >= 2 and not fixed:
                yield place, axis


def _sizes(
    data: st.DataObject, call: DrawnCall, domain: Domain, chosen: Sequence[tuple[str, int]]
) -> Iterator[tuple[str, SizeOf]]:
    """Expressions for those arguments that may be symbolic sizes and whose value some expression has."""
    hints = {at: int(call.tensors[at[0]].shape[at[1]]) for at in chosen}  # type: ignore[arg-type]  # drawn sizes are ints
    for name, spec in domain.arguments.items():
        if takes_sizes(spec):
            for place, value in _integers(name, call.arguments.get(name)):
                options = list(_expressions(value, hints))
                picked = data.draw(st.sampled_from((*options, None)), label=f"{place}: as a size") if options else None
                if picked is not None:
                    yield place, picked


def takes_sizes(spec: Spec) -> bool:
    """Whether an argument may be a symbolic size, or hold some."""
    while isinstance(spec, Optional | ListOf):
        spec = spec.item
    if isinstance(spec, Either):
        return any(map(takes_sizes, spec.options))
    return isinstance(spec, Size)


def _integers(place: str, value: Any) -> Iterator[tuple[str, int]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _integers(f"{place}[{index}]", item)
    elif type(value) is int:
        yield place, value


def _expressions(value: int, hints: Mapping[tuple[str, int], int]) -> Iterator[SizeOf]:
    for at, hint in hints.items():
        if value == hint:
            yield SizeOf((at,))
        elif value > hint and value % hint == 0:
            yield SizeOf((at,), value // hint)
        elif 0 < value < hint:
            yield SizeOf((at,), 1, value - hint)
    for (one, first), (two, second) in itertools.combinations(hints.items(), 2):
        if value == first * second:
            yield SizeOf((one, two))
