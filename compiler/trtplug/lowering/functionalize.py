"""Writes become values: in-place ops are replaced by their functional forms, and regions of grad mode are dissolved.

``exported.run_decompositions({})`` does all of this for any graph, by tracing it anew, which takes seconds. What nearly
every model needs (``relu_`` on a fresh tensor, a counter that is a buffer) is done here in place; `lift` falls back on
the retrace for the rest (writes through views, autocast regions, batch normalization in training).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from trtplug.lowering import graphs

_HIDDEN_WRITERS = ("batch_norm", "native_batch_norm", "cudnn_batch_norm", "instance_norm", "miopen_batch_norm")
"""Ops that update running statistics though their schemas do not say so."""


def dissolve_regions(graph_module: fx.GraphModule) -> bool:
    """Inlines what runs under another grad mode or under disabled autocast; neither changes an inference's numbers.

    Returns:
        False where a region with autocast enabled is left, whose casts only a retrace makes explicit.
    """
    graph = graph_module.graph
    found = True
    while found:
        found = False
        for node in list(graph.nodes):
            name = getattr(node.target, "__name__", "") if node.op == "call_function" else ""
            if name == "wrap_with_set_grad_enabled":
                _, region, *operands = node.args
            elif name == "wrap_with_autocast":
                if node.args[2]:
                    return False
                _, _, _, _, region, *operands = node.args
            else:
                continue
            inner = graphs.attribute(graph_module, region.target)
            results = graphs.inline(graph_module, inner, operands, node)
            if not graphs.replace_results(node, results):
                return False
            graph.erase_node(node)
            if not region.users:
                graph.erase_node(region)
            found = True
    return True


def writes(graph_module: fx.GraphModule) -> bool:
    """Whether the graph, or one that it calls, writes to a tensor."""
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and (graphs.is_mutable(node.target) or _writes_hidden(node)):
            return True
        if any(writes(inner) for inner in graphs.subgraphs(graph_module, node)):
            return True
    return False


def _writes_hidden(node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, OpOverload) or target.namespace != "aten":
        return False
    if target._schema.name.removeprefix("aten::") not in _HIDDEN_WRITERS:
        return False
    training = any(graphs.argument(node, name) is True for name in ("training", "train", "use_input_stats"))
    return training and graphs.argument(node, "running_mean") is not None


_AT_TIMES = frozenset(f"aten::{name}" for name in ("to", "reshape", "contiguous", "flatten", "type_as"))
"""Ops whose schemas say "a view", and whose result is one only at times."""


def drop_detaches(graph_module: fx.GraphModule) -> None:
    """Removes ``detach_``, which writes only the gradient's history; ``torch.tensor(…)`` in a model leaves one."""
    for node in list(graph_module.graph.nodes):
        if node.target is torch.ops.aten.detach_.default:
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)


@dataclasses.dataclass(frozen=True)
class _Write:
    node: fx.Node
    written: fx.Node
    functional: OpOverload
    group: int


def remove_writes(graph_module: fx.GraphModule) -> dict[fx.Node, fx.Node] | None:
    """Replaces in-place ops where no view of the written tensor exists.

    Before: ``c = conv(x); r = relu_(c); y = add(c, r)``; after: ``c = conv(x); r = relu(c); y = add(r, r)``.

    Returns:
        For each placeholder or ``get_attr`` node that was written, the node of its final value; None, with the graph
        unchanged, where some write is beyond this.
    """
    graph = graph_module.graph
    groups = _alias_groups(graph_module)
    members: dict[int, list[fx.Node]] = {}
    for node, group in groups.items():
        members.setdefault(group, []).append(node)
    plan: dict[fx.Node, _Write] = {}
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if any(writes(inner) for inner in graphs.subgraphs(graph_module, node)) or _writes_hidden(node):
            return None
        if graphs.is_mutable(node.target):
            write = _plan(node, groups)
            if write is None:
                return None
            plan[node] = write
    for write in plan.values():
        base, *rest = members[write.group]
        if any(member not in plan for member in rest) or graphs.is_mutable(base.target):
            return None  # a view, or another tensor over the same memory
    final = _replace(graph, plan, groups)
    return {members[group][0]: value for group, value in final.items() if members[group][0].op != "call_function"}


