"""trtplug's registry, domains and partitioner under another engine: each block becomes an ONNX model. No TensorRT.

A backend brings three things of its own: a context that converters write into, converters with their domains, and what
runs a finished block. Here that is ONNX's own evaluator; ``onnxruntime.InferenceSession`` would take the same models.

    python examples/other_backend/onnx_backend.py
"""

from __future__ import annotations

import dataclasses
import operator
import types
from collections.abc import Callable
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import fx, nn

import trtplug
from trtplug.lowering import lower, run_lowered
from trtplug.partition import Partition, extract, link, partition
from trtplug_registry import Domain, Only, Optional, PluginManager, Registry, Static, Tensor, converter, converter_table

aten = torch.ops.aten
FLOAT = (torch.float32,)


class OnnxContext:
    """What converters of this backend are given: tensors are names, and each call of `op` adds a node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: torch.Tensor) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value.detach().contiguous().numpy(), name))
        return name


# --- converters: the same declarations as for TensorRT, in this backend's words ---------------------------------------


@converter_table(
    {aten.relu.default: "Relu", aten.sigmoid.default: "Sigmoid", aten.tanh.default: "Tanh"}, Domain(self=Tensor(FLOAT))
)
def unary(kind: str, ctx: OnnxContext, self: str) -> str:
    return ctx.op(kind, self)


@converter_table(
    {aten.add.Tensor: "Add", aten.sub.Tensor: "Sub"},
    Domain(self=Tensor(FLOAT), other=Tensor(FLOAT), alpha=Only(1, because="ONNX's addition has no factor")),
)
def binary(kind: str, ctx: OnnxContext, self: str, other: str, *, alpha: int = 1) -> str:
    return ctx.op(kind, self, other)


@converter(
    aten.linear.default, Domain(input=Tensor(FLOAT), weight=Tensor(FLOAT, rank=(2, 2)), bias=Optional(Tensor(FLOAT)))
)
def linear(ctx: OnnxContext, input: str, weight: str, bias: str | None = None) -> str:
    product = ctx.op("MatMul", input, ctx.op("Transpose", weight, perm=[1, 0]))
    return product if bias is None else ctx.op("Add", product, bias)


@converter(aten.softmax.int, Domain(self=Tensor(FLOAT, rank=(1, 8)), dim=Static()))
def softmax(ctx: OnnxContext, self: str, dim: int, dtype: None = None) -> str:
    return ctx.op("Softmax", self, axis=dim)


CONVERTERS = [unary, binary, linear, softmax]


# --- the backend ------------------------------------------------------------------------------------------------------


def registry(**choices: Any) -> Registry:
    """This backend's converters, with every installed pass and decomposition; those for TensorRT stay out."""
    manager = PluginManager(block=["trtplug-converters"])
    manager.load_entry_points()
    manager.register(types.SimpleNamespace(trtplug_contract=1, trtplug_converters=lambda: CONVERTERS), "onnx")
    return Registry(manager.plugins, blocked=manager.blocked, **choices)


def convert(block: fx.GraphModule, asked: Registry) -> onnx.ModelProto:
    """One block's graph as an ONNX model."""
    ctx, values, inputs = OnnxContext(), dict[fx.Node, Any](), []
    for node in block.graph.nodes:
        if node.op == "placeholder":
            values[node] = node.name
            sizes = [size if isinstance(size, int) else None for size in node.meta["val"].shape]
            inputs.append(helper.make_tensor_value_info(node.name, TensorProto.FLOAT, sizes))
        elif node.op == "get_attr":
            values[node] = ctx.constant(operator.attrgetter(str(node.target))(block))
        elif node.op == "call_function":
            args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            found = asked.lookup(node).converter
            assert found is not None, node
            values[node] = found.function(ctx, *args, **kwargs)
    results = [values[node] for node in block.graph.output_node().args[0]]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in results]
    graph = helper.make_graph(ctx.nodes, "block", inputs, outputs, ctx.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


class OnnxBlock(nn.Module):
    """Runs one block."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.model = model
        self.evaluator = ReferenceEvaluator(model)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        names = [item.name for item in self.model.graph.input]
        feeds = {name: value.detach().numpy() for name, value in zip(names, inputs, strict=True)}
        return tuple(torch.from_numpy(result) for result in self.evaluator.run(None, feeds))


def compile(model: nn.Module, args: tuple[Any, ...], **choices: Any) -> tuple[Callable[..., Any], Partition]:
    """The model with its blocks in ONNX and the rest in Torch, and how it was divided."""
    asked = registry(**choices)
    lowered = lower(trtplug.trace(model, args), asked)
    parts = partition(lowered.graph_module, lambda node: bool(asked.lookup(node)))
    blocks = [OnnxBlock(convert(extract(lowered.graph_module, block), asked)) for block in parts.blocks]
    linked = dataclasses.replace(lowered, graph_module=link(lowered.graph_module, parts, blocks))
    return lambda *inputs: run_lowered(linked, *inputs), parts


if __name__ == "__main__":
    net, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(-1)).eval(), torch.randn(2, 4)
    fast, parts = compile(net, (x,))
    print(
        f"{len(parts.blocks)} ONNX block(s); difference to eager {float((fast(x) - net(x)).detach().abs().max()):.1e}"
    )
