"""The one order that lowering passes run in: from their own anchors, and from what the user says."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from trtplug_registry.errors import PassOrderError, unknown_name
from trtplug_registry.passes import PHASES, LoweringPass


def order_passes(
    passes: Iterable[LoweringPass],
    *,
    disable: Sequence[str] = (),
    order: Sequence[str] = (),
    absent: Collection[str] = (),
) -> tuple[LoweringPass, ...]:
    """All passes that run, in order: by phase, then topologically by their anchors, ties by id.

    The order does not depend on the order in which they are given. A pass that does not run, because it is disabled or
    another replaces it, still holds those before and after it apart.

    Args:
        passes: of all plugins.
        disable: ids of passes that do not run.
        order: ``"a:x < b:y"``: the first runs before the second, whatever they say themselves.
        absent: plugins that exist and bring nothing (blocked ones, for instance): to name a pass of theirs is moot.

    Raises:
        PassOrderError: duplicate or unknown ids, anchors of another phase, two passes that replace one, what is no
            order, cycles; all of them are listed.
    """
    pipeline = _Pipeline(list(passes), absent)
    pipeline.replace(disable)
    pipeline.anchor()
    pipeline.override(order)
    for name in disable:
        pipeline.find(name, "the setting disable_passes")
    ordered = pipeline.sort()
    if pipeline.problems:
        there = f"there are {', '.join(sorted(pipeline.by_id)) or 'none'}"
        raise PassOrderError("\n  ".join(("the lowering passes cannot be ordered:", *pipeline.problems, there)))
    return tuple(item for item in ordered if item.id not in disable)


class _Pipeline:
    def __init__(self, given: Sequence[LoweringPass], absent: Collection[str]) -> None:
        self.by_id = {item.id: item for item in given}
        self.absent = frozenset(absent)
        self.problems = [
            f"two passes have the id {name!r}" for name in self.by_id if sum(p.id == name for p in given) > 1
        ]
        self.followers: dict[str, set[str]] = {name: set() for name in self.by_id}
        self.replaced: dict[str, str] = {}

    def find(self, name: str, who: str) -> LoweringPass | None:
        """A pass by its id; None where that is moot, or a problem."""
        item = self.by_id.get(name)
        if item is None and name.partition(":")[0] not in self.absent:
            self.problems.append(f"{who}: {unknown_name('pass', name, self.by_id)}")
        return item

    def replace(self, disable: Collection[str]) -> None:
        for item in self.by_id.values():
            other = self.find(item.replaces, repr(item.id)) if item.replaces else None
            if other is None or item.id in disable:
                continue
            rival = self.replaced.get(other.id)
            if self._stand_in(item) == other.id:
                self.problems.append(f"{item.id!r} and {other.id!r} replace each other")
            elif other.phase != item.phase:
                self.problems.append(f"{item.id!r} ({item.phase}) replaces {other.id!r}, which is {other.phase}")
            elif rival is not None:
                self.problems.append(f"{rival!r} and {item.id!r} both replace {other.id!r}; disable one of them")
            else:
                self.replaced[other.id] = item.id

    def anchor(self) -> None:
        for item in self.by_id.values():
            for names, comes_first in ((item.before, True), (item.after, False)):
                for name in names:
                    other = self.find(name, repr(item.id))
                    if other is not None:
                        first, second = (item, other) if comes_first else (other, item)
                        self._edge(first, second, repr(item.id))

    def override(self, order: Sequence[str]) -> None:
        for text in order:
            who = f"pass_order {text!r}"
            first, sign, second = (part.strip() for part in text.partition("<"))
            if not (first and sign and second) or "<" in second:
                self.problems.append(f"{who} is no order; write 'plugin:one < plugin:two'")
                continue
            one, two = self.find(first, who), self.find(second, who)
            if one is not None and two is not None:
                self.followers[self._stand_in(two)].discard(self._stand_in(one))
                self._edge(one, two, who)

    def _edge(self, first: LoweringPass, second: LoweringPass, who: str) -> None:
        if first.phase != second.phase:
            self.problems.append(f"{who}: {first.id!r} is {first.phase} and {second.id!r} is {second.phase}")
            return
        one, two = self._stand_in(first), self._stand_in(second)
        if one != two:
            self.followers[one].add(two)

    def _stand_in(self, item: LoweringPass) -> str:
        """The id of the pass that runs in the place of this one."""
        name = item.id
        while name in self.replaced:
            name = self.replaced[name]
        return name

    def sort(self) -> tuple[LoweringPass, ...]:
        names = [name for name in self.by_id if name not in self.replaced]
        ordered, cycle = _topological(names, self.followers)
        if cycle:
            self.problems.append(f"these wait for each other: {', '.join(map(repr, cycle))}")
        found = (self.by_id[name] for name in ordered)
        return tuple(sorted(found, key=lambda item: PHASES.index(item.phase)))


def _topological(names: Iterable[str], followers: Mapping[str, set[str]]) -> tuple[list[str], list[str]]:
    waiting = dict.fromkeys(names, 0)
    for name in _following(waiting, followers):
        waiting[name] += 1
    ready = [name for name, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    ordered = []
    while ready:
        name = heapq.heappop(ready)
        ordered.append(name)
        for follower in followers[name]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heapq.heappush(ready, follower)
    return ordered, sorted(name for name, count in waiting.items() if count > 0)


def _following(names: Iterable[str], followers: Mapping[str, set[str]]) -> Iterator[str]:
    for name in names:
        yield from followers[name]
