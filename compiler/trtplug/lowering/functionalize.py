"""Writes become values: in-place ops are replaced by their functional forms, and regions of grad mode are dissolved.

``exported.run_decompositions({})`` does all of this for any graph, by tracing it anew, which takes seconds. What nearly
every model needs (``relu_`` on a fresh tensor, a counter that is a buffer, a cache written through slices) is done here
in place; `lift` falls back on the retrace for the rest (autocast regions, batch normalization in training).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from trtplug.lowering import graphs
from trtplug.lowering.aliases import find_aliases
from trtplug.lowering.writes import Rewriting, Write, plan_write

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


def hidden_writers(graph_module: fx.GraphModule) -> dict[OpOverload, Callable[..., Any]]:
    """Decompositions of ops that write to running statistics and that `torch.export` keeps whole, if it calls them."""
    target = torch.ops.aten.instance_norm.default
    called = graph_module.graph.find_nodes(op="call_function", target=target)
    return {target: _instance_norm} if any(map(_writes_hidden, called)) else {}


def _instance_norm(
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> torch.Tensor:
    """Each instance is a channel of one batch norm; its running statistics are the means of theirs."""
    count, channels = input.shape[:2]
    given = (weight, bias, running_mean, running_var)
    scale, shift, mean, var = [None if tensor is None else tensor.repeat(count) for tensor in given]
    x = input.reshape(1, count * channels, *input.shape[2:])
    result = torch.batch_norm(x, scale, shift, mean, var, use_input_stats, momentum, eps, cudnn_enabled)
    for running, moved in ((running_mean, mean), (running_var, var)):
        if use_input_stats and running is not None and moved is not None:
            running.copy_(moved.view(count, channels).mean(0))
    return result.reshape(input.shape)


def drop_detaches(graph_module: fx.GraphModule) -> None:
    """Removes ``detach_``, which writes only the gradient's history; ``torch.tensor(…)`` in a model leaves one."""
    for node in list(graph_module.graph.nodes):
        if node.target is torch.ops.aten.detach_.default:
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)


def remove_writes(graph_module: fx.GraphModule) -> dict[fx.Node, fx.Node] | None:
    """Replaces in-place calls by values; see `trtplug.lowering.writes`.

        c ─ relu_ ─ r ─┐            c ─ relu ─ r ─┐        cache ─ slice ─ copy_(x)         x ─┐
        └───────────── add     →             └─── add      └─────────────── add     →   cache ─ cat ─ add

    Returns:
        For each placeholder or ``get_attr`` node that was written, the node of its final value; None, with the graph
        unchanged, where some write is beyond this: in a subgraph, to running statistics, to what shares memory with
        another input, through a view that cannot be written back.
    """
    graph = graph_module.graph
    aliases = find_aliases(graph_module)
    plan: dict[fx.Node, Write] = {}
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if any(writes(inner) for inner in graphs.subgraphs(graph_module, node)) or _writes_hidden(node):
            return None
        if graphs.is_mutable(node.target):
            write = plan_write(node, aliases)
            if write is None:
                return None
            plan[node] = write
    final = Rewriting(graph, plan, aliases).run()
    return {base: value for base, value in final.items() if base.op != "call_function"}
