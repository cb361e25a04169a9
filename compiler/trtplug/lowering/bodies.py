"""The graphs that higher-order operators call: copied from the model, then lowered like the graph that calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx
from torch._ops import HigherOrderOperator

from trtplug.lowering import graphs
from trtplug_registry import free_name


def lower_bodies(graph_module: fx.GraphModule, lower: Callable[[fx.GraphModule], object]) -> None:
    """Puts a lowered copy in place of each body, innermost first. The model's own graphs stay as they are.

    Args:
        graph_module: changed in place.
        lower: changes one body in place, whose own bodies are lowered already.
    """
    for node in _bodies(graph_module):
        body = _copy(graphs.attribute(graph_module, node.target))
        lower_bodies(body, lower)
        kind = _flatten_output(body)
        lower(body)
        _restore_output(body, kind)
        body.recompile()
        name = free_name(graph_module, node.name)
        graph_module.add_module(name, body)
        node.target = name


def _bodies(graph_module: fx.GraphModule) -> list[fx.Node]:
    """The ``get_attr`` nodes that read a graph for a higher-order operator."""
    called = {node: None for node in graph_module.graph.nodes if isinstance(node.target, HigherOrderOperator)}
    read = dict.fromkeys(source for node in called for source in node.all_input_nodes if source.op == "get_attr")
    return [node for node in read if isinstance(graphs.attribute(graph_module, node.target), fx.GraphModule)]


def _copy(body: fx.GraphModule) -> fx.GraphModule:
    """Its graph, with the tensors and the graphs that it reads."""
    return graphs.module_of(body, graphs.copy_of(body.graph), "Body")


def _flatten_output(body: fx.GraphModule) -> type:
    """Lets a body return a tuple, as passes expect. Returns what it returned before: a list, a tuple, or one node."""
    end = graphs.output_node(body.graph)
    results: Any = end.args[0]
    end.args = (tuple(results) if isinstance(results, list | tuple) else (results,),)
    return type(results)


def _restore_output(body: fx.GraphModule, kind: type) -> None:
    end = graphs.output_node(body.graph)
    results: Any = end.args[0]
    if issubclass(kind, fx.Node):
        (results,) = results
    end.args = (list(results) if issubclass(kind, list) else results,)
