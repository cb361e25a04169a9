"""Graphs to try a pass on, and what must hold after it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from trtplug_registry import LoweringPass


def graph_of(function: Callable[..., Any] | nn.Module, *args: Any, dynamic: bool = False) -> fx.GraphModule:
    """A graph as lowering's passes see it: weights are attributes, fake values in ``meta["val"]``."""
    from trtplug.lowering.lift import lift

    class Model(nn.Module):
        def forward(self, *inputs):
            return function(*inputs)

    model = function if isinstance(function, nn.Module) else Model()
    shapes = None
    if dynamic:
        dims = tuple({0: torch.export.Dim.DYNAMIC(max=64)} for _ in args)
        shapes = dims if isinstance(function, nn.Module) else (dims,)
    args = copy.deepcopy(args)  # export marks tensors as dynamic, and leaves the marks where it fails
    exported = torch.export.export(model, args, dynamic_shapes=shapes, strict=False)
    return lift(exported).graph_module


def targets(graph_module: fx.GraphModule) -> list[str]:
    """The calls in order, as ``add.Tensor``."""
    return [
        str(getattr(node.target, "__name__", node.target))
        for node in graph_module.graph.nodes
        if node.op == "call_function"
    ]


def run(graph_module: fx.GraphModule, *args: Any) -> list[Any]:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return list(fx.Interpreter(graph_module).run(*copy.deepcopy(args)))


def apply(item: LoweringPass, graph_module: fx.GraphModule, *args: Any, tolerance: float = 0) -> bool:
    """Runs a pass and checks law 7: results, metadata, names of inputs and outputs, idempotence.

    Args:
        tolerance: relative, and absolute beside elements around 1, for passes that reorder arithmetic.
    """
    wanted, before = run(graph_module, *args), _interface(graph_module)
    changed = item.function(graph_module)
    graph_module.graph.lint()
    assert _interface(graph_module) == before
    for one, two in zip(run(graph_module, *args), wanted, strict=True):
        if isinstance(two, torch.Tensor):
            torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance, equal_nan=True)
        else:
            assert one == two
    for node, value in zip(*_values(graph_module, *args), strict=True):
        _assert_metadata(node, value)
    assert item.function(graph_module) is False, "a second run changes nothing"
    return changed


def _interface(graph_module: fx.GraphModule) -> Any:
    nodes = list(graph_module.graph.nodes)
    inputs = [(node.name, str(node.meta.get("val"))) for node in nodes if node.op == "placeholder"]
    results = [
        (item.meta["val"].dtype, str(item.meta["val"].shape)) if isinstance(item.meta["val"], torch.Tensor) else ""
        for item in nodes[-1].args[0]
        if isinstance(item, fx.Node)
    ]
    return inputs, results


def _values(graph_module: fx.GraphModule, *args: Any) -> tuple[list[fx.Node], list[Any]]:
    found: dict[fx.Node, Any] = {}

    class Watch(fx.Interpreter):
        def run_node(self, node):
            found[node] = super().run_node(node)
            return found[node]

    with torch.no_grad():
        Watch(graph_module).run(*copy.deepcopy(args))
    return list(found), list(found.values())


def _assert_metadata(node: fx.Node, value: Any) -> None:
    """Every node's fake value has the dtype, rank and static sizes that running it gives."""
    fake = node.meta.get("val")
    if node.op in ("output", "placeholder") or not isinstance(value, torch.Tensor):
        return
    assert isinstance(fake, torch.Tensor), node.format_node()
    assert (fake.dtype, fake.dim()) == (value.dtype, value.dim()), node.format_node()
    for ours, real in zip(fake.shape, value.shape, strict=True):
        assert not isinstance(ours, int) or ours == real, node.format_node()
