"""A call as the graph of one block: placeholders, constants, the call, and its results as outputs."""

from __future__ import annotations

import dataclasses
import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import Graph, GraphModule, Node
from torch.fx._lazy_graph_module import _LazyGraphModule
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from trtplug.testing.drawn import DrawnCall, static_shape
from trtplug_registry import Converter, TensorFacts, has_data_dependent_shape

PREFIX = "in_"


@dataclasses.dataclass(frozen=True, eq=False)
class CallGraph:
    """The graph of one call.

    Attributes:
        module: runs it; its placeholders are `places`, in order.
        node: the call itself.
        places: which tensor arguments are inputs rather than constants.
        results: which of the op's results are outputs, in order.
    """

    module: GraphModule
    node: Node
    places: tuple[str, ...]
    results: tuple[int, ...]

    def inputs(self, tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return tuple(tensors[place] for place in self.places)

    def expected(self, eager: Any) -> tuple[torch.Tensor, ...]:
        """Eager's results, those that the graph returns."""
        every = tuple(eager) if isinstance(eager, list | tuple) else (eager,)
        return tuple(every[number] for number in self.results)


def call_graph(
    call: DrawnCall, tensors: Mapping[str, torch.Tensor], constants: Sequence[str], allowed: Sequence[int] | None = None
) -> CallGraph:
    """The graph of a static call.

    Args:
        call: what is called.
        tensors: values by place; those of the constants go into the graph, of the others only the metadata.
        constants: the places of tensors that are constants.
        allowed: the results that may be used; all where None.

    Raises:
        Exception: whatever eager's metadata function raises for a call that is not well-formed.
    """
    env = ShapeEnv() if has_data_dependent_shape(call.op) else None
    writer = GraphWriter(FakeTensorMode(allow_non_fake_inputs=True, shape_env=env))
    _inputs(writer, tensors, constants)
    return writer.finish(call, allowed)


def _inputs(writer: GraphWriter, tensors: Mapping[str, torch.Tensor], constants: Sequence[str]) -> None:
    for place, tensor in tensors.items():
        if place in constants:
            writer.constant(place, tensor)
        else:
            writer.input_like(place, tensor)


@dataclasses.dataclass(frozen=True, eq=False)
class Instance:
    """A call with values, and its graph.

    Attributes:
        call: what is called.
        tensors: values by place.
        constants: the places of those that are constants of the graph.
        graph: of the call.
        rounds: these and other values to run it with, each with what eager makes of them.
    """

    call: DrawnCall
    tensors: Mapping[str, torch.Tensor]
    constants: tuple[str, ...]
    graph: CallGraph
    rounds: tuple[tuple[Mapping[str, torch.Tensor], Any], ...] = ()


def batch_graph(graphs: Sequence[CallGraph]) -> GraphModule:
    """One graph with several calls side by side, so that one engine build judges all of them."""
    root, whole = torch.nn.Module(), Graph()
    outputs: list[Node] = []
    inputs = [(number, graph, node) for number, graph in enumerate(graphs) for node in graph.module.graph.nodes]
    copies: dict[Node, Node] = {}
    for number, graph, node in sorted(inputs, key=lambda item: item[2].op != "placeholder"):
        if node.op == "output":
            outputs += [copies[result] for result in node.all_input_nodes]
            continue
        copies[node] = copy = whole.node_copy(node, copies.__getitem__)
        if node.op == "placeholder":
            copy.target = copy.name
        if node.op == "get_attr":
            copy.target = f"call_{number}_{node.target}"
            root.register_buffer(copy.target, getattr(graph.module, str(node.target)))
    return _module(root, whole, outputs)


def bare_node(call: DrawnCall) -> Node:
    """A node of a static call whose inputs have metadata; it has none itself, since eager might refuse the call."""
    writer = GraphWriter(FakeTensorMode())
    for place, facts in call.tensors.items():
        with writer.mode:
            node = writer.input(place, torch.empty(static_shape(facts), dtype=facts.dtype))
        node.meta["constant"] = facts.constant
    args, kwargs = writer.spell(call)
    return writer.graph.call_function(call.op, args, kwargs)


class GraphWriter:
    """Writes calls into one graph, input by input.

    Args:
        mode: makes the metadata.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        self.mode = mode
        self.graph = Graph()
        self.root = torch.nn.Module()
        self.nodes: dict[str, Node] = {}
        self.places: list[str] = []

    def input(self, place: str, fake: torch.Tensor) -> Node:
        node = self.graph.placeholder(PREFIX + _identifier(place))
        node.meta["val"] = fake
        self.nodes[place] = node
        self.places.append(place)
        return node

    def input_like(self, place: str, tensor: torch.Tensor) -> Node:
        """An input of a tensor's shape, strides and dtype."""
        with self.mode:
            return self.input(place, torch.empty_strided(tuple(tensor.shape), tensor.stride(), dtype=tensor.dtype))

    def constant(self, place: str, tensor: torch.Tensor) -> Node:
        name = f"constant_{PREFIX}{_identifier(place)}"
        self.root.register_buffer(name, tensor)
        node = self.graph.get_attr(name)
        with self.mode:
            node.meta["val"] = torch.empty_strided(tuple(tensor.shape), tensor.stride(), dtype=tensor.dtype)
        self.nodes[place] = node
        return node

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        """A call node with the metadata that the op's own fake implementation gives."""
        node = self.graph.call_function(target, args, kwargs)
        fake_args, fake_kwargs = torch.fx.node.map_arg((args, kwargs), lambda source: source.meta["val"])
        with self.mode, enable_python_dispatcher(), warnings.catch_warnings():  # as torch.export calls it
            warnings.simplefilter("ignore")
            node.meta["val"] = target(*fake_args, **fake_kwargs)
        return node

    def spell(self, call: DrawnCall, sizes: Mapping[str, Node] | None = None) -> tuple[Any, Any]:
        """The arguments of a call as nodes; `sizes` are the nodes of those that are symbolic, by place."""

        def leaf(place: str, value: Any) -> Any:
            return self.nodes[place] if isinstance(value, TensorFacts) else (sizes or {}).get(place, value)

        return call.spell(leaf)

    def write(
        self, call: DrawnCall, allowed: Sequence[int] | None = None, sizes: Mapping[str, Node] | None = None
    ) -> tuple[Node, dict[int, Node]]:
        """The call itself, and the nodes of its results by their number."""
        args, kwargs = self.spell(call, sizes)
        node = self.call(call.op, *args, **kwargs)
        value = node.meta["val"]
        if not isinstance(value, list | tuple):
            return node, {0: node}
        results = {}
        for number, item in enumerate(value):
            if isinstance(item, FakeTensor) and (allowed is None or number in allowed):
                results[number] = self.graph.call_function(operator.getitem, (node, number))
                results[number].meta["val"] = item
        return node, results

    def module(self, outputs: Sequence[Node]) -> GraphModule:
        """The finished graph."""
        return _module(self.root, self.graph, outputs)

    def finish(
        self, call: DrawnCall, allowed: Sequence[int] | None = None, sizes: Mapping[str, Node] | None = None
    ) -> CallGraph:
        """The graph of a single call."""
        node, results = self.write(call, allowed, sizes)
        return CallGraph(self.module(list(results.values())), node, tuple(self.places), tuple(results))


def _module(root: torch.nn.Module, graph: Graph, outputs: Sequence[Node]) -> GraphModule:
    end = graph.output(tuple(outputs))
    end.meta["val"] = tuple(output.meta["val"] for output in outputs)
    return _LazyGraphModule(root, graph)  # mostly it is converted and never run: its code is written at the first call


def allowed_results(converter: Converter) -> tuple[int, ...] | None:
    """The results that a converter's domain lets be used; None for all."""
    allowed: set[int] | None = None
    for outputs in converter.domain.outputs:
        allowed = set(outputs.allowed) if allowed is None else allowed & set(outputs.allowed)
    return None if allowed is None else tuple(sorted(allowed))


def _identifier(place: str) -> str:
    return place.replace("[", "_").replace("]", "")
