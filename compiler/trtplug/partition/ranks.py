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
    later, from the latest. The first cannot carry a chain across its widest tensor, the second starts beyond it. Linear
    in edges.
    """
    first = earliest(units)
    if max((first[v] for v in units.order), default=0) <= 1:
        return [(0, first)]
    sizes: dict[int, int] = {}
    ahead = _Mover(units, first, sizes)
    ahead.later()
    back = _Mover(units, first, sizes)
    back.later(forced=True)
    back.earlier()
    back.later()
    return [(0, first), (ahead.bytes, ahead.rank), (back.bytes, back.rank)]


class _Mover:
    """Moves units between blocks and keeps account of the bytes that cross, relative to where it started."""

    def __init__(self, units: Units, rank: list[int], sizes: dict[int, int]) -> None:
        self.units = units
        self.rank = list(rank)
        self.bytes = 0
        self._last = max(rank)
        self._sizes = sizes  # tensor -> bytes, as far as asked
        # One dict with an integer key for (tensor, block), not a dict per tensor: containers are what the garbage
        # collector pays for.
        self._readers: dict[int, int] = {}  # tensor * width + block -> how many of the block's nodes read the tensor
        self._takers = [0] * len(rank)  # tensor -> in how many blocks it is read
        self._width = self._last + 1
        for v in units.order:
            if units.tensorrt[v]:
                for t in units.reads[v]:
                    self._count(t, rank[v], 1)

    def later(self, forced: bool = False) -> None:
        """Last node first: move it as late as what reads it allows, where no more bytes cross then (or `forced`)."""
        tensorrt, rank, before = self.units.tensorrt, self.rank, self.units.before
        limit = [self._last] * len(rank)
        for v in reversed(self.units.order):
            to = limit[v]
            if not tensorrt[v]:
                rank[v] = to
            elif to > rank[v]:
                change = self._change(v, to)
                if forced or change <= 0:  # a move for nothing can make one pay that comes after it
                    self._move(v, to, change)
            at_most = rank[v]
            for u in before[v]:
                if tensorrt[v] and not tensorrt[u]:
                    limit[u] = min(limit[u], at_most - 1)
                elif at_most < limit[u]:
                    limit[u] = at_most

    def earlier(self) -> None:
        """First node first: move it as early as what it reads allows, where fewer bytes cross then."""
        tensorrt, rank = self.units.tensorrt, self.rank
        for v in self.units.order:
            to = 1 if tensorrt[v] else 0
            for u in self.units.before[v]:
                at_least = rank[u] + 1 if tensorrt[v] and not tensorrt[u] else rank[u]
                if at_least > to:
                    to = at_least
            if not tensorrt[v]:
                rank[v] = to
            elif to < rank[v]:
                change = self._change(v, to)
                if change < 0:
                    self._move(v, to, change)

    def _change(self, v: int, new: int) -> int:
        """Bytes crossing more when v moves to block `new`. A tensor costs once per block that takes or gives it."""
        readers, width, maker = self._readers, self._width, self.units.maker
        old, total = self.rank[v], 0
        for t in self.units.makes[v]:
            takers = self._takers[t]
            if takers:
                now, then = takers - (t * width + old in readers), takers - (t * width + new in readers)
                if now != then:
                    total += self._cost(t, then) - self._cost(t, now)
        for t in self.units.reads[v]:
            by = maker[t]
            home = self.rank[by] if by >= 0 and self.units.tensorrt[by] else -1
            leaves = old != home and readers[t * width + old] == 1
            enters = new != home and t * width + new not in readers
            if leaves != enters:
                now = self._takers[t] - (home >= 0 and t * width + home in readers)
                total += self._cost(t, now + enters - leaves) - self._cost(t, now)
        return total

    def _cost(self, t: int, takers: int) -> int:
        if t not in self._sizes:
            self._sizes[t] = self.units.size(t)
        maker = self.units.maker[t]
        given = maker >= 0 and self.units.tensorrt[maker] and (takers > 0 or self.units.outside[t])
        return (takers + given) * self._sizes[t]

    def _move(self, v: int, new: int, change: int) -> None:
        for t in self.units.reads[v]:
            self._count(t, self.rank[v], -1)
            self._count(t, new, 1)
        self.rank[v] = new
        self.bytes += change

    def _count(self, t: int, block: int, by: int) -> None:
        key = t * self._width + block
        count = self._readers.get(key, 0) + by
        if count:
            self._takers[t] += count == by  # the first to read it in this block
            self._readers[key] = count
        else:
            self._takers[t] -= 1
            del self._readers[key]
