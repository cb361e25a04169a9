"""The outer GraphModule: blocks replaced by calls of their runners."""

from __future__ import annotations

import copy
import heapq
import operator
from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from trtplug.partition.flow import Flow, Kind
from trtplug.partition.layout import as_in_eager, permuted_outputs
from trtplug.partition.sizes import Writer, expression
from trtplug.partition.value import Partition, Value


def link(gm: fx.GraphModule, partition: Partition, runners: Sequence[nn.Module]) -> fx.GraphModule:
    """A GraphModule that computes what `gm` does, each block by one call of its runner (submodules `engine_0`, …).

    A runner is called with `block.inputs`, then the values of `block.sizes` as Python int or SymInt, and returns a
    tuple of `block.outputs`. Placeholders, output structure and codegen are those of `gm`; Torch nodes keep their
    names and metadata, the tensors of a block are getitems that carry those of the nodes they replace. Those on which a
    random op in Torch depends are laid out in memory as eager's, so that it draws the same numbers. Dead code is gone,
    effects stay in order. `gm` is not changed; modules and tensors are shared with it.

    Raises ValueError where the number of runners is not the number of blocks.
    """
    if len(runners) != len(partition.blocks):
        raise ValueError(f"{len(runners)} runners for {len(partition.blocks)} blocks")
    outer = _Outer(gm, partition)
    attributes: dict[str, Any] = {}
    for node in outer.graph.nodes:
        if node.op in ("get_attr", "call_module") and node not in outer.calls:
            attributes[str(node.target)] = operator.attrgetter(str(node.target))(gm)
    prefix = "engine_"
    while any(target.startswith(prefix) for target in attributes):
        prefix = "_" + prefix
    for call, b in outer.calls.items():
        call.target = f"{prefix}{b}"
        attributes[call.target] = runners[b]
    linked = fx.GraphModule(attributes, outer.graph, class_name=type(gm).__name__)
    linked.meta = copy.copy(gm.meta)
    return linked


class _Outer:
    """Builds the outer graph."""

    def __init__(self, gm: fx.GraphModule, partition: Partition) -> None:
        self.graph = fx.Graph()
        self.graph.set_codegen(copy.copy(gm.graph._codegen))
        self.calls: dict[fx.Node, int] = {}
        self._flow = flow = partition.flow
        self._copied: dict[fx.Node, Any] = {}
        self._permuted = permuted_outputs(flow, partition)
        self._writer = Writer(self.graph, self._value)
        for node in flow.nodes:
            if node.op == "placeholder":
                self._copied[node] = self.graph.node_copy(node)
        for item in _schedule(flow, partition):
            if item < len(flow.nodes):
                self._value(flow.nodes[item])
            else:
                self._call(partition, item - len(flow.nodes))
        for i, node in enumerate(flow.nodes):
            if flow.kind[i] is Kind.OUTPUT:
                self._value(node)

    def _call(self, partition: Partition, b: int) -> None:
        block = partition.blocks[b]
        call = self.graph.call_module(f"engine_{b}", tuple(map(self._value, (*block.inputs, *block.sizes))))
        call.meta["val"] = tuple(node.meta.get("val") for node in block.outputs)
        self.calls[call] = b
        for k, node in enumerate(block.outputs):
            part = self.graph.create_node("call_function", operator.getitem, (call, k), name=node.name)
            part.meta = copy.copy(node.meta)
            order = self._permuted.get(node)
            self._copied[node] = part if order is None else as_in_eager(self.graph, part, order)

    def _value(self, node: fx.Node) -> Any:
        """The node in the outer graph, copied there with the constants, sizes and getitems it needs."""
        todo = [node]
        while todo:
            node = todo[-1]
            missing = [argument for argument in self._needed(node) if argument not in self._copied]
            todo.extend(missing)
            if not missing:
                if node not in self._copied:
                    self._copied[node] = self._copy(node)
                todo.pop()
        return self._copied[node]

    def _needed(self, node: fx.Node) -> list[fx.Node]:
        i = self._flow.index[node]
        if node in self._copied or self._flow.value[i] is Value.NUMBER:
            return []
        if self._flow.kind[i] is not Kind.SIZE:
            return node.all_input_nodes
        sources = self._flow.sizes.resolve(expression(node.meta["val"])) or {}
        return [source.node for source in sources.values()]

    def _copy(self, node: fx.Node) -> Any:
        i = self._flow.index[node]
        if self._flow.kind[i] is not Kind.SIZE:
            return self.graph.node_copy(node, self._copied.__getitem__)
        if self._flow.value[i] is Value.NUMBER:
            return node.meta["val"]
        expr = expression(node.meta["val"])
        written = self._writer.write(expr, self._flow.sizes.resolve(expr) or {})
        if isinstance(written, fx.Node):
            written.meta = {**node.meta, **written.meta}
        return written


def _schedule(flow: Flow, partition: Partition) -> list[int]:
    """What runs outside of blocks and the blocks (n + index), in an order that keeps to the graph's where it can.

    Among what may run next the first in the graph goes first, a block counting as its first node.
    """
    n = len(flow.nodes)
    item = [i if flow.owner[i] == i else -1 for i in range(n)]
    place: dict[int, int] = {i: i for i in item if i >= 0}
    for block in partition.blocks:
        for node in block.nodes:
            item[flow.index[node]] = n + block.index
            place.pop(flow.index[node], None)
        place[n + block.index] = flow.index[block.nodes[0]]
    before: dict[int, set[int]] = {it: set() for it in place}
    for i in range(n):
        if item[i] >= 0 and flow.owner[i] == i:
            before[item[i]].update(item[u] for u in flow.before[i])
    waiting: dict[int, int] = {}
    after: dict[int, list[int]] = {it: [] for it in place}
    for it, earlier in before.items():
        earlier.discard(it)
        waiting[it] = len(earlier)
        for u in earlier:
            after[u].append(it)
    ready = [(place[it], it) for it, count in waiting.items() if not count]
    heapq.heapify(ready)
    done: list[int] = []
    while ready:
        _, it = heapq.heappop(ready)
        done.append(it)
        for later in after[it]:
            waiting[later] -= 1
            if not waiting[later]:
                heapq.heappush(ready, (place[later], later))
    return done
