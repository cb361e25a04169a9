"""Integers of 64 bits are integers of 32 bits, where it is proven that these are enough."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from trtplug_lowering_passes._bounds import BoundsBook
from trtplug_lowering_passes._nodes import (
    argument,
    calls,
    cast_value,
    constant_made_of,
    constant_of,
    drop_unread,
    is_cast,
    positions,
    replace,
    tensor_of,
)
from trtplug_registry import applied, lowering_pass, reaches_output

aten = torch.ops.aten

_MADE = frozenset({aten.arange, aten.full, aten.zeros, aten.ones, aten.scalar_tensor, aten.cumsum})
"""Ops that make integers of the dtype that they are told, whatever they read."""

_ARITHMETIC = frozenset(
    {
        *(aten.add, aten.sub, aten.rsub, aten.mul, aten.neg, aten.minimum, aten.maximum),
        *(aten.clamp, aten.clamp_min, aten.clamp_max, aten.where, aten.masked_fill),
    }
)
_SAME = _ARITHMETIC | frozenset(
    {
        *(aten.view, aten.reshape, aten.expand, aten.repeat, aten.permute, aten.transpose, aten.t, aten.flatten),
        *(aten.unsqueeze, aten.squeeze, aten.slice, aten.select, aten.clone, aten.contiguous, aten.cat, aten.stack),
    }
)
"""Ops that give integers of the dtype that they read."""

_COMPARE = frozenset({aten.eq, aten.ne, aten.lt, aten.le, aten.gt, aten.ge})
_INDICES = {aten.embedding: "indices", aten.index_select: "index", aten.index: "indices"}
"""The argument that may be integers of either width."""


@lowering_pass(
    "narrow-integers",
    after=["type-promotion", "expansions", "views", "common-subexpressions", "constant-folding", "slices"],
    before=["sizes-from-inputs", "dead-code"],
)
def narrow_integers(graph_module: fx.GraphModule) -> bool:
    """Computes positions and masks in int32.

        arange(n, dtype=int64) ─ add(2) ─ unsqueeze(0) ─ embedding(table, ·)
        →
        arange(n, dtype=int32) ─ add(2) ─ unsqueeze(0) ─ embedding(table, ·)

    What is connected is narrowed together, and only if no cast is needed: every value in it lies within 32 bits, by
    interval arithmetic over constants, ranges of sizes, and what limits values; all of it is made by ops that can make
    int32, and read by ops that give the same of it. Never what comes in or goes out, nor constants that are written.
    """
    narrowing = _Narrowing(graph_module)
    narrowing.connect()
    return narrowing.run()


class _Narrowing:
    """Groups of values that have one width, because one op reads both or makes one of the other."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.graph_module, self.bounds = graph_module, BoundsBook(graph_module)
        self.wide: dict[fx.Node, fx.Node] = {node: node for node in graph_module.graph.nodes if _is_wide(node)}
        """For each value of 64 bits another one of its group, in the end the same for all in it."""
        self.barred: set[fx.Node] = set()

    def find(self, node: fx.Node) -> fx.Node:
        while self.wide[node] is not node:
            self.wide[node] = self.wide[self.wide[node]]
            node = self.wide[node]
        return node

    def connect(self) -> None:
        for node in self.wide:
            if not self._can_be_made(node):
                self.barred.add(node)
        for node in self.graph_module.graph.nodes:
            read = [source for source in node.all_input_nodes if source in self.wide]
            if not read:
                continue
            packet = getattr(node.target, "overloadpacket", None)
            if packet in _SAME and node in self.wide:
                self._join(node, *read)
            elif packet in _COMPARE and _numbers_fit(node):
                self._join(*read)
            else:
                free = set(_read_at_any_width(node, packet))
                self.barred.update(source for source in read if source not in free)

    def _join(self, *nodes: fx.Node) -> None:
        for one, two in itertools.pairwise(nodes):
            self.wide[self.find(one)] = self.find(two)

    def _can_be_made(self, node: fx.Node) -> bool:
        if self.bounds.of(node) is None:
            return False
        if node.op == "get_attr":
            return constant_of(self.graph_module, node) is not None
        packet = getattr(node.target, "overloadpacket", None)
        if packet in _SAME:
            return any(source in self.wide for source in node.all_input_nodes) and _numbers_fit(node)
        return packet in _MADE or is_cast(node)

    def run(self) -> bool:
        barred = {self.find(node) for node in self.barred}
        narrow = [node for node in self.wide if self.find(node) not in barred]
        if not narrow:
            return False
        for node in narrow:
            self._narrow(node)
        for node in calls(self.graph_module.graph):
            if is_cast(node) and _dtype(node) == _dtype(node.args[0]) == torch.int32 and not reaches_output(node):
                replace(node, node.all_input_nodes[0])
        drop_unread(self.graph_module, narrow)
        return True

    def _narrow(self, node: fx.Node) -> None:
        applied(self.graph_module, "narrow-integers")
        value = constant_of(self.graph_module, node)
        if value is not None:
            narrow = constant_made_of(self.graph_module, node.next, node, "_int32", value.to(torch.int32))
            node.replace_all_uses_with(narrow)
            return
        if "dtype" in positions(_op(node)):
            _set_dtype(node, torch.int32)
        elif is_cast(node):
            node.target, node.args, node.kwargs = aten._to_copy.default, (node.args[0],), {"dtype": torch.int32}
        node.meta["val"] = cast_value(node.meta["val"], torch.int32)


def _read_at_any_width(node: fx.Node, packet: Any) -> Iterator[fx.Node]:
    """What an op reads as integers of either width, to the same effect."""
    casts = is_cast(node) and node.target not in (aten.to.other, aten.type_as.default)
    if casts or (packet is aten.cumsum and _is_wide(node)):
        yield from node.all_input_nodes
    elif packet in _INDICES:
        yield from (item for item in _nodes_in(argument(node, _INDICES[packet])) if item is not node.args[0])


def _numbers_fit(node: fx.Node) -> bool:
    numbers = [item for item in (*node.args, *node.kwargs.values()) if isinstance(item, int | float)]
    packet = getattr(node.target, "overloadpacket", None)
    return packet not in _ARITHMETIC | _COMPARE or all(abs(number) < 2**31 for number in numbers)


def _set_dtype(node: fx.Node, dtype: torch.dtype) -> None:
    """Sets the argument `dtype`, by position where it is given so."""
    place = positions(_op(node))["dtype"]
    if place < len(node.args):
        node.update_arg(place, dtype)
    else:
        node.kwargs = {**node.kwargs, "dtype": dtype}


def _op(node: fx.Node) -> OpOverload:
    assert isinstance(node.target, OpOverload)
    return node.target


def _is_wide(node: fx.Node) -> bool:
    return bool(node.users) and _dtype(node) == torch.int64


def _dtype(node: Any) -> torch.dtype | None:
    tensor = tensor_of(node)
    return None if tensor is None else tensor.dtype


def _nodes_in(value: Any) -> Iterator[fx.Node]:
    if isinstance(value, fx.Node):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _nodes_in(item)
