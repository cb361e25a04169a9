"""Equal calls become one; what only looks equal stays two."""

from __future__ import annotations

import pytest
import torch
from conftest_passes import apply, graph_of, targets
from torch import nn

from trtplug_lowering_passes import merge_common_subexpressions

X = torch.randn(4, 4)
aten = torch.ops.aten

MERGED = {
    "calls": (lambda x: x.exp() + x.exp(), ["exp.default", "add.Tensor"]),
    "chains": (lambda x: x.exp().sin() + x.exp().sin(), ["exp.default", "sin.default", "add.Tensor"]),
    "lists": (lambda x: torch.cat([x, x]) * torch.cat([x, x]), ["cat.default", "mul.Tensor"]),
    "made from nothing": (
        lambda x: x + torch.arange(4) - torch.arange(4),
        ["arange.default", "add.Tensor", "sub.Tensor"],
    ),
    "items": (lambda x: x.split(2)[0] + x.split(2)[0], ["split.Tensor", "getitem", "getitem", "add.Tensor"]),
    "one is returned": (lambda x: (x.exp(), x.exp() + 1), ["exp.default", "add.Tensor"]),
    "keywords": (
        lambda x: x.sum(0, dtype=torch.float64) + x.sum(0, dtype=torch.float64),
        ["sum.dim_IntList", "add.Tensor"],
    ),
}
STAYS = {
    "other arguments": lambda x: x.exp() + (x + 1).exp(),
    "random numbers": lambda x: torch.rand_like(x) + torch.rand_like(x),
    "dropout": lambda x: nn.functional.dropout(x, 0.5, True) + nn.functional.dropout(x, 0.5, True),
    "another type of number": lambda x: torch.full((4,), 1) + torch.full((4,), 1.0) + x,
    "another sign of zero": lambda x: torch.full((4,), 0.0) / x + torch.full((4,), -0.0) / x,
    "two that are returned": lambda x: (x.exp(), x.exp()),
    "two whose views are returned": lambda x: (x.exp().view(-1), x.exp()),
    "assertions": lambda x: (torch._assert_async(x.sum() > -100), torch._assert_async(x.sum() > -100), x + 1)[2],
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", MERGED)
def test_merged(name, dynamic):
    function, left = MERGED[name]
    graph = graph_of(function, X, dynamic=dynamic)
    assert apply(merge_common_subexpressions, graph, X)
    assert [target for target in targets(graph) if "sym_size" not in target] == left


@pytest.mark.parametrize("name", STAYS)
def test_stays(name):
    graph = graph_of(STAYS[name], X)
    before = targets(graph)
    changed = apply(merge_common_subexpressions, graph, X)
    if name == "assertions":  # what they check is merged, they are not
        assert targets(graph).count("_assert_async.default") == 2
    else:
        assert not changed
        assert targets(graph) == before


def test_a_tied_weight_is_read_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))

        def forward(self, x):
            return x @ self.weight.t() + x @ self.weight.t()

    graph = graph_of(Tied(), X)
    assert apply(merge_common_subexpressions, graph, X)
    assert targets(graph) == ["t.default", "matmul.default", "add.Tensor"]


def test_sizes_are_computed_once():
    graph = graph_of(lambda x: x.reshape(x.shape[0] * 4) + x.reshape(x.shape[0] * 4), X, dynamic=True)
    assert apply(merge_common_subexpressions, graph, X)
    assert targets(graph).count("reshape.default") == 1
