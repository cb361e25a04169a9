"""Lowering passes: named graph rewrites, and the one order that they run in."""

from __future__ import annotations

import dataclasses
import heapq
import inspect
from collections.abc import Callable, Iterable
from typing import TypeAlias

from torch.fx import GraphModule

from trtplug_registry.errors import DeclarationError, PassOrderError

PHASES = ("early", "late")
"""``early`` passes see the graph as exported; ``late`` ones see it after registry-driven decomposition."""

Rewrite: TypeAlias = Callable[[GraphModule], bool]


@dataclasses.dataclass(frozen=True, eq=False)
class LoweringPass:
    """A named rewrite of a graph.

    Attributes:
        name: short, with dashes.
        function: changes a ``GraphModule`` in place; returns whether it changed anything.
        phase: ``"early"`` or ``"late"``.
        before, after: ids of passes of the same phase that it must precede or follow: ``plugin:name``, or the bare name
            of a pass of the same plugin.
        plugin: who brought it; set by the registry.
    """

    name: str
    function: Rewrite
    phase: str = "late"
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    plugin: str = ""

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise DeclarationError(
                f"lowering pass {self.name!r}: phase {self.phase!r} is not one of {', '.join(PHASES)}"
            )
        if not inspect.getdoc(self.function):
            raise DeclarationError(f"lowering pass {self.name!r}: its docstring must draw the graph before -> after")
        if len(inspect.signature(self.function).parameters) != 1:
            raise DeclarationError(f"lowering pass {self.name!r}: it takes exactly one parameter, the GraphModule")

    @property
    def id(self) -> str:
        return f"{self.plugin}:{self.name}" if self.plugin else self.name


def lowering_pass(
    name: str, *, phase: str = "late", before: Iterable[str] = (), after: Iterable[str] = ()
) -> Callable[[Rewrite], LoweringPass]:
    """Makes a `LoweringPass` of a function. Registers nothing: return it from ``trtplug_lowering_passes()``.

    Raises:
        DeclarationError: an unknown phase, no docstring, or a wrong signature.
    """

    def make(function: Rewrite) -> LoweringPass:
        return LoweringPass(name, function, phase, tuple(before), tuple(after))

    return make


def order_passes(passes: Iterable[LoweringPass]) -> tuple[LoweringPass, ...]:
    """All passes in running order: by phase, then topologically by their anchors, ties by id.

    The order does not depend on the order in which they are given.

    Raises:
        PassOrderError: duplicate ids, unknown anchors, anchors of another phase, cycles; all of them are listed.
    """
    given = list(passes)
    by_id = {item.id: item for item in given}
    problems = [f"two passes have the id {name!r}" for name in by_id if sum(p.id == name for p in given) > 1]
    followers: dict[str, set[str]] = {name: set() for name in by_id}
    for item in by_id.values():
        for anchor, comes_first in ((item.before, True), (item.after, False)):
            for name in anchor:
                if name not in by_id:
                    problems.append(f"{item.id!r} names {name!r}, which does not exist; there are {sorted(by_id)}")
                elif by_id[name].phase != item.phase:
                    problems.append(f"{item.id!r} ({item.phase}) names {name!r}, which is {by_id[name].phase}")
                else:
                    first, second = (item.id, name) if comes_first else (name, item.id)
                    followers[first].add(second)
    ordered, cycle = _topological(by_id, followers)
    if cycle:
        problems.append(f"these wait for each other: {', '.join(map(repr, cycle))}")
    if problems:
        raise PassOrderError("the lowering passes cannot be ordered:\n  " + "\n  ".join(problems))
    return tuple(sorted(ordered, key=lambda item: PHASES.index(item.phase)))


def _topological(
    by_id: dict[str, LoweringPass], followers: dict[str, set[str]]
) -> tuple[list[LoweringPass], list[str]]:
    waiting = {name: sum(name in after for after in followers.values()) for name in by_id}
    ready = [name for name, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    ordered = []
    while ready:
        name = heapq.heappop(ready)
        ordered.append(by_id[name])
        for follower in followers[name]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heapq.heappush(ready, follower)
    return ordered, sorted(name for name, count in waiting.items() if count > 0)
