"""What depends on constants only is computed, within limits."""

from __future__ import annotations

import pytest
import torch
from conftest_passes import apply, graph_of, targets
from torch import nn

from trtplug_lowering_passes import fold_constants

X = torch.randn(4, 4)


class Holds(nn.Module):
    def __init__(self, value: torch.Tensor, function) -> None:
        super().__init__()
        self.register_buffer("value", value)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


BIG = torch.randn(512, 512)  # a MiB

FOLDED = {
    "a table": lambda x: x + torch.arange(4.0).unsqueeze(0),
    "a fill": lambda x: x + torch.full((4,), 2.0) * torch.ones(4),
    "ones like": lambda x: x + torch.zeros_like(x),
    "new ones": lambda x: x + x.new_ones(4),
    "one of several results": lambda x: x + torch.split(torch.arange(8.0), 4)[1],
}


@pytest.mark.parametrize("name", FOLDED)
def test_folded(name):
    graph = graph_of(FOLDED[name], X)
    assert apply(fold_constants, graph, X)
    assert targets(graph) == ["add.Tensor"]


def test_a_view_of_a_weight_shares_its_memory():
    graph = graph_of(Holds(BIG, lambda self, x: x @ self.value.t()), torch.randn(2, 512))
    assert apply(fold_constants, graph, torch.randn(2, 512))
    assert targets(graph) == ["matmul.default"]
    assert dict(graph.named_buffers())["folded_t"].data_ptr() == BIG.data_ptr()


def test_a_large_result_replaces_its_source_only():
    def alone(self, x):
        return x @ (self.value * 2)

    def beside(self, x):
        return x @ (self.value * 2) @ self.value

    for function, folded in ((alone, True), (beside, False)):
        graph = graph_of(Holds(BIG, function), torch.randn(2, 512))
        assert apply(fold_constants, graph, torch.randn(2, 512)) is folded


STAYS = {
    "rand.default": lambda self, x: x + torch.rand(4),
    "to.dtype": lambda self, x: x @ self.value.to(torch.float64).sum(0, keepdim=True)[:, :4].t().to(x.dtype),
    "repeat.default": lambda self, x: x + self.value.repeat(2, 2)[: x.shape[0], :4],
    "empty.memory_format": lambda self, x: (x + torch.empty(4, 4)) * 0 == 1,
    "fake_quantize_per_tensor_affine.default": lambda self, x: (
        x + torch.fake_quantize_per_tensor_affine(self.value[0, :4], 0.1, 0, 0, 255)
    ),
    "ones.default": lambda self, x: (x + 1, torch.ones(3)),
    "view.default": lambda self, x: (x + 1, torch.arange(4).view(2, 2)),
}


@pytest.mark.parametrize("target", STAYS)
def test_stays(target):
    """Random, wider, larger, not initialized, quantized, returned."""
    graph = graph_of(Holds(BIG, STAYS[target]), X)
    fold_constants.function(graph)
    assert target in targets(graph)


def test_a_dynamic_size_is_no_constant():
    graph = graph_of(lambda x: x.sum(1) + torch.arange(x.shape[0]), X, dynamic=True)
    before = targets(graph)
    assert not apply(fold_constants, graph, X)
    assert targets(graph) == before


def test_a_buffer_that_the_model_updates_is_no_constant():
    def count(self, x):
        self.value.add_(1)
        return x + self.value * 2

    graph = graph_of(Holds(torch.zeros(4), count), X)
    assert not apply(fold_constants, graph, X)
    assert targets(graph) == ["add.Tensor", "mul.Tensor", "add.Tensor"]


def test_a_folded_constant_says_what_it_was_computed_from():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.scale = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))

        def forward(self, x):
            return x @ (self.weight * self.scale).t() + self.scale + torch.ones(4) * 2

    graph = graph_of(Model(), X)
    assert apply(fold_constants, graph, X)
    found = {
        node.target: set(node.meta.get("folded_from", {node.target}))
        for node in graph.graph.nodes
        if node.op == "get_attr" and node.users
    }
    assert sorted(map(sorted, found.values())) == [[], ["scale"], ["scale", "weight"]]
    apply(fold_constants, graph, X)  # folding what was folded keeps that
