"""Which nodes of a graph share memory, and by which views."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from trtplug.lowering import graphs

_AT_TIMES = frozenset(f"aten::{name}" for name in ("to", "reshape", "contiguous", "flatten", "type_as"))
"""Ops whose schemas say "a view", and whose result is one only at times."""


@dataclasses.dataclass(frozen=True)
class Aliases:
    """What shares memory with what.

    Attributes:
        parent: for each view and in-place call, the node whose memory its result is, where there is one; for one of
            several results (``split(x)[0]``) that is the tensor that was split.
        base: for each node with tensors, the node that its memory comes from first.
        doubtful: bases whose memory overlaps another's (two names of one weight), or is that of several nodes at once.
    """

    parent: dict[fx.Node, fx.Node]
    base: dict[fx.Node, fx.Node]
    doubtful: set[fx.Node]

    def chain(self, node: fx.Node) -> list[fx.Node]:
        """From a node up to its base, both included."""
        found = [node]
        while found[-1] in self.parent:
            found.append(self.parent[found[-1]])
        return found


def find_aliases(graph_module: fx.GraphModule) -> Aliases:
    """Follows memory through a graph. Linear in its size."""
    graph = graph_module.graph
    told = _storages_are_told(graph)
    found = Aliases({}, {}, set())
    holders: dict[Any, fx.Node] = {}
    for node in graph.nodes:
        tensors = graphs.tensors(node.meta.get("val"))
        if node.op == "output" or not tensors:
            continue
        source = _source(node, told)
        if source is not None and source in found.base:
            if graphs.is_mutable(source.target):  # another name for what it writes to; a chain of them stays short
                source = found.parent.get(source, source)
            several = node.target is operator.getitem and source in found.parent
            found.parent[node] = found.parent[source] if several else source
        base = found.base[node] = node if source is None else found.base.get(source, node)
        for key in _memory(graph_module, node, tensors if told else []):
            holder = holders.setdefault(key, base)
            if holder is not base:
                found.doubtful.update((holder, base))
    return found


def _storages_are_told(graph: fx.Graph) -> bool:
    """Whether fake values share storage where the real ones do; not so in a program that was loaded from a file."""
    views = 0
    for node in graph.nodes:
        source = _certain_source(node)
        ours, theirs = (graphs.tensors(n.meta.get("val")) if n is not None else [] for n in (node, source))
        if ours and theirs:
            views += 1
            if ours[0].untyped_storage()._cdata != theirs[0].untyped_storage()._cdata:
                return False
    return views > 0


def _memory(graph_module: fx.GraphModule, node: fx.Node, tensors: list[torch.Tensor]) -> list[Any]:
    """What tells the memory of a node from that of others."""
    keys: list[Any] = [tensor.untyped_storage()._cdata for tensor in tensors]
    if node.op == "get_attr":
        real = graphs.attribute(graph_module, node.target)
        if isinstance(real, torch.Tensor) and type(real) in (torch.Tensor, torch.nn.Parameter):
            keys.append(("memory", real.untyped_storage().data_ptr()))
    return keys


def _source(node: fx.Node, told: bool) -> fx.Node | None:
    """The argument whose memory a call returns, or None."""
    certain = _certain_source(node)
    if certain is not None or node.op != "call_function" or not isinstance(node.target, OpOverload):
        return certain
    schema = node.target._schema
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(node.target.name(), "CompositeImplicitAutograd")
    if schema.name not in _AT_TIMES and not composite:
        return None
    values = {source: graphs.tensors(source.meta.get("val")) for source in node.all_input_nodes}
    results = graphs.tensors(node.meta.get("val"))
    if not told:
        results = _computed_again(node)
    storages = {tensor.untyped_storage()._cdata for tensor in results}
    for source, tensors in values.items():
        if any(tensor.untyped_storage()._cdata in storages for tensor in tensors):
            return source
    return None


def _certain_source(node: fx.Node) -> fx.Node | None:
    """The same, where the op's schema tells."""
    if node.target is operator.getitem:
        source: Any = node.args[0]
        return source if isinstance(source, fx.Node) else None
    if not isinstance(node.target, OpOverload):
        return None
    schema = node.target._schema
    if schema.name in _AT_TIMES or not any(item.alias_info is not None for item in schema.returns):
        return None
    for formal in schema.arguments:
        if formal.alias_info is not None:
            value = graphs.argument(node, formal.name)
            return value if isinstance(value, fx.Node) else None
    return None


def _computed_again(node: fx.Node) -> list[torch.Tensor]:
    """The call's results on the fake values at hand, which tell what they share; as strides decide, that is certain."""
    target: Any = node.target
    results = graphs.tensors(node.meta.get("val"))
    sources = [tensor for source in node.all_input_nodes for tensor in graphs.tensors(source.meta.get("val"))]
    if all(result.dtype != source.dtype for result in results for source in sources):
        return []
    try:
        with torch.no_grad():
            return graphs.tensors(target(*graphs.values(node.args), **graphs.values(dict(node.kwargs))))
    except Exception:  # what cannot be computed outside of its trace is taken for a view of all it reads
        return sources
