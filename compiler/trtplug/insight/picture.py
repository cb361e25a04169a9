"""The partition as a picture: engines, groups of Torch nodes between them, and the tensors that cross."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from torch.fx import Graph, Node

from trtplug.partition import Partition, tensor_bytes
from trtplug.partition.value import is_getitem

INPUTS, OUTPUTS = "inputs", "outputs"


@dataclasses.dataclass(frozen=True)
class Unit:
    """An engine, or Torch nodes that run together between engines.

    Attributes:
        name: ``engine 0``, ``torch 0``; also ``inputs`` and ``outputs``.
        nodes: names of its compute nodes.
        flops: its work.
        level: where it stands; a tensor crosses from a lower level to a higher one.
    """

    name: str
    nodes: tuple[str, ...]
    flops: int
    level: int


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Tensors that go from one unit to another.

    Attributes:
        source, target: names of units.
        tensors: names of the nodes that make them.
        bytes: of all of them, symbolic sizes at their hints.
    """

    source: str
    target: str
    tensors: tuple[str, ...]
    bytes: int


def picture(graph: Graph, parts: Partition, flops: Mapping[Node, int]) -> tuple[tuple[Unit, ...], tuple[Crossing, ...]]:
    """The units in an order of execution, and what crosses between them."""
    unit_of = _units(graph, parts)
    members: dict[str, list[Node]] = {}
    for node, name in unit_of.items():
        members.setdefault(name, []).append(node)
    crossing: dict[tuple[str, str], dict[Node, None]] = {}
    for node in graph.nodes:
        target = OUTPUTS if node.op == "output" else unit_of.get(node, "")
        for source_node in node.all_input_nodes if target else ():
            source = INPUTS if source_node.op == "placeholder" else unit_of.get(source_node, "")
            if source and source != target and tensor_bytes(source_node):
                crossing.setdefault((source, target), {})[source_node] = None
    crossings = tuple(
        Crossing(source, target, tuple(node.name for node in nodes), sum(map(tensor_bytes, nodes)))
        for (source, target), nodes in crossing.items()
    )
    levels = _levels([INPUTS, *members, OUTPUTS], crossings)
    units = [
        Unit(
            name,
            tuple(node.name for node in members.get(name, ()) if not is_getitem(node)),
            sum(flops.get(node, 0) for node in members.get(name, ())),
            levels[name],
        )
        for name in levels
    ]
    return tuple(sorted(units, key=lambda unit: unit.level)), crossings


def _units(graph: Graph, parts: Partition) -> dict[Node, str]:
    """The unit of each node that has one. Torch nodes that follow the same engines and touch form one."""
    name_of = {node: f"engine {block.index}" for block in parts.blocks for node in block.nodes}
    after: dict[Node, int] = {node: block.index for block in parts.blocks for node in block.nodes}
    torch_nodes = frozenset(parts.torch_nodes)
    parent: dict[Node, Node] = {}

    def root(node: Node) -> Node:
        while parent[node] is not node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for node in graph.nodes:
        if node in name_of or not (node in torch_nodes or (is_getitem(node) and node.args[0] in parent)):
            continue
        after[node] = max((after[source] for source in node.all_input_nodes if source in after), default=-1)
        parent[node] = node
        for source in node.all_input_nodes:
            if source in parent and after[source] == after[node]:
                parent[root(source)] = root(node)
    number: dict[Node, int] = {}
    for node in parent:
        name_of[node] = f"torch {number.setdefault(root(node), len(number))}"
    return name_of


def _levels(names: list[str], crossings: tuple[Crossing, ...]) -> dict[str, int]:
    """The longest way from the inputs to each unit; the outputs come last."""
    followers: dict[str, list[str]] = {name: [] for name in names}
    waiting = dict.fromkeys(names, 0)
    for crossing in crossings:
        followers[crossing.source].append(crossing.target)
        waiting[crossing.target] += 1
    levels = {name: 0 if name == INPUTS else 1 for name in names}
    ready = [name for name in names if not waiting[name]]
    for name in _drain(ready, followers, waiting):
        for follower in followers[name]:
            levels[follower] = max(levels[follower], levels[name] + 1)
    levels[OUTPUTS] = 1 + max((level for name, level in levels.items() if name != OUTPUTS), default=0)
    return levels


def _drain(ready: list[str], followers: dict[str, list[str]], waiting: dict[str, int]) -> Iterator[str]:
    while ready:
        name = ready.pop()
        yield name
        for follower in followers[name]:
            waiting[follower] -= 1
            if not waiting[follower]:
                ready.append(follower)
