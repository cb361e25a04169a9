"""What a registry remembers, and for how long."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from conftest_registry import plugin_of
from torch.fx import Graph

from trtplug_registry import FLOATS, Domain, Registry, Static, Tensor, converter
from trtplug_registry.memory import MOST_GRAPHS, call_key

aten = torch.ops.aten


@converter(aten.leaky_relu.default, Domain(self=Tensor(FLOATS, rank=(0, 3)), negative_slope=Static(0.0, 1.0)))
def leaky_relu(ctx, self, negative_slope=0.01):
    return ctx.unary("ABS", self)


@pytest.fixture
def registry():
    return Registry([plugin_of("house", leaky_relu, distribution="trtplug")])


def chain(*slopes, rank=2):
    graph = Graph()
    node = graph.placeholder("x")
    node.meta["val"] = torch.empty((2,) * rank, device="meta")
    for slope in slopes:
        source, node = node, graph.call_function(aten.leaky_relu.default, (node, slope))
        node.meta["val"] = source.meta["val"]
    graph.output(node)
    return graph, [node for node in graph.nodes if node.op == "call_function"]


def test_equal_calls_of_a_graph_share_a_verdict_and_others_do_not(registry):
    _, (one, two, other, text, wide) = chain(0.5, 0.5, 2.0, True, 1)
    assert registry.lookup(one) is registry.lookup(two)
    assert not registry.lookup(other)
    assert "2.0" in str(registry.lookup(other))
    assert registry.lookup(text) is not registry.lookup(wide)
    _, (deep,) = chain(0.5, rank=4)
    assert not registry.lookup(deep)


@pytest.mark.parametrize(("one", "two"), [(1, True), (1, 1.0), (0.0, -0.0), ([1], [True]), (None, False), ("a", ["a"])])
def test_numbers_of_other_types_or_signs_make_another_call(one, two):
    op = aten.leaky_relu.default
    assert call_key(op, [one]) == call_key(op, [one])
    assert call_key(op, [one]) != call_key(op, [two])


def test_what_cannot_be_compared_is_asked_about_each_time(registry):
    _, (node,) = chain({})
    assert "no-metadata" not in str(registry.lookup(node))
    assert registry.lookup(node) == registry._verdict(node)


def test_keywords_in_another_order_are_told_apart():
    def clamp(ctx, self, min=None, max=None):
        return self

    domain = Domain(self=Tensor(FLOATS), min=Static(0, 1), max=Static(2, 3))
    registry = Registry([plugin_of("house", converter(aten.clamp.default, domain)(clamp), distribution="trtplug")])
    graph = Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.empty(2, device="meta")
    good = graph.call_function(aten.clamp.default, (x,), {"min": 1, "max": 2})
    bad = graph.call_function(aten.clamp.default, (x,), {"max": 1, "min": 2})
    assert registry.lookup(good)
    assert not registry.lookup(bad)


def test_third_parties_are_asked_about_each_node(monkeypatch):
    registry = Registry([plugin_of("acme", leaky_relu)])
    asked = []
    refusal = Domain.refusal
    monkeypatch.setattr(Domain, "refusal", lambda self, call: asked.append(call) or refusal(self, call))
    _, nodes = chain(0.5, 0.5)
    assert all(map(registry.lookup, nodes))
    assert len(asked) == len(nodes)


def test_graphs_that_were_asked_about_long_ago_are_let_go(registry):
    graph, nodes = chain(0.5, 0.5)
    assert all(map(registry.lookup, nodes))
    gone = weakref.ref(graph)
    del graph, nodes
    for _ in range(MOST_GRAPHS):
        _, nodes = chain(0.5)
        assert all(map(registry.lookup, nodes))
    gc.collect()
    assert gone() is None
