"""Permutations of rows beside linear maps."""

from __future__ import annotations

import pytest
import torch
from conftest_passes import apply, graph_of, targets
from torch import nn

from trtplug_lowering_passes import canonical_views_early, order_rows_outside

f = nn.functional
X, W = torch.randn(3, 5, 8), torch.randn(12, 8)


def behind(x):
    return f.linear(x.transpose(0, 1), W).reshape(5, 6, 6).transpose(0, 1) * 2


def before(x):
    flat = x.reshape(3, 5, 2, 4).permute(1, 0, 2, 3).reshape(-1, 8)
    return f.linear(flat, W).reshape(5, 3, 12).transpose(0, 1) * 2


@pytest.mark.parametrize(
    ("function", "calls"),
    [
        (behind, ["linear", "permute", "reshape", "transpose", "mul"]),
        (before, ["reshape", "permute", "reshape", "permute", "linear", "mul"]),
    ],
)
def test_rows(function, calls):
    graph = graph_of(function, X)
    canonical_views_early.function(graph)
    assert apply(order_rows_outside, graph, X, tolerance=1e-6)
    assert [name.split(".")[0] for name in targets(graph)] == calls


def test_rows_of_attention():
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    graph = graph_of(lambda x: attention(x, x, x, need_weights=False)[0] + x, X)
    canonical_views_early.function(graph)
    assert apply(order_rows_outside, graph, X, tolerance=1e-6)
    first, last = (name for name in targets(graph) if "linear" in name), targets(graph)[-2:]
    assert len(list(first)) == 2
    assert [name.split(".")[0] for name in last] == ["linear", "add"]


def test_rows_of_a_size_that_varies():
    graph = graph_of(lambda x: f.linear(x.transpose(0, 1), W).reshape(5, -1, 6).transpose(0, 1) * 2, X, dynamic=True)
    canonical_views_early.function(graph)
    assert apply(order_rows_outside, graph, X, tolerance=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: f.linear(x.transpose(0, 1), W) * 2,
        lambda x: f.linear(x.transpose(0, 1), W).transpose(0, 1),
        lambda x: f.linear(x.transpose(1, 2), torch.ones(2, 5)).transpose(0, 1) * 2,
        lambda x: (y := x.transpose(0, 1)).sum() + f.linear(y, W).transpose(0, 1),
        lambda x: f.linear(x.reshape(15, 8), W).reshape(5, 3, 12).transpose(0, 1) * 2,
        lambda x: f.linear(x.transpose(0, 1).reshape(15, 8), W).reshape(15, 3, 4).transpose(0, 1) * 2,
    ],
    ids=["no other view", "returned", "columns", "read elsewhere", "no view before", "split features"],
)
def test_what_stays(function):
    graph = graph_of(function, X)
    canonical_views_early.function(graph)
    assert not apply(order_rows_outside, graph, X)
