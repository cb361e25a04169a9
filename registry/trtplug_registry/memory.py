"""What a registry remembers of the nodes that it was asked about."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Hashable, Iterable
from typing import Any

from torch.fx import Graph, Node

from trtplug_registry.facts import TensorFacts
from trtplug_registry.support import Support

MOST_GRAPHS = 16


@dataclasses.dataclass(frozen=True)
class Remembered:
    """Of one graph.

    Attributes:
        verdicts: by node, with what they depend on.
        facts: by node, with the metadata that they were read from.
        alike: verdicts by op and arguments; sizes of one name are the same size only within a graph.
    """

    graph: Graph | None = None
    verdicts: dict[Node, Any] = dataclasses.field(default_factory=dict)
    facts: dict[Node, Any] = dataclasses.field(default_factory=dict)
    alike: dict[Hashable, Support] = dataclasses.field(default_factory=dict)


class Memory:
    """Of the graphs that were asked about last.

    A verdict's key holds nodes, and a node its graph with all others: to remember every graph would keep them all
    alive. (Weak references do not help, the values refer to the keys.)
    """

    def __init__(self) -> None:
        self._graphs: dict[Graph, Remembered] = {}
        self._last = Remembered()

    def of(self, node: Node) -> Remembered:
        """What is remembered of a node's graph, to be read and added to."""
        last = self._last
        return last if node.graph is last.graph else self._open(node.graph)

    def _open(self, graph: Graph) -> Remembered:
        found = self._graphs.pop(graph, None) or Remembered(graph)
        self._graphs[graph] = self._last = found  # now the youngest
        for oldest in list(self._graphs)[:-MOST_GRAPHS]:
            with contextlib.suppress(KeyError):  # threads may ask at once
                del self._graphs[oldest]
        return found


def call_key(claims: object, values: Iterable[Any]) -> Hashable:
    """Equal for two calls of an op, described in the schema's order, only where they are the same.

    The op counts by what claims it. May not be hashable, where an argument is not.
    """
    return (claims, *map(_frozen, values))


def _frozen(value: Any) -> Hashable:
    kind = type(value)
    if kind is TensorFacts:
        return value  # type: ignore[no-any-return]  # a tuple, like no other
    if kind is list:
        return tuple(map(_frozen, value))
    if isinstance(value, _NUMBERS):
        return (kind, repr(value))  # 1 == True == 1.0, 0.0 == -0.0, and nan != nan
    return (kind, value)


_NUMBERS = (int, float, complex)
