"""What does nothing goes; what only seems to do nothing stays."""

from __future__ import annotations

import pytest
import torch
from conftest_passes import apply, graph_of, targets
from torch import nn

from trtplug_lowering_passes import remove_no_ops

f = nn.functional
X = torch.randn(4, 4)

GONE = {
    "dropout": lambda x: f.dropout(x, 0.5, False) + 1,
    "alpha dropout": lambda x: f.alpha_dropout(x, 0.5, False) + 1,
    "clone": lambda x: x.clone() + 1,
    "to": lambda x: x.to(torch.float32) + 1,
    "cpu": lambda x: x.to("cpu", torch.float32) + 1,
    "expand": lambda x: x.expand(x.shape) + 1,
    "view": lambda x: x.view(-1, 4) + 1,
    "reshape": lambda x: x.reshape(x.shape) + 1,
    "permute": lambda x: x.permute(0, 1) + 1,
    "slice": lambda x: x[:] + 1,
    "detach": lambda x: x.detach() + 1,
    "squeeze": lambda x: x.squeeze(0) + 1,
    "times one": lambda x: 1 * x * 1.0 + 1,
    "divided by one": lambda x: x / 1 + 1,
    "less nothing": lambda x: x - 0 + 1,
    "to the first": lambda x: x**1 + 1,
    "chain": lambda x: x.clone().view(-1, 4).detach() + 1,
}
STAYS = {
    "a dropout in training": lambda x: f.dropout(x, 0.5, True) + 1,
    "another layout": lambda x: x.t().contiguous() + 1,
    "another dtype": lambda x: x.to(torch.float64) + 1,
    "an expansion": lambda x: x.expand(2, 4, 4) + 1,
    "a permutation of equal sizes": lambda x: x.permute(1, 0) + 1,
    "a part": lambda x: x[1:] + 1,
    "a copy that is returned": lambda x: x.clone(),
    "a copy whose view is returned": lambda x: x.clone().view(-1),
    "zero added": lambda x: x + 0,  # -0.0 + 0 is 0.0
    "a product that promotes": lambda x: x.int() * 1.0 + 1,
    "a product that is returned": lambda x: x * 1,
    "rounded division": lambda x: torch.div(x, 1, rounding_mode="floor") + 1,
    "times minus one": lambda x: x * -1 + 1,
    "a conjugate": lambda x: torch.view_as_complex(x.view(4, 2, 2)).conj() + 1,
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", GONE)
def test_gone(name, dynamic):
    graph = graph_of(GONE[name], X, dynamic=dynamic)
    assert apply(remove_no_ops, graph, X)
    assert [name for name in targets(graph) if "sym_size" not in name] == ["add.Tensor"]


@pytest.mark.parametrize("name", STAYS)
def test_stays(name):
    graph = graph_of(STAYS[name], X)
    before = [target for target in targets(graph) if "_assert" not in target]
    apply(remove_no_ops, graph, X)
    assert targets(graph) == before


def test_assertions_about_metadata_go_and_those_about_values_stay():
    def model(x):
        torch._assert_async(x.sum() > -100)
        return x.to(torch.bool).to(torch.float32)

    graph = graph_of(model, X)
    assert any("_assert_tensor_metadata" in name for name in targets(graph))
    assert apply(remove_no_ops, graph, X)
    assert not any("_assert_tensor_metadata" in name for name in targets(graph))
    assert any("_assert" in name for name in targets(graph))
