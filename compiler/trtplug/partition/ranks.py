"""Ranks of the units of a graph, on plain integers.

Constraints, for every "u runs before v": rank[u] <= rank[v], and rank[u] + 1 <= rank[v] where u is Torch and v
TensorRT. Any ranks that satisfy them and lie in 1..K for TensorRT nodes give at most K convex blocks with an acyclic
graph of blocks. The smallest such ranks have K = the most runs on any path, the lower bound. A path with K runs has
one in every block, whatever the ranks; so no choice of ranks leaves a block empty, and leaving out whole blocks
leaves a minimal partition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass
class Units:
    """What `Ranks` needs to know. Nodes are indices in a topological order; lists are by node."""

    order: Sequence[int]  # the units
    tensorrt: Sequence[bool]
    before: Sequence[Sequence[int]]  # unit -> units that run before it
    reads: Sequence[Sequence[int]]  # unit -> tensors it reads
    makes: Sequence[Sequence[int]]  # unit -> tensors it makes
    maker: Sequence[int]  # tensor -> the unit that makes it, or -1
    outside: Sequence[bool]  # tensor -> whether Torch or the graph's output reads it
    size: Callable[[int], int]  # tensor -> its bytes


def earliest(units: Units) -> list[int]:
    """The smallest ranks, in one pass."""
    rank = [0] * len(units.tensorrt)
    tensorrt, before = units.tensorrt, units.before
    for v in units.order:
        if tensorrt[v]:
            best = 1
            for u in before[v]:
                at_least = rank[u] if tensorrt[u] else rank[u] + 1
                if at_least > best:
                    best = at_least
        else:
            best = 0
            for u in before[v]:
                if rank[u] > best:
                    best = rank[u]
        rank[v] = best
    return rank


def candidates(units: Units) -> list[tuple[int, list[int]]]:
    """Ranks with as many blocks as the earliest, each with the bytes crossing more than there; the earliest come first.

    Nodes are moved one at a time, so this is a heuristic: once later from the earliest ranks, and once earlier, then
    later, from the latest. The first cannot carry a chain across its widest tensor, the second starts beyond it.
    Linear in edges.
    """
    first = earliest(units)
    found = [(0, first)]
    if max((first[v] for v in units.order), default=0) > 1:
        found.extend(_moved(units, first, from_latest) for from_latest in (False, True))
    return found


def _moved(units: Units, rank: list[int], from_latest: bool) -> tuple[int, list[int]]:
    mover = _Mover(units, list(rank))
    if from_latest:
        mover.later(forced=True)
        mover.earlier()
    mover.later()
    return mover.bytes, mover.rank


class _Mover:
    """Moves units between blocks and keeps account of the bytes that cross, relative to where it started."""

    def __init__(self, units: Units, rank: list[int]) -> None:
        self.units = units
        self.rank = rank
        self.bytes = 0
        self.last = max(rank)
        self.after: list[list[int]] = [[] for _ in rank]
        self.readers: dict[int, dict[int, int]] = {}  # tensor -> block -> how many of its nodes read it
        self._size: dict[int, int] = {}
        for v in units.order:
            for u in units.before[v]:
                self.after[u].append(v)
            if units.tensorrt[v]:
                for t in units.reads[v]:
                    users = self.readers.setdefault(t, {})
                    users[rank[v]] = users.get(rank[v], 0) + 1

    def later(self, forced: bool = False) -> None:
        """Last node first: move it as late as what reads it allows, where no more bytes cross then (or `forced`)."""
        tensorrt, rank = self.units.tensorrt, self.rank
        for v in reversed(self.units.order):
            limit = self.last
            for w in self.after[v]:
                at_most = rank[w] - 1 if tensorrt[w] and not tensorrt[v] else rank[w]
                if at_most < limit:
                    limit = at_most
            if not tensorrt[v]:
                rank[v] = limit
            elif limit > rank[v]:
                change = self._change(v, limit)
                if forced or change <= 0:  # a move for nothing can make one pay that comes after it
                    self._move(v, limit, change)

    def earlier(self) -> None:
        """First node first: move it as early as what it reads allows, where fewer bytes cross then."""
        tensorrt, rank = self.units.tensorrt, self.rank
        for v in self.units.order:
            limit = 1 if tensorrt[v] else 0
            for u in self.units.before[v]:
                at_least = rank[u] + 1 if tensorrt[v] and not tensorrt[u] else rank[u]
                if at_least > limit:
                    limit = at_least
            if not tensorrt[v]:
                rank[v] = limit
            elif limit < rank[v]:
                change = self._change(v, limit)
                if change < 0:
                    self._move(v, limit, change)

    def _bytes(self, t: int) -> int:
        if t not in self._size:
            self._size[t] = self.units.size(t)
        return self._size[t]

    def _change(self, v: int, new: int) -> int:
        """Bytes crossing more when v moves to block `new`. A tensor costs once per block that takes or gives it."""
        units, old, total = self.units, self.rank[v], 0
        for t in units.makes[v]:
            users = self.readers.get(t, {})
            total += self._cost(t, len(users) - (new in users)) - self._cost(t, len(users) - (old in users))
        for t in units.reads[v]:
            users = self.readers[t]
            maker = units.maker[t]
            home = self.rank[maker] if maker >= 0 and units.tensorrt[maker] else 0
            count = len(users) - (home in users)
            moved = count - (users[old] == 1 and old != home) + (new not in users and new != home)
            if moved != count:
                total += self._cost(t, moved) - self._cost(t, count)
        return total

    def _cost(self, t: int, takers: int) -> int:
        maker = self.units.maker[t]
        given = maker >= 0 and self.units.tensorrt[maker] and (takers > 0 or self.units.outside[t])
        return (takers + given) * self._bytes(t) if takers or given else 0

    def _move(self, v: int, new: int, change: int) -> None:
        old = self.rank[v]
        for t in self.units.reads[v]:
            users = self.readers[t]
            users[new] = users.get(new, 0) + 1
            users[old] -= 1
            if not users[old]:
                del users[old]
        self.rank[v] = new
        self.bytes += change
