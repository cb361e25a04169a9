"""One layer being lifted: what a rule may read of it, and how it writes nodes."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from trtplug._tensorrt import read_dims, torch_dtype
from trtplug.reference.errors import MissingWeights, UnsupportedLayer
from trtplug.reference.semantics import pointwise
from trtplug.reference.topology import Layer, Topology

HALVES = frozenset({torch.float16, torch.bfloat16})
LITERAL_SIZE = 64  # integer constants up to this many elements are written into the code


def identifier(name: str) -> str:
    """A layer or tensor name as a Python identifier."""
    text = re.sub(r"\W+", "_", name.removeprefix("(Unnamed Layer*").strip()).strip("_")
    return text if text and not text[0].isdigit() else f"_{text}"


def value_dtype(tensor: Any, layer: str, kind: str) -> torch.dtype:
    """The Torch dtype that holds a network tensor's values (int4 is held as int8)."""
    if tensor.dtype.name == "INT4":
        return torch.int8
    try:
        return torch_dtype(tensor.dtype)
    except KeyError:
        raise UnsupportedLayer(layer, kind, f"tensor {tensor.name!r} is {tensor.dtype.name}") from None


def value_dims(tensor: Any, layer: str, kind: str) -> list[int]:
    """The dims that TensorRT inferred, -1 where they are known at run time only."""
    try:
        return list(tensor.shape)
    except (RuntimeError, ValueError) as error:
        raise UnsupportedLayer(layer, kind, f"TensorRT cannot infer the shape of {tensor.name!r}: {error}") from error


class WeightReader:
    """Weights by name: the builder's table first, then what the network hands out (copied: it may be freed)."""

    def __init__(self, table: Mapping[str, Tensor]) -> None:
        self.table = table

    def read(self, layer: Layer, role: str, weights: Any) -> Tensor | None:
        """Weights, flat unless the table shapes them; None where they are not set.

        Where:
            role: "" for a constant, else "kernel", "bias", …; the table's key is then ``<layer>.<role>``.
        """
        key = f"{layer.name}.{role}" if role else layer.name
        if key in self.table:
            return self.table[key].detach()
        if isinstance(weights, np.ndarray):
            return torch.from_numpy(np.array(weights)) if weights.size or not role else None
        if weights is None or weights.size == 0:
            return None
        raise MissingWeights(layer.name, key, weights.dtype.name)


@dataclass(eq=False)
class Scope:
    """The graph that a block of layers is lifted into, with the values it knows so far."""

    graph: Graph = field(default_factory=Graph)
    values: dict[Any, Node] = field(default_factory=dict)  # network tensor: node
    attributes: dict[str, Any] = field(default_factory=dict)  # buffers and nested graph modules
    step: Node | None = None  # in a loop: the iteration and the trip count
    count: Node | None = None
    _names: set[str] = field(default_factory=lambda: {"training", "meta", "self"})

    def placeholder(self, name: str) -> Node:
        """A new input of the graph."""
        unique = self._unused(identifier(name))
        return self.graph.create_node("placeholder", unique, (), {}, name=unique)

    def attribute(self, name: str, value: Any) -> Node:
        """A node that reads a new attribute of the graph module."""
        unique = self._unused(identifier(name))
        self.attributes[unique] = value
        return self.graph.create_node("get_attr", unique, (), {}, name=unique)

    def _unused(self, name: str) -> str:
        """A name that no input, buffer or method of the graph module has."""
        unique, count = name, 0
        while unique in self._names or hasattr(GraphModule, unique) or keyword.iskeyword(unique):
            unique, count = f"{name}_{count}", count + 1
        self._names.add(unique)
        return unique


@dataclass(eq=False)
class Site:
    """A layer, the scope it is lifted into, and the reader of its weights."""

    layer: Layer
    scope: Scope
    topology: Topology
    reader: WeightReader

    @property
    def handle(self) -> Any:
        return self.layer.handle

    def has(self, index: int) -> bool:
        """Whether an optional input is set."""
        return index < len(self.layer.inputs) and self.layer.inputs[index] is not None

    def tensor(self, index: int) -> Any:
        """TensorRT's own object for an input."""
        if not self.has(index):
            raise self.refuse(f"input {index} is not set")
        return self.layer.inputs[index]

    def node(self, index: int) -> Node:
        """The node of an input."""
        return self.scope.values[self.tensor(index)]

    def maybe(self, index: int) -> Node | None:
        """The node of an optional input."""
        return self.node(index) if self.has(index) else None

    def nodes(self) -> list[Node]:
        """The nodes of all inputs, none of which is optional."""
        return [self.node(index) for index in range(len(self.layer.inputs))]

    def dims(self, index: int) -> list[int]:
        return value_dims(self.tensor(index), self.layer.name, self.layer.kind)

    def out_dtype(self, index: int = 0) -> torch.dtype:
        return value_dtype(self.layer.outputs[index], self.layer.name, self.layer.kind)

    def axes(self, mask: int, index: int = 0) -> list[int]:
        """The axes of an input that a bit mask names."""
        return [axis for axis in range(len(self.dims(index))) if mask >> axis & 1]

    def static(self, attribute: str) -> list[int]:
        """Dims stored in the layer; an error where they are unset."""
        dims = read_dims(self.handle, attribute)
        if dims is None:
            raise self.refuse(f"{attribute} is not set")
        return dims

    def ints(self, index: int) -> list[int] | Node:
        """An integer input: its values where a small constant makes it, else its node."""
        maker = self.topology.producer.get(self.tensor(index))
        if maker is not None and maker.kind == "CONSTANT":
            tensor = self.reader.read(maker, "", maker.handle.weights)
            if tensor is not None and tensor.numel() <= LITERAL_SIZE:
                return [int(v) for v in tensor.reshape(-1).tolist()]
        return self.node(index)

    def weights(self, role: str, shape: list[int] | None = None) -> Node | None:
        """A buffer with the weights in one of the layer's attributes; None where they are not set."""
        tensor = self.reader.read(self.layer, role, getattr(self.handle, role))
        if tensor is None:
            return None
        return self.buffer(role, tensor if shape is None else tensor.reshape(shape))

    def buffer(self, role: str, tensor: Tensor) -> Node:
        """A node that reads a new buffer of the graph module."""
        node = self.scope.attribute(f"{self.layer.name}_{role}" if role else self.layer.name, tensor)
        node.meta["dtype"] = tensor.dtype
        return node

    def move(self, target: Callable[..., Any], *args: Any) -> Node:
        """A call whose result holds its inputs' own values: no arithmetic, so no rounding."""
        node = self.scope.graph.create_node("call_function", target, args, {}, name=identifier(self.layer.name))
        node.meta.update(layer=self.layer.name, kind=self.layer.kind)
        return node

    def compute(self, target: Callable[..., Any], *args: Any) -> Node:
        """A call that does arithmetic: half types are computed in float32 and the result rounded."""
        result = self.move(target, *torch.fx.node.map_arg(args, self._widened))
        return self.move(pointwise.cast, result, self.out_dtype()) if self.out_dtype() in HALVES else result

    def _widened(self, node: Node) -> Node:
        return self.move(pointwise.cast, node, torch.float32) if node.meta.get("dtype") in HALVES else node

    def refuse(self, why: str) -> UnsupportedLayer:
        """The error that says why this layer cannot be lifted."""
        return UnsupportedLayer(self.layer.name, self.layer.kind, why)


Rule = Callable[[Site], Node]
