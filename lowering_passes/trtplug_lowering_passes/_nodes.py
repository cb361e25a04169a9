"""What the passes share: new nodes with metadata, and questions about values that leave no guard behind."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor

from trtplug_registry import free_name
from trtplug_registry.guards import unguarded, unguarded_call

ORIGIN = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom")
"""The metadata that says which part of the model a node comes from."""


def calls(graph: fx.Graph) -> Iterator[fx.Node]:
    """The calls of ops in a graph, which may be changed meanwhile."""
    for node in list(graph.nodes):
        if node.op == "call_function" and isinstance(node.target, OpOverload):
            yield node


def call_before(place: fx.Node, target: Any, *args: Any, name: str | None = None, **kwargs: Any) -> fx.Node:
    """A new call in front of `place`, with its fake value and the origin of `place`."""
    graph = place.graph
    with graph.inserting_before(place):
        node = graph.create_node("call_function", target, args, kwargs, name=name)
    node.meta = {key: place.meta[key] for key in ORIGIN if key in place.meta}
    vals, named = fx.node.map_arg((args, kwargs), lambda item: item.meta["val"])
    with torch.no_grad(), enable_python_dispatcher(), unguarded_call(target, vals):
        node.meta["val"] = target(*vals, **named)
    return node


def cast_value(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A fake tensor in another dtype, with no guard left on its sizes."""
    with torch.no_grad(), unguarded(value):
        return value.to(dtype)


