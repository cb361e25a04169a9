"""What of a graph's memory its caller gets: asked of one node, and of all at once."""

from __future__ import annotations

import random

import torch
from torch import fx

from trtplug_registry import Returned, aliasing, reaches_output

aten = torch.ops.aten


def random_graph(draw: random.Random, count: int) -> fx.Graph:
    """Views and arithmetic of what was there before; some of it is returned."""
    graph = fx.Graph()
    nodes = [graph.placeholder("x"), graph.get_attr("w")]
    for _ in range(count):
        target = draw.choice([aten.t.default, aten.reshape.default, aten.add.Tensor, aten.relu.default])
        nodes.append(graph.call_function(target, tuple(draw.choices(nodes, k=2 if target is aten.add.Tensor else 1))))
    graph.output(tuple(draw.sample(nodes, draw.randint(0, 3))))
    return graph


def test_all_at_once_is_what_each_is() -> None:
    for seed in range(60):
        graph = random_graph(random.Random(seed), 12)
        returned = Returned(graph)
        assert [node in returned for node in graph.nodes] == [reaches_output(node) for node in graph.nodes], graph


def test_what_takes_the_place_of_a_result_is_returned_with_what_it_is_a_view_of() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    base, other = (graph.call_function(aten.relu.default, (x,)) for _ in range(2))
    view = graph.call_function(aten.t.default, (base,))
    graph.output((other,))
    returned = Returned(graph)
    assert (other in returned, view in returned, base in returned) == (True, False, False)
    other.replace_all_uses_with(view)
    returned.add(view)
    assert all(node in returned for node in (view, base))
    assert x not in returned


def test_a_chain_of_views_is_followed_once(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(aliasing, "may_be_view", lambda target: not asked.append(target))
    graph = fx.Graph()
    node = graph.placeholder("x")
    for _ in range(300):
        node = graph.call_function(aten.t.default, (node,))
    graph.output((node,))
    returned = Returned(graph)
    assert all(node in returned for node in graph.nodes if node.op != "output")
    assert len(asked) == 300
