"""Dynamo's graph as ATen calls that write nothing.

Nearly every graph is traced before composite ops are taken apart, and its writes become values in place. What that
cannot express (autocast, writes through views, batch normalization in training) goes through AOTAutograd, which takes
about half a second; composite ops stay whole there too.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import TracingContext, detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta

from trtplug.lowering import graphs
from trtplug.lowering.functionalize import remove_writes, writes

_HOLDER = re.compile(r"^[LG]\['\w+'\]\.?")
"""``L['self'].`` and the like, as Dynamo names a local or global variable."""


@dataclasses.dataclass(frozen=True)
class Traced:
    """A graph of Dynamo's that writes nothing.

    Attributes:
        graph_module: its placeholders are Dynamo's; its output is a flat tuple, Dynamo's outputs first, then the final
            values of `written`.
        written: positions of the inputs that Dynamo's graph writes to.
    """

    graph_module: fx.GraphModule
    written: tuple[int, ...]


def fake_inputs(placeholders: Sequence[fx.Node], inputs: Sequence[Any]) -> list[Any]:
    """Fake inputs, symbolic exactly where Dynamo decided so, in the symbols that its guards know."""
    mode = detect_fake_mode(list(inputs))
    assert mode is not None
    return [_fake(node, value, mode) for node, value in zip(placeholders, inputs, strict=True)]


def _fake(node: fx.Node, value: Any, mode: Any) -> Any:
    if not isinstance(value, torch.Tensor) or isinstance(value, FakeTensor):
        return value
    tracing = TracingContext.try_get()
    context = tracing.tensor_to_context.get(value) if tracing is not None else None
    source = getattr(node, "_dynamo_source", None) if context is None else context.tensor_source
    return mode.from_tensor(value, static_shapes=context is None, symbolic_context=context, source=source)


def trace(graph_module: fx.GraphModule, fakes: Sequence[Any]) -> Traced:
    """Traces a graph of Dynamo's on its fake inputs. It is not changed.

    Raises:
        Exception: whatever AOTAutograd raises for what it does not take.
    """
    if _autocasts(graph_module):
        return _through_autograd(graph_module, fakes)
    traced = _before_dispatch(graph_module, fakes)
    if not writes(traced):
        return Traced(traced, ())
    final = remove_writes(traced)
    places = {node: place for place, node in enumerate(traced.graph.find_nodes(op="placeholder"))}
    if final is None or any(node not in places for node in final):
        return _through_autograd(graph_module, fakes)
    _set_output(traced, (*graphs.output_node(traced.graph).args[0], *final.values()))  # type: ignore[misc]  # a tuple
    return Traced(traced, tuple(places[node] for node in final))


def _autocasts(graph_module: fx.GraphModule) -> bool:
    """Whether autocast is on around the graph, or in it."""
    if torch._C._is_any_autocast_enabled():
        return True
    inner = [item for node in graph_module.graph.nodes for item in graphs.subgraphs(graph_module, node)]
    enters = any(node.target is torch.amp.autocast_mode._enter_autocast for node in graph_module.graph.nodes)
    return enters or any(map(_autocasts, inner))


def _before_dispatch(graph_module: fx.GraphModule, fakes: Sequence[Any]) -> fx.GraphModule:
    mode = detect_fake_mode(list(fakes))
    assert mode is not None

    def run(*inputs: Any) -> Any:
        return fx.Interpreter(graph_module).run(*inputs)

    with mode, enable_python_dispatcher(), torch.no_grad(), preserve_node_meta():
        traced = make_fx(run, tracing_mode="real", pre_dispatch=True, _allow_non_fake_inputs=True)(*fakes)
    _take_names(traced, graph_module)
    results = graphs.output_node(traced.graph).args[0]
    _set_output(traced, tuple(results) if isinstance(results, list | tuple) else (results,))
    return traced


def _through_autograd(graph_module: fx.GraphModule, fakes: Sequence[Any]) -> Traced:
    from torch._functorch.aot_autograd import aot_export_module
    from torch.export.exported_program import (
        _override_composite_implicit_decomp,
        _split_decomp_table_to_cia_and_python_decomp,
    )

    mode = detect_fake_mode(list(fakes))
    assert mode is not None
    whole, _ = _split_decomp_table_to_cia_and_python_decomp({})
    with mode, _override_composite_implicit_decomp(whole), torch.no_grad():
        traced, signature = aot_export_module(graph_module, fakes, trace_joint=False, decompositions={})
    assert isinstance(traced, fx.GraphModule)
    if signature.parameters or signature.buffers:
        raise NotImplementedError("Dynamo's graph has tensors of its own")
    results: Any = graphs.output_node(traced.graph).args[0]
    names = {str(output): str(given) for output, given in signature.user_inputs_to_mutate.items()}
    count = len(names)
    places = {str(name): place for place, name in enumerate(signature.user_inputs)}
    _set_output(traced, (*results[count:], *results[:count]))
    _take_names(traced, graph_module)
    return Traced(traced, tuple(places[names[str(node)]] for node in results[:count]))


def _take_names(traced: fx.GraphModule, graph_module: fx.GraphModule) -> None:
    """Calls the inputs as Dynamo does, and modules as the model does: without the variable that holds the model."""
    pairs = zip(traced.graph.find_nodes(op="placeholder"), graph_module.graph.find_nodes(op="placeholder"))
    for node, original in pairs:
        node._rename(original.name)
    for node in traced.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if stack:
            node.meta["nn_module_stack"] = {key: (_HOLDER.sub("", path), kind) for key, (path, kind) in stack.items()}


def _set_output(graph_module: fx.GraphModule, results: tuple[Any, ...]) -> None:
    graphs.output_node(graph_module.graph).args = (results,)
    graph_module.graph.eliminate_dead_code(fx.Node.is_impure)
    graph_module.recompile()
