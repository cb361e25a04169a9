"""A graph as it was before a pass: to tell what the pass changed, and to undo it."""

from __future__ import annotations

import functools
import itertools
import operator
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from trtplug.lowering import graphs

_READ = operator.attrgetter(
    *(f"_{name}" if hasattr(fx.Node, f"_{name}") else name for name in ("name", "op", "target", "args", "kwargs"))
)
"""What a state holds of a node; the property ``args`` is code of Python's around a field."""


class State:
    """Name, op, target and wiring of each node in order; equal exactly where the graph is the same.

    Taking one costs a walk over the nodes; nothing is copied, as a node's arguments are never changed in place.
    """

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.nodes: list[fx.Node] = list(graph_module.graph.nodes)
        self.calls: list[tuple[Any, ...]] = list(map(_READ, self.nodes))

    @classmethod
    def after(cls, graph_module: fx.GraphModule, before: State) -> State:
        """The state now; `before` itself where nothing has changed, as after most passes."""
        now = cls(graph_module)
        same = len(now.nodes) == len(before.nodes) and all(map(operator.is_, now.nodes, before.nodes))
        parts = itertools.chain.from_iterable  # compared in C: most passes change nothing
        return before if same and all(map(operator.is_, parts(now.calls), parts(before.calls))) else now

    @functools.cached_property
    def called(self) -> frozenset[Any]:
        """The ops that the graph calls: overloads, their packets, and their names without the overload's."""
        targets = {id(call[2]): call[2] for call in self.calls}  # to hash an op takes longer than its address does
        found = [target for target in targets.values() if isinstance(target, OpOverload)]
        return frozenset(part for op in found for part in (op, op.overloadpacket, op._schema.name))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self.calls == other.calls

    __hash__ = None  # type: ignore[assignment]  # compared, never looked up

    @property
    def names(self) -> list[str]:
        return [call[0] for call in self.calls]


class Undo:
    """What a pass may change besides: metadata, and the attributes of the module."""

    def __init__(self, graph_module: fx.GraphModule, state: State) -> None:
        self.state = state
        self.metas = [dict(node.meta) for node in state.nodes]
        self.attributes = [
            (module, dict(module._parameters), dict(module._buffers), dict(module._modules))
            for module in graph_module.modules()
        ]

    def restore(self, graph_module: fx.GraphModule) -> None:
        """Puts everything back. The nodes are new ones, of the same names."""
        for module, parameters, buffers, modules in self.attributes:
            held: tuple[tuple[Any, Any], ...] = (
                (parameters, module._parameters),
                (buffers, module._buffers),
                (modules, module._modules),
            )
            for before, now in held:
                now.clear()
                now.update(before)
        graph = fx.Graph(graph_module)
        graph._codegen = graph_module.graph._codegen
        image: dict[fx.Node, fx.Node] = {}
        for old, (name, op, target, args, kwargs), meta in zip(self.state.nodes, self.state.calls, self.metas):
            args, kwargs = fx.node.map_arg((args, kwargs), lambda source: image[source])
            new = image[old] = graph.create_node(op, target, args, kwargs, name=name, type_expr=old.type)
            new.name, new.meta = name, meta
        graph_module._graph = graph


def replacements(before: State, after: State) -> dict[str, tuple[str, ...]]:
    """For each node that is gone, what those who read it read now; where they are gone too, what stands for them."""
    present = set(after.names)
    gone = {node: call[0] for node, call in zip(before.nodes, before.calls) if call[0] not in present}
    if not gone:
        return {}
    found: dict[fx.Node, dict[str, None]] = {node: {} for node in gone}
    readers: dict[fx.Node, list[fx.Node]] = {node: [] for node in gone}
    now = dict(zip(after.nodes, after.calls))
    for node, call in zip(before.nodes, before.calls):
        sources = _sources(call)
        for source in sources:
            if source in gone:
                readers[source].append(node)
        current = _sources(now[node]) if node in now and node not in gone else []
        if len(current) == len(sources):
            for one, two in zip(sources, current):
                if one in gone:
                    found[one][two.name] = None
    for node in reversed(gone):
        if not found[node]:
            found[node] = {name: None for reader in readers[node] if reader in gone for name in found[reader]}
    return {name: tuple(found[node]) for node, name in gone.items()}


def _sources(call: tuple[Any, ...]) -> list[fx.Node]:
    sources: list[fx.Node] = []
    fx.node.map_arg(call[3:], sources.append)
    return sources


def promise(graph_module: fx.GraphModule) -> tuple[Any, Any]:
    """What a pass must keep: names, shapes and dtypes of inputs and outputs."""
    graph = graph_module.graph
    inputs = [(node.name, _described(node)) for node in graph.nodes if node.op == "placeholder"]
    results: Any = graphs.output_node(graph).args[0]
    return inputs, [_described(result) for result in results] if isinstance(results, list | tuple) else results


def _described(value: Any) -> Any:
    if not isinstance(value, fx.Node):
        return value
    val = value.meta.get("val")
    if isinstance(val, torch.Tensor):
        sizes: Any = val.shape
        return (val.dtype, tuple(size if type(size) is int else size.node.expr for size in sizes))
    return (type(val), val.node.expr) if isinstance(val, torch.SymInt) else type(val)


def unkept(before: tuple[Any, Any], after: tuple[Any, Any]) -> str:
    """How a promise is broken, or ""."""
    (inputs, results), (new_inputs, new_results) = before, after
    if inputs != new_inputs:
        return f"the inputs were {inputs} and are {new_inputs}"
    if not isinstance(new_results, list) or len(results) != len(new_results):
        return f"there were {len(results)} outputs, now the output is {new_results}"
    for place, (one, two) in enumerate(zip(results, new_results)):
        if one != two:
            return f"output {place} was {one} and is {two}"
    return ""
