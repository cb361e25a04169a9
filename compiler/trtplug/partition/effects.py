"""Writes and other effects: which nodes have them, and the order that they impose on the nodes around them.

An engine's outputs are fresh tensors, and it runs as a whole; so what a graph does in place becomes edges between
nodes (a reader before the write, the write before later readers), and views of a tensor that is written have to stay
in Torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from trtplug.partition.value import is_getitem
from trtplug_registry import is_collective

_STILL = {"dropout_p": 0.0, "dropout": 0.0, "train": False, "training": False}
"""Arguments with which a random op draws nothing."""


def is_random(node: fx.Node) -> bool:
    """Whether the node draws random numbers: two calls may differ, and each moves the generator on."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    for place, formal in enumerate(target._schema.arguments):
        if formal.name in _STILL:
            given = node.args[place] if place < len(node.args) else node.kwargs.get(formal.name, formal.default_value)
            if given == _STILL[formal.name]:
                return False
    return True


def find_effects(nodes: Sequence[fx.Node]) -> list[bool]:
    """Which nodes write, assert, print, talk to other processes, …: kept in order, though nobody reads them."""
    ops: dict[object, bool] = {}  # an operator's answer does not depend on its arguments
    found = []
    for node in nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            if node.target not in ops:
                ops[node.target] = _has_effect(node)
            found.append(ops[node.target] or is_random(node))
        else:
            found.append(_has_effect(node))
    return found


def _has_effect(node: fx.Node) -> bool:
    if node.op == "call_function":
        return is_collective(node.target) or (not is_getitem(node) and bool(node.is_impure(impure_random=False)))
    if node.op == "call_module":
        return node.graph.owning_module is None or bool(node.is_impure())
    return node.op == "call_method" and str(node.target).endswith("_") and not str(node.target).endswith("__")


@dataclass(frozen=True)
class _Aliases:
    """What an op's schema says about storage: arguments whose storage its result shares, and arguments it writes."""

    shared: tuple[tuple[int, str], ...] = ()
    written: tuple[tuple[int, str], ...] = ()


@functools.cache
def _aliases(target: Callable[..., Any]) -> _Aliases:
    if not isinstance(target, torch._ops.OpOverload):
        return _Aliases()
    arguments = [(i, a.name, a.alias_info) for i, a in enumerate(target._schema.arguments) if a.alias_info is not None]
    shares = any(result.alias_info is not None for result in target._schema.returns)
    return _Aliases(
        shared=tuple((i, name) for i, name, _ in arguments if shares),
        written=tuple((i, name) for i, name, info in arguments if info.is_write),
    )


def _argument_nodes(node: fx.Node, places: Iterable[tuple[int, str]]) -> list[fx.Node]:
    found: list[fx.Node] = []
    for position, name in places:
        argument = node.args[position] if position < len(node.args) else node.kwargs.get(name)
        fx.map_arg(argument, found.append)
    return found


@dataclass(frozen=True)
class Writes:
    """Consequences of the graph's in-place writes, by node index."""

    storages: frozenset[int] = frozenset()  # every node whose storage is written somewhere in the graph
    views: frozenset[int] = frozenset()  # those among them that share it with another node
    edges: Mapping[int, Sequence[int]] = field(default_factory=dict)  # node -> nodes that must run before it


def find_writes(nodes: Sequence[fx.Node], index: Mapping[fx.Node, int]) -> Writes:
    """Follow storages through views and in-place ops. Near-linear; free for a graph that writes nothing."""
    targets = {node.target for node in nodes if node.op == "call_function"}
    if not any(_aliases(target).written for target in targets if callable(target)):
        return Writes()
    parent = list(range(len(nodes)))  # union-find over storages

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    views: set[int] = set()
    written: dict[int, list[int]] = {}
    for i, node in enumerate(nodes):
        if node.op != "call_function" or not callable(node.target):
            continue
        places = _aliases(node.target)
        shared = node.all_input_nodes[:1] if is_getitem(node) else _argument_nodes(node, places.shared)
        for argument in shared:
            parent[root(i)] = root(index[argument])
            if not is_getitem(node):
                views.add(i)
        written[i] = [index[argument] for argument in _argument_nodes(node, places.written)]

    dirty = {root(j) for arguments in written.values() for j in arguments}
    storages = frozenset(i for i in range(len(nodes)) if root(i) in dirty)
    last_write: dict[int, int] = {}
    readers: dict[int, list[int]] = {}
    edges: dict[int, list[int]] = {}
    for i, node in enumerate(nodes):
        if node.op in ("placeholder", "get_attr", "output") or is_getitem(node):
            continue
        writes = {root(j) for j in written.get(i, ())}
        for storage in {root(index[argument]) for argument in node.all_input_nodes} & dirty:
            before = edges.setdefault(i, [])
            if storage in last_write:
                before.append(last_write[storage])
            if storage in writes:
                before.extend(readers.pop(storage, ()))
                last_write[storage] = i
            else:
                readers.setdefault(storage, []).append(i)
    return Writes(storages, frozenset(views & storages), edges)
