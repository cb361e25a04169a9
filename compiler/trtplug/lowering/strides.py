"""Ops whose result depends on how their argument lies in memory are made independent of it."""

from __future__ import annotations

import torch
from torch import fx

from trtplug.lowering import graphs

aten = torch.ops.aten

_VIEWS = frozenset({aten.view.default, aten._unsafe_view.default})
_NEED_CONTIGUOUS = frozenset(
    {aten.as_strided.default, aten.view.dtype, aten.view_as_complex.default, aten.view_as_real.default}
)


def free_of_strides(graph_module: fx.GraphModule) -> bool:
    """Turns ``view`` into ``reshape``, and lets ops that read raw memory read a contiguous copy.

        engine ─ transpose ─ view        →   engine ─ transpose ─ reshape
        engine ─ as_strided              →   engine ─ contiguous ─ as_strided

    Eager's ``view`` works because of the strides that eager's ops give. The same graph with engines or decompositions
    in it has other strides, with the same elements. Nothing writes to what a graph computes, so that a copy in place of
    a view changes no result. Stays: ``as_strided`` of what eager does not give contiguous memory.
    """
    changed = False
    for node in list(graph_module.graph.nodes):
        if node.target in _VIEWS:
            node.target = aten.reshape.default
            changed = True
        elif node.target in _NEED_CONTIGUOUS:
            source = node.args[0]
            value = source.meta.get("val") if isinstance(source, fx.Node) else None
            computed = isinstance(source, fx.Node) and source.op == "call_function"
            if computed and isinstance(value, torch.Tensor) and value.is_contiguous():
                if source.target is aten.contiguous.default:
                    continue
                with graph_module.graph.inserting_before(node):
                    copy = graph_module.graph.call_function(aten.contiguous.default, (source,))
                copy.meta = {**graphs.origin(node), "val": value}
                node.replace_input_with(source, copy)
                changed = True
    return changed
