"""Sizes come from the inputs, once each."""

from __future__ import annotations

import pytest
import torch
from conftest_passes import apply, graph_of

from trtplug_lowering_passes import remove_dead_code, sizes_from_inputs

X = torch.randn(6, 4)


def size_nodes(graph):
    nodes = [node for node in graph.graph.nodes if isinstance(node.meta.get("val"), torch.SymInt)]
    return [node for node in nodes if node.op == "call_function"]


def model(x, y):
    hidden = torch.relu(x)
    n, again = hidden.shape[0], torch.exp(y).shape[0]
    return hidden.reshape(n * 4), y.reshape(again * 2, 2), torch.full((x.shape[0] * 4,), 1.0), torch.arange(n // 2 + 1)


def test_sizes_are_read_from_inputs_and_written_once():
    graph = graph_of(model, X, X + 1, dynamic=True)
    assert apply(sizes_from_inputs, graph, X, X + 1)
    remove_dead_code.function(graph)
    nodes = size_nodes(graph)
    for node in nodes:
        assert all(source.op == "placeholder" or source in nodes for source in node.all_input_nodes), node.format_node()
    expressions = [node.meta["val"].node.expr for node in nodes]
    assert len(set(expressions)) == len(expressions)
    order = list(graph.graph.nodes)
    assert order.index(nodes[-1]) < min(
        order.index(node)
        for node in order
        if isinstance(node.meta.get("val"), torch.Tensor) and node.op == "call_function"
    )


@pytest.mark.parametrize("size", [2, 6, 13])
def test_at_other_sizes(size):
    graph = graph_of(model, X, X + 1, dynamic=True)
    sizes_from_inputs.function(graph)
    remove_dead_code.function(graph)
    graph.recompile()
    args = torch.randn(size, 4), torch.randn(size, 4)
    for one, two in zip(graph(*args), model(*args), strict=True):
        assert torch.equal(one, two)


def test_static_and_data_dependent_sizes_stay():
    graph = graph_of(lambda x: (torch.nonzero(x).sum(0),), X)
    assert not apply(sizes_from_inputs, graph, X)
    graph = graph_of(lambda x: (x[x > 0].reshape(-1, 1).sum(0),), X)
    apply(sizes_from_inputs, graph, X)