def _plan(node: fx.Node, groups: dict[fx.Node, int]) -> _Write | None:
    schema = node.target._schema  # type: ignore[union-attr]  # an OpOverload
    written = [formal for formal in schema.arguments if formal.alias_info is not None and formal.alias_info.is_write]
    if len(written) != 1 or written[0].kwarg_only or len(schema.returns) > 1:
        return None
    target = graphs.argument(node, written[0].name)
    space, _, name = schema.name.partition("::")
    if not isinstance(target, fx.Node) or target not in groups or not name.endswith("_"):
        return None
    packet = getattr(getattr(torch.ops, space), name.removesuffix("_"), None)
    functional = getattr(packet, schema.overload_name or "default", None)
    if functional is None or functional._schema.is_mutable:
        return None
    if [formal.name for formal in functional._schema.arguments] != [formal.name for formal in schema.arguments]:
        return None
    return _Write(node, target, functional, groups[target])


def _replace(graph: fx.Graph, plan: dict[fx.Node, _Write], groups: dict[fx.Node, int]) -> dict[int, fx.Node]:
    written = {write.group for write in plan.values()}
    current: dict[int, fx.Node] = {}

    def latest(node: fx.Node) -> fx.Node:
        return current.get(groups.get(node, -1), node)

    for node in list(graph.nodes):
        if any(groups.get(source) in written for source in node.all_input_nodes):
            node.args, node.kwargs = fx.node.map_arg((node.args, node.kwargs), latest)
        write = plan.get(node)
        if write is not None:
            current[write.group] = _functional(graph, write)
    for write in reversed(plan.values()):
        graph.erase_node(write.node)
    return current


def _functional(graph: fx.Graph, write: _Write) -> fx.Node:
    node, wanted = write.node, write.written.meta["val"]
    with graph.inserting_before(node):
        name = node.name.replace("_", "", 1) if node.name.startswith("_") else node.name.rstrip("_")
        result = graph.create_node("call_function", write.functional, node.args, node.kwargs, name=name or None)
        result.meta = dict(node.meta)
        with torch.no_grad():
            value = write.functional(*graphs.values(node.args), **graphs.values(dict(node.kwargs)))
        result.meta["val"] = value
        if value.dtype != wanted.dtype:  # an in-place op keeps its tensor's dtype
            cast = torch.ops.aten._to_copy.default
            inner = result
            result = graph.call_function(cast, (inner,), {"dtype": wanted.dtype})
            result.meta = {**dict(node.meta), "val": cast(value, dtype=wanted.dtype)}
    return result


def _alias_groups(graph_module: fx.GraphModule) -> dict[fx.Node, int]:
    """A number for each node with tensors, equal where they share memory. The first of a group comes first."""
    group_of: dict[Any, int] = {}
    parent: list[int] = []

    def root(number: int) -> int:
        while parent[number] != number:
            number = parent[number]
        return number

    def join(keys: list[Any]) -> int:
        known = sorted({root(group_of[key]) for key in keys if key in group_of})
        if not known:
            parent.append(len(parent))
            known = [len(parent) - 1]
        for other in known[1:]:
            parent[other] = known[0]
        for key in keys:
            group_of[key] = known[0]
        return known[0]

    first: dict[fx.Node, int] = {}
    for node in graph_module.graph.nodes:
        found = graphs.tensors(node.meta.get("val"))
        if node.op == "output" or not found:
            continue
        keys: list[Any] = [tensor.untyped_storage()._cdata for tensor in found]
        if node.op == "get_attr":
            real = graphs.attribute(graph_module, node.target)
            if isinstance(real, torch.Tensor) and type(real) in (torch.Tensor, torch.nn.Parameter):
                keys.append(("memory", real.untyped_storage().data_ptr()))
        if _shares_memory(node.target):
            keys += [("node", source) for source in node.all_input_nodes[:1] if source in first]
        first[node] = join([*keys, ("node", node)])
    return {node: root(number) for node, number in first.items()}


def _shares_memory(target: Any) -> bool:
    """Whether an op's result is always a view of its argument (``to`` and the like only where the fake values say)."""
    if not isinstance(target, OpOverload) or target._schema.name in _AT_TIMES:
        return False
    return any(item.alias_info is not None for item in target._schema.returns)
