"""A call as the graph of one block: placeholders, constants, the call, and its results as outputs."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import Graph, GraphModule, Node

from trtplug.testing.drawn import DrawnCall
from trtplug_registry import Converter, TensorFacts

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
    writer = GraphWriter(FakeTensorMode(allow_non_fake_inputs=True))
    for place, tensor in tensors.items():
        if place in constants:
            writer.constant(place, tensor)
        else:
            with writer.mode:
                fake = torch.empty_strided(tuple(tensor.shape), tensor.stride(), dtype=tensor.dtype)
            writer.input(place, fake)
    return writer.finish(call, allowed)


class GraphWriter:
    """Writes the graph of one call, input by input."""

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

    def constant(self, place: str, tensor: torch.Tensor) -> Node:
        name = "constant_" + _identifier(place)
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
        with self.mode:
            node.meta["val"] = target(*fake_args, **fake_kwargs)
        return node

    def finish(
        self, call: DrawnCall, allowed: Sequence[int] | None = None, sizes: Mapping[str, Node] | None = None
    ) -> CallGraph:
        """The call itself and the output; `sizes` are the nodes of arguments that are symbolic sizes, by place."""

        def leaf(place: str, value: Any) -> Any:
            if isinstance(value, TensorFacts):
                return self.nodes[place]
            return (sizes or {}).get(place, value)

        args, kwargs = call.spell(leaf)
        node = self.call(call.op, *args, **kwargs)
        value = node.meta["val"]
        several = isinstance(value, list | tuple)
        numbers = [
            number
            for number, item in enumerate(value if several else (value,))
            if isinstance(item, FakeTensor) and (allowed is None or number in allowed)
        ]
        outputs = [self._result(node, number) if several else node for number in numbers]
        end = self.graph.output(tuple(outputs))
        end.meta["val"] = tuple(output.meta["val"] for output in outputs)
        return CallGraph(GraphModule(self.root, self.graph), node, tuple(self.places), tuple(numbers))

    def _result(self, node: Node, number: int) -> Node:
        result = self.graph.call_function(operator.getitem, (node, number))
        result.meta["val"] = node.meta["val"][number]
        return result


def allowed_results(converter: Converter) -> tuple[int, ...] | None:
    """The results that a converter's domain lets be used; None for all."""
    allowed: set[int] | None = None
    for outputs in converter.domain.outputs:
        allowed = set(outputs.allowed) if allowed is None else allowed & set(outputs.allowed)
    return None if allowed is None else tuple(sorted(allowed))


def _identifier(place: str) -> str:
    return place.replace("[", "_").replace("]", "")