def call_like(node: fx.Node, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A new call in front of `node` that gives the same, so that no fake value has to be computed for it."""
    with node.graph.inserting_before(node):
        new = node.graph.call_function(target, args, kwargs)
    new.meta = {key: node.meta[key] for key in (*ORIGIN, "val") if key in node.meta}
    return new


def tensor_of(node: Any) -> torch.Tensor | None:
    """The fake tensor that a node stands for; None where it stands for none, or for several."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value if isinstance(value, torch.Tensor) else None


def size_key(size: Any) -> Any:
    """An int, or a symbolic size's expression: equal only where the sizes always are."""
    return size if type(size) is int else size.node.expr


def layout(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Everything that decides which element of its memory is where."""
    shape = tuple(map(size_key, tensor.shape))
    return shape, tuple(map(size_key, tensor.stride())), size_key(tensor.storage_offset())


def argument(node: fx.Node, name: str) -> Any:
    """An argument by the schema's name, its default where it is not given."""
    if name in node.kwargs:
        return node.kwargs[name]
    assert isinstance(node.target, OpOverload)
    position = positions(node.target)[name]
    if position < len(node.args):
        return node.args[position]
    return node.target._schema.arguments[position].default_value


@functools.cache
def positions(target: OpOverload) -> Mapping[str, int]:
    return {formal.name: position for position, formal in enumerate(target._schema.arguments)}


def with_arguments(node: fx.Node, change: Callable[[str, Any], Any]) -> None:
    """Rewrites each given argument by its schema's name."""
    assert isinstance(node.target, OpOverload)
    names = [formal.name for formal in node.target._schema.arguments]
    node.args = tuple(change(name, value) for name, value in zip(names, node.args))
    node.kwargs = {name: change(name, value) for name, value in node.kwargs.items()}


def replace(node: fx.Node, new: fx.Node) -> None:
    """Lets the users of `node` use `new`, and removes `node`."""
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


def erase_unused(*nodes: Any) -> None:
    """Removes calls without users, and those of their arguments that are then without. Random ops and writes stay."""
    for node in nodes:
        if not isinstance(node, fx.Node) or node._erased or node.op != "call_function" or node.users:
            continue
        if isinstance(node.target, OpOverload):
            if node.target._schema.is_mutable or torch.Tag.nondeterministic_seeded in node.target.tags:
                continue
            sources = node.all_input_nodes
            node.graph.erase_node(node)
            erase_unused(*sources)


CASTS = frozenset(
    {
        torch.ops.aten._to_copy.default,
        torch.ops.aten.to.dtype,
        torch.ops.aten.to.dtype_layout,
        torch.ops.aten.to.device,
        torch.ops.aten.to.other,
        torch.ops.aten.type_as.default,
    }
)


def is_cast(node: Any) -> bool:
    """Whether a call changes nothing but the dtype."""
    if not isinstance(node, fx.Node) or node.target not in CASTS:
        return False
    before, after = tensor_of(node.args[0]), tensor_of(node)
    return before is not None and after is not None and before.device == after.device


def number(value: Any) -> float | None:
    """A Python number that is no bool."""
    return float(value) if type(value) in (int, float) else None


def sizes_key(sizes: Any) -> tuple[Any, ...]:
    return tuple(map(size_key, sizes))


def only_user(node: fx.Node) -> fx.Node | None:
    """The node's user, where there is exactly one."""
    return next(iter(node.users)) if len(node.users) == 1 else None


# --- constants --------------------------------------------------------------------------------------------------------


def attribute(module: Any, path: Any) -> Any:
    for name in str(path).split("."):
        module = getattr(module, name)
    return module


def constant_of(graph_module: fx.GraphModule, node: Any) -> torch.Tensor | None:
    """The tensor that a ``get_attr`` node reads, unless the graph updates it."""
    if not isinstance(node, fx.Node) or node.op != "get_attr" or node.meta.get("written"):
        return None
    value = attribute(graph_module, node.target)
    return value.detach() if isinstance(value, torch.Tensor) else None


def folded_from(*nodes: Any) -> frozenset[str]:
    """The names of the parameters, buffers and constants that ``get_attr`` nodes hold or were computed from."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, fx.Node) and node.op == "get_attr":
            found |= node.meta.get("folded_from") or {str(node.target)}
    return frozenset(found)


def new_constant(
    graph_module: fx.GraphModule, place: fx.Node, name: str, value: torch.Tensor, sources: frozenset[str]
) -> fx.Node:
    """A buffer, read in front of `place`; ``meta["folded_from"]`` says which of the model's tensors it stems from."""
    name = free_name(graph_module, name)
    graph_module.register_buffer(name, value)
    with place.graph.inserting_before(place):
        node = place.graph.get_attr(name)
    node.meta = {key: place.meta[key] for key in ORIGIN if key in place.meta}
    fakes = (node.meta.get("val") for node in place.graph.nodes)
    fake = next((value for value in fakes if isinstance(value, FakeTensor)), None)
    where = value.device if fake is None else torch.device("meta")
    like = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=where)
    if fake is not None:  # by hand: the same call under the mode takes fifteen times as long
        like = fake.fake_mode.fake_tensor_converter.from_meta_and_device(fake.fake_mode, like, value.device)
    node.meta["val"] = like
    node.meta["folded_from"] = sources
    return node


def constant_made_of(
    graph_module: fx.GraphModule, place: fx.Node, source: fx.Node, suffix: str, value: torch.Tensor, *others: Any
) -> fx.Node:
    """A `new_constant` that was computed from that of `source` (and of `others`), and is named after it."""
    stem = str(source.target).replace(".", "_").removeprefix("folded_")
    return new_constant(graph_module, place, f"folded_{stem}{suffix}", value, folded_from(source, *others))


def drop_unread(graph_module: fx.GraphModule, nodes: Iterable[Any]) -> None:
    """Removes those ``get_attr`` nodes that nobody uses, and from the module what no node reads any more."""
    graph = graph_module.graph
    gone = {node for node in nodes if isinstance(node, fx.Node) and node.op == "get_attr" and not node.users}
    for node in gone:
        graph.erase_node(node)
    read = {str(node.target) for node in graph.find_nodes(op="get_attr")}
    for path in {str(node.target) for node in gone} - read:
        owner, _, last = path.rpartition(".")
        delattr(attribute(graph_module, owner) if owner else graph_module, last)
