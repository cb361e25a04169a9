"""Small tools on FX graphs that the steps of the lower stage share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch._ops import HigherOrderOperator, OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from trtplug_registry import free_name

_ORIGIN = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom")
"""Metadata that says where a node comes from; a node that replaces another inherits it."""


def origin(node: fx.Node) -> dict[str, Any]:
    return {key: node.meta[key] for key in _ORIGIN if key in node.meta}


def module_of(root: torch.nn.Module, graph: fx.Graph, name: str) -> fx.GraphModule:
    """A graph module whose code is written when it is first run: most are only passed on."""
    try:
        from torch.fx._lazy_graph_module import _make_graph_module, _use_lazy_graph_module
    except ImportError:  # private; without it the same, slower
        return fx.GraphModule(root, graph, name)
    with _use_lazy_graph_module(True):
        made: fx.GraphModule = _make_graph_module(root, graph, name)
    return made


def copy_of(graph: fx.Graph) -> fx.Graph:
    """The graph once more, its nodes called alike."""
    copied = fx.Graph()
    image: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        image[node] = copied.node_copy(node, lambda source: image[source])
        image[node].name = node.name  # a copy of "input" would be called "input_1", after the builtin
    return copied


def values(args: Any) -> Any:
    """Arguments with each node replaced by its fake value."""
    return fx.node.map_arg(args, lambda node: node.meta.get("val"))


def facts(value: Any) -> Any:
    """What a trace of arguments may depend on, hashable; nodes count by their fake values."""
    if isinstance(value, fx.Node):
        return facts(value.meta.get("val"))
    if isinstance(value, torch.Tensor):
        return ("tensor", sizes(value.shape), sizes(value.stride()), value.dtype, value.device, value.layout)
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return (type(value), value.node.expr)
    if isinstance(value, list | tuple):
        return tuple(map(facts, value))
    if isinstance(value, Mapping):
        return tuple((name, facts(item)) for name, item in value.items())
    return (type(value), repr(value) if isinstance(value, float | complex) else value)  # 0.0 == -0.0, and nan != nan


def sizes(shape: Any) -> tuple[Any, ...]:
    """A shape with symbolic sizes as their expressions: equal only where the sizes always are."""
    return tuple(size if type(size) is int else size.node.expr for size in shape)


def fake_mode_of(graph: fx.Graph) -> FakeTensorMode:
    """The mode of the graph's fake values; a new one if there is no tensor in it."""
    for node in graph.nodes:
        for value in tensors(node.meta.get("val")):
            if isinstance(value, FakeTensor):
                return value.fake_mode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    return FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)


def tensors(value: Any) -> list[torch.Tensor]:
    """The tensors in a ``meta["val"]``."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors(item)]
    return []


def output_node(graph: fx.Graph) -> fx.Node:
    node: fx.Node
    for node in reversed(graph.nodes):
        if node.op == "output":
            return node
    raise AssertionError("a graph without an output")


def subgraphs(module: torch.nn.Module, node: fx.Node) -> list[fx.GraphModule]:
    """The graphs that a higher-order op calls."""
    # overloads first: the operators' class is abstract, which takes Python to check
    if isinstance(node.target, OpOverload) or not isinstance(node.target, HigherOrderOperator):
        return []
    found = [attribute(module, arg.target) for arg in node.all_input_nodes if arg.op == "get_attr"]
    return [item for item in found if isinstance(item, fx.GraphModule)]


def attribute(module: torch.nn.Module, path: Any) -> Any:
    value: Any = module
    for name in str(path).split("."):
        value = getattr(value, name)
    return value


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's data as uint8[bytes], contiguous."""
    flat = tensor.detach().contiguous().reshape(-1)
    if flat.stride(0) != 1:  # one element, as often as it may be: contiguous for Torch, but not to read as bytes
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8)


def assign(module: torch.nn.Module, path: str, value: Any) -> None:
    """Sets an attribute by its qualified name, with plain modules on the way; a tensor becomes a buffer."""
    *names, last = path.split(".")
    for name in names:
        if not isinstance(getattr(module, name, None), torch.nn.Module):
            module.add_module(name, torch.nn.Module())
        module = getattr(module, name)
    if isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter):
        module.register_buffer(last, value)
    else:
        setattr(module, last, value)


def inline(
    graph_module: fx.GraphModule,
    inner: fx.GraphModule,
    operands: Sequence[Any],
    place: fx.Node,
    *,
    prefix: str = "",
    meta: Mapping[str, Any] | None = None,
) -> Any:
    """Copies a graph in front of a node, its placeholders replaced by the operands. Returns its output, mapped.

    Args:
        prefix: of the new nodes' names.
        meta: what the new nodes' metadata is besides ``val``; None keeps the inner graph's own.
    """
    graph = graph_module.graph
    image: dict[fx.Node, Any] = {}
    remaining = iter(operands)
    with graph.inserting_before(place):
        for node in inner.graph.nodes:
            if node.op == "placeholder":
                image[node] = next(remaining)
                continue
            if node.op == "output":
                return fx.node.map_arg(node.args[0], lambda item: image[item])
            if node.op == "get_attr":
                name = free_name(graph_module, f"{prefix}{node.target}".replace(".", "_"))
                assign(graph_module, name, attribute(inner, node.target))
                new = graph.create_node("get_attr", name, name=f"{prefix}{node.name}")
            else:
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda item: image[item])
                new = graph.create_node(node.op, node.target, args, kwargs, name=f"{prefix}{node.name}")
            new.meta = dict(node.meta) if meta is None else {**meta, "val": node.meta.get("val")}
            image[node] = new
    raise AssertionError("a graph without an output")


def replace_results(node: fx.Node, results: Any) -> bool:
    """Lets the node's users use `results` instead: one value, or a sequence where the users take its items.

    Changes nothing and returns False where some user takes the sequence as a whole.
    """
    import operator

    if not isinstance(results, list | tuple):
        node.replace_all_uses_with(results)
        return True
    users = list(node.users)
    if any(user.target is not operator.getitem or not isinstance(user.args[1], int) for user in users):
        return False
    for user in users:
        result = results[user.args[1]]  # type: ignore[index]  # checked above
        if isinstance(result, fx.Node):
            user.replace_all_uses_with(result)
        else:
            substitute(user, result)
        user.graph.erase_node(user)
    return True


def substitute(node: fx.Node, constant: Any) -> None:
    """Lets the node's users use a constant instead."""
    for user in list(node.users):
        user.args, user.kwargs = fx.node.map_arg(
            (user.args, user.kwargs), lambda item: constant if item is node else item
        )


def is_mutable(target: Any) -> bool:
    return isinstance(target, OpOverload) and target._schema.is_mutable


def argument(node: fx.Node, name: str) -> Any:
    """A call's argument by the schema's name, its default where it is not given."""
    assert isinstance(node.target, OpOverload)
    if name in node.kwargs:
        return node.kwargs[name]
    for position, formal in enumerate(node.target._schema.arguments):
        if formal.name == name:
            return node.args[position] if position < len(node.args) else formal.default_value
    return None
