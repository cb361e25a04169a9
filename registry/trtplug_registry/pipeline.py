"""The one order that lowering passes run in: from their own anchors, from what plugins say, and from what users say."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from trtplug_registry.errors import PassOrderError, unknown_name
from trtplug_registry.passes import PHASES, DisablePass, LoweringPass, OrderPasses

SETTINGS = "settings"


@dataclasses.dataclass(frozen=True)
class Ruling:
    """What somebody decided about passes that are not theirs.

    Attributes:
        by: the plugin, or ``"settings"``: the user.
        kind: ``"disable"``, ``"enable"``, or ``"order"``: the first before the second.
        passes: their ids.
        because: the plugin's reason.
        overruled: why it has no effect, or "".
    """

    by: str
    kind: str
    passes: tuple[str, ...]
    because: str = ""
    overruled: str = ""

    def __str__(self) -> str:
        words = {
            "disable": f"{self.passes[0]} does not run",
            "enable": f"{self.passes[0]} runs",
            "order": f"{self.passes[0]} runs before {self.passes[-1]}",
        }[self.kind]
        reason = f", because {self.because}" if self.because else ""
        return f"{words}, says {self.by}{reason}" + (f" (no effect: {self.overruled})" if self.overruled else "")


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """The passes that run, in order, and the rulings that this came about by: the plugins', then the user's."""

    passes: tuple[LoweringPass, ...]
    rulings: tuple[Ruling, ...]


def arrange_passes(
    passes: Iterable[LoweringPass],
    *,
    choices: Iterable[DisablePass | OrderPasses] = (),
    disable: Sequence[str] = (),
    enable: Sequence[str] = (),
    order: Sequence[str] = (),
    absent: Collection[str] = (),
) -> Pipeline:
    """All passes that run, in order: by phase, then topologically by their anchors, ties by id.

    The order does not depend on the order in which they are given. What the user says comes before what plugins say of
    others' passes, and that before what passes say themselves. A pass that does not run, because it is disabled or
    another replaces it, still holds those before and after it apart.

    Args:
        passes: of all plugins.
        choices: what plugins say of others' passes.
        disable: ids of passes that do not run.
        enable: ids of passes that run, although a plugin disables them.
        order: ``"a:x < b:y"``: the first runs before the second, whatever anybody else says.
        absent: plugins that exist and bring nothing (blocked ones, for instance), and passes that are left out: to name
            one of these is moot.

    Raises:
        PassOrderError: duplicate or unknown ids, anchors of another phase, two passes that replace one, two plugins
            that want opposite orders, what is no order, cycles; all of them are listed.
    """
    pipeline = _Pipeline(list(passes), absent)
    said = sorted(choices, key=lambda item: (item.plugin, type(item).__name__, str(item)))
    pipeline.switch([item for item in said if isinstance(item, DisablePass)], disable, enable)
    pipeline.replace()
    pipeline.anchor()
    pipeline.override([item for item in said if isinstance(item, OrderPasses)], order)
    ordered = pipeline.sort()
    if pipeline.problems:
        there = f"there are {', '.join(sorted(pipeline.by_id)) or 'none'}"
        raise PassOrderError("\n  ".join(("the lowering passes cannot be ordered:", *pipeline.problems, there)))
    rulings = sorted(pipeline.rulings, key=lambda item: item.by == SETTINGS)
    return Pipeline(tuple(item for item in ordered if item.id not in pipeline.disabled), tuple(rulings))


class _Pipeline:
    def __init__(self, given: Sequence[LoweringPass], absent: Collection[str]) -> None:
        self.by_id = {item.id: item for item in given}
        self.absent = frozenset(absent)
        self.problems = [
            f"two passes have the id {name!r}" for name in self.by_id if sum(p.id == name for p in given) > 1
        ]
        self.followers: dict[str, dict[str, str]] = {name: {} for name in self.by_id}
        """For each pass those that come after it, and who says so."""
        self.replaced: dict[str, str] = {}
        self.disabled: set[str] = set()
        self.rulings: list[Ruling] = []

    def find(self, name: str, who: str) -> LoweringPass | None:
        """A pass by its id; None where that is moot, or a problem."""
        item = self.by_id.get(name)
        if item is None and self.absent.isdisjoint((name, name.partition(":")[0])):
            self.problems.append(f"{who}: {unknown_name('pass', name, self.by_id)}")
        return item

    def switch(self, choices: Sequence[DisablePass], disable: Sequence[str], enable: Sequence[str]) -> None:
        """Which passes do not run; the settings have the last word."""
        for setting, names in (("disable_passes", disable), ("enable_passes", enable)):
            for name in names:
                self.find(name, f"the setting {setting}")
        for name in sorted({*disable} & {*enable}):
            self.problems.append(f"the settings disable_passes and enable_passes both name {name!r}")
        for item in choices:
            if self.find(item.id, f"the plugin {item.plugin!r} disables") is None:
                continue
            overruled = "the setting enable_passes" if item.id in enable else ""
            self.rulings.append(Ruling(item.plugin, "disable", (item.id,), item.because, overruled))
            if not overruled:
                self.disabled.add(item.id)
        needless = {*enable} - {item.id for item in choices}
        self.disabled.update(disable)
        self.rulings += [Ruling(SETTINGS, "disable", (name,)) for name in disable]
        self.rulings += [
            Ruling(SETTINGS, "enable", (name,), overruled="no plugin disables it" if name in needless else "")
            for name in enable
        ]

    def replace(self) -> None:
        for item in self.by_id.values():
            other = self.find(item.replaces, repr(item.id)) if item.replaces else None
            if other is None or item.id in self.disabled:
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

    def override(self, choices: Sequence[OrderPasses], order: Sequence[str]) -> None:
        """What plugins say of the order, then what the user says; each comes before what was said until then."""
        chosen = self._by_users(order)
        wanted: dict[tuple[str, str], str] = {}
        for item in choices:
            who = f"the plugin {item.plugin!r}"
            one, two = self.find(item.first, who), self.find(item.second, who)
            if one is None or two is None:
                continue
            pair = self._stand_in(one), self._stand_in(two)
            opposed = pair[::-1] in chosen
            overruled = "the setting pass_order says the opposite" if opposed else ""
            self.rulings.append(Ruling(item.plugin, "order", (item.first, item.second), item.because, overruled))
            rival = wanted.get(pair[::-1])
            if rival is not None and not opposed and pair not in chosen:
                self.problems.append(
                    f"{rival} wants {pair[1]!r} before {pair[0]!r}, {who} the opposite; decide with pass_order"
                )
            elif not opposed:
                wanted.setdefault(pair, who)
                self._put(one, two, who)
        for (one_id, two_id), who in chosen.items():
            self._put(self.by_id[one_id], self.by_id[two_id], who)

    def _by_users(self, order: Sequence[str]) -> dict[tuple[str, str], str]:
        """The pairs of passes that the setting orders, and its words."""
        found: dict[tuple[str, str], str] = {}
        for text in order:
            who = f"pass_order {text!r}"
            first, sign, second = (part.strip() for part in text.partition("<"))
            if not (first and sign and second) or "<" in second:
                self.problems.append(f"{who} is no order; write 'plugin:one < plugin:two'")
                continue
            one, two = self.find(first, who), self.find(second, who)
            if one is not None and two is not None:
                pair = self._stand_in(one), self._stand_in(two)
                if pair[::-1] in found:
                    self.problems.append(f"{who} and {found[pair[::-1]]} are opposites")
                found[pair] = who
                self.rulings.append(Ruling(SETTINGS, "order", (first, second)))
        return found

    def _put(self, first: LoweringPass, second: LoweringPass, who: str) -> None:
        self.followers[self._stand_in(second)].pop(self._stand_in(first), None)
        self._edge(first, second, who)

    def _edge(self, first: LoweringPass, second: LoweringPass, who: str) -> None:
        if first.phase != second.phase:
            self.problems.append(f"{who}: {first.id!r} is {first.phase} and {second.id!r} is {second.phase}")
            return
        one, two = self._stand_in(first), self._stand_in(second)
        if one != two:
            self.followers[one][two] = who

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
            said = [
                f"{one!r} before {two!r}, says {who}"
                for one in cycle
                for two, who in sorted(self.followers[one].items())
                if two in cycle
            ]
            self.problems.append(f"these wait for each other: {', '.join(map(repr, cycle))} ({'; '.join(said)})")
        found = (self.by_id[name] for name in ordered)
        return tuple(sorted(found, key=lambda item: PHASES.index(item.phase)))


def _topological(names: Iterable[str], followers: Mapping[str, Collection[str]]) -> tuple[list[str], list[str]]:
    """The names in order, and those that wait for each other."""
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
    left = {name for name, count in waiting.items() if count > 0}
    while any(left.isdisjoint(followers[name]) for name in left):  # what only comes after the circle
        left = {name for name in left if not left.isdisjoint(followers[name])}
    return ordered, sorted(left)


def _following(names: Iterable[str], followers: Mapping[str, Collection[str]]) -> Iterator[str]:
    for name in names:
        yield from followers[name]
