"""Slices, picks, expansions and writes: what is taken for something simpler, and what is not."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from conftest_passes import apply, graph_of, targets
from torch import nn

import trtplug
from trtplug_lowering_passes import (
    canonical_expansions,
    canonical_slices,
    canonical_writes,
    fold_constants,
    pick_by_tensor,
    remove_no_ops,
)

X = torch.randn(8, 10)
ROW = torch.randn(1, 10)


def left(graph):
    return [name for name in targets(graph) if "sym_size" not in name and name not in ("add.Tensor", "mul")]


# --- slices -----------------------------------------------------------------------------------------------------------

SLICES = {
    "of slices": (lambda x: x[2:7][1:3] + 1, ["slice.Tensor"]),
    "of steps": (lambda x: x[1:8:2][::2] + 1, ["slice.Tensor"]),
    "from behind": (lambda x: x[-6:][:-2] + 1, ["slice.Tensor"]),
    "of nothing": (lambda x: x[2:4][3:] + 1, ["slice.Tensor"]),
    "three": (lambda x: x[1:][1:][1:] + 1, ["slice.Tensor"]),
    "an element of a slice": (lambda x: x[2:7][1] + 1, ["select.int"]),
    "the last of a slice": (lambda x: x[2:7][-1] + 1, ["select.int"]),
    "an index in a row": (lambda x: x[:, [2, 3, 4]] + 1, ["slice.Tensor"]),
    "an index by threes": (lambda x: x[[1, 4, 7]] + 1, ["slice.Tensor"]),
    "an index from behind": (lambda x: x[[-2, -1]] + 1, ["slice.Tensor"]),
    "one index": (lambda x: torch.ops.aten.index(x, [torch.arange(4)[3]]) + 1, ["select.int"]),
    "index_select": (lambda x: x.index_select(1, torch.arange(5)) + 1, ["slice.Tensor"]),
    "of a piece": (lambda x: torch.cat([x, x * 2])[9:11] + 1, ["mul.Tensor", "cat.default", "slice.Tensor"]),
    "a piece": (lambda x: torch.cat([x, x * 2])[8:] + 1, ["mul.Tensor", "cat.default"]),
}
NOT_SLICES = {
    "of two pieces": lambda x: torch.cat([x, x * 2])[7:9] + 1,
    "of pieces that are promoted": lambda x: torch.cat([x.int(), x])[:8] + 1,
    "other axes": lambda x: x[1:][:, 1:] + 1,
    "an index that jumps": lambda x: x[[1, 2, 4]] + 1,
    "an index that falls": lambda x: x[[3, 2, 1]] + 1,
    "an index twice": lambda x: x[[1, 1]] + 1,
    "two indices": lambda x: x[[0, 1], [0, 1]] + 1,
    "an index that is returned": lambda x: x[[1, 2, 3]],
    "a slice that is returned": lambda x: x[1:][1:],
}


@pytest.mark.parametrize("name", SLICES)
def test_slices(name):
    function, wanted = SLICES[name]
    graph = graph_of(function, X)
    fold_constants.function(graph)
    assert apply(canonical_slices, graph, X)
    assert [item for item in left(graph) if "lift_fresh" not in item] == wanted


@pytest.mark.parametrize("name", NOT_SLICES)
def test_no_slices(name):
    graph = graph_of(NOT_SLICES[name], X)
    fold_constants.function(graph)
    assert not apply(canonical_slices, graph, X)


@pytest.mark.parametrize("size", [3, 8, 20])
def test_slices_of_what_varies(size):
    for function in (lambda x: x[1:][2:4] + 1, lambda x: x[1:5][2:] + 1):
        graph = graph_of(function, X, dynamic=True)
        assert apply(canonical_slices, graph, torch.randn(max(size, 6), 10))
        assert left(graph) == ["slice.Tensor"]
    for function in (lambda x: x[1:][:-2] + 1, lambda x: x[1:][0] + 1, lambda x: x[[0, 1]] + 1):
        graph = graph_of(function, X, dynamic=True)
        assert not apply(canonical_slices, graph, X)


# --- expansions -------------------------------------------------------------------------------------------------------

EXPANSIONS = {
    "before a sum": (lambda x, r: x + r.expand(8, 10), []),
    "as the other": (lambda x, r: x + r.expand_as(x), []),
    "before a choice": (lambda x, r: torch.where(r.expand(8, 10) > 0, x, r.expand(8, 10)), ["expand", "gt", "where"]),
    "twice": (lambda x, r: r[0].expand(1, 10).expand(8, 10).exp() + x, ["select", "expand", "exp"]),
    "a repetition": (lambda x, r: r.repeat(8, 1).exp() + x, ["expand", "exp"]),
    "a repetition of nothing": (lambda x, r: x.repeat(1, 1) + 1, []),
    "a new axis": (lambda x, r: r[0].repeat(8, 1) * x, ["select"]),
}
NOT_EXPANSIONS = {
    "it gives the size": lambda x, r: r.expand(8, 10) + 1,
    "it gives half of the size": lambda x, r: x[:1, :1].expand(8, 1) + r,
    "it is returned": lambda x, r: r.expand(8, 10),
    "a sum reads it": lambda x, r: r.expand(8, 10).sum(0) + x,
    "a repetition of more": lambda x, r: x.repeat(2, 1) + r,
    "a number's promotion": lambda x, r: x + r[0, 0].double().expand(8, 10),
}


@pytest.mark.parametrize("name", EXPANSIONS)
def test_expansions(name):
    function, wanted = EXPANSIONS[name]
    graph = graph_of(function, X, ROW)
    assert apply(canonical_expansions, graph, X, ROW)
    assert [item.partition(".")[0] for item in left(graph) if item != "mul.Tensor"] == wanted


@pytest.mark.parametrize("name", NOT_EXPANSIONS)
def test_no_expansions(name):
    graph = graph_of(NOT_EXPANSIONS[name], X, ROW)
    assert not apply(canonical_expansions, graph, X, ROW)


def test_expansions_to_a_size_that_varies():
    graph = graph_of(lambda x: x + torch.ones(1, 10).expand(x.shape[0], 10), X, dynamic=True)
    assert apply(canonical_expansions, graph, torch.randn(5, 10))
    assert left(graph) == ["ones.default"]


# --- picks ------------------------------------------------------------------------------------------------------------

PICKS = {
    "a row": lambda x, n: x[n],
    "a column": lambda x, n: x[:, n] + 1,
    "the last axis of three": lambda x, n: x[None][..., n] * 2,
    "twice": lambda x, n: x[n, n],
    "by a list of one": lambda x, n: x.select(1, n.reshape(1).item()) + 1,
}


@pytest.mark.skipif(torch.__version__ < (2, 12), reason="torch.export of 2.11 refuses them")
@pytest.mark.parametrize("place", [2, -1])
@pytest.mark.parametrize("name", PICKS)
def test_picks(name, place):
    graph = graph_of(PICKS[name], X, torch.tensor(place))
    assert apply(pick_by_tensor, graph, X, torch.tensor(place))
    assert not {"item.default", "select.int"} & set(targets(graph))


def test_numbers_that_nothing_is_picked_by():
    graph = graph_of(lambda x, n: x + n.item(), X, torch.tensor(2))
    assert not apply(pick_by_tensor, graph, X, torch.tensor(2))


@pytest.mark.skipif(torch.__version__ < (2, 12), reason="torch.export of 2.11 refuses some of them")
@pytest.mark.parametrize("function", [lambda x, n: x[n : n + 1] + 1, lambda x, n: x * n.item(), lambda x, n: x[:, n]])
def test_numbers_that_a_tensor_holds(function):
    """Whatever becomes of them, of which nothing is known."""

    class Model(nn.Module):
        def forward(self, x, n):
            return function(x, n)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what had to be left to Torch
        compiled = trtplug.compile(Model(), (X, torch.tensor(1)), min_block_size=1)
    for place in (1, 3):
        torch.testing.assert_close(compiled(X, torch.tensor(place)), function(X, torch.tensor(place)))


# --- writes -----------------------------------------------------------------------------------------------------------


def scatter(x, source, *place):
    return torch.slice_scatter(x, source, *place)


WRITES = {
    "a copy": (lambda x, r: torch.ops.aten.copy(x, x * 2) + 1, ["mul.Tensor"]),
    "a copy that expands": (lambda x, r: torch.ops.aten.copy(x, r) + 1, ["expand.default"]),
    "a copy that casts": (
        lambda x, r: torch.ops.aten.copy(x, r.half()) + 1,
        ["_assert_tensor_metadata.default", "to.dtype", "_to_copy.default", "expand.default"],
    ),
    "a copy that is returned": (lambda x, r: torch.ops.aten.copy(x, x[:]), ["slice.Tensor", "clone.default"]),
    "all of it": (lambda x, r: scatter(x, x * 2, 0, 0, 8) + 1, ["mul.Tensor"]),
    "the same place": (
        lambda x, r: scatter(scatter(x, r, 0, 2, 3), r * 2, 0, 2, 3) + 1,
        ["mul.Tensor", "slice_scatter.default"],
    ),
    "read back": (lambda x, r: scatter(x, r, 0, 2, 3)[2:3] + 1, ["slice_scatter.default"]),
    "an element read back": (
        lambda x, r: torch.select_scatter(x, r[0], 0, 2)[2] + 1,
        ["select.int", "select_scatter.default"],
    ),
}
NOT_WRITES = {
    "a part": lambda x, r: scatter(x, r, 0, 2, 3) + 1,
    "another place": lambda x, r: scatter(scatter(x, r, 0, 2, 3), r, 0, 3, 4) + 1,
    "read elsewhere": lambda x, r: scatter(x, r, 0, 2, 3)[3:4] + 1,
    "every second": lambda x, r: scatter(x, x[:4], 0, 0, 8, 2) + 1,
    "all of it, returned": lambda x, r: scatter(x, x * 2, 0, 0, 8).view(-1),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes(name):
    function, wanted = WRITES[name]
    graph = graph_of(function, X, ROW)
    assert apply(canonical_writes, graph, X, ROW)
    assert left(graph) == wanted


@pytest.mark.parametrize("name", NOT_WRITES)
def test_no_writes(name):
    graph = graph_of(NOT_WRITES[name], X, ROW)
    assert not apply(canonical_writes, graph, X, ROW)


def test_a_cache():
    """What is written to it is read from the source, and its final value is returned beside the result."""

    class Cache(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("cache", torch.zeros(8, 10))

        def forward(self, x):
            self.cache[2:3].copy_(x)
            return self.cache[2:3] * 2, self.cache.sum(0)

    graph = graph_of(Cache(), ROW)
    apply(remove_no_ops, graph, ROW)
    apply(canonical_writes, graph, ROW)
    assert apply(canonical_slices, graph, ROW)
    (product,) = [node for node in graph.graph.nodes if node.target is torch.ops.aten.mul.Tensor]
    assert product.args[0].op == "placeholder"


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_of_halves(dtype):
    """Torch's metadata says that they are float32, which an engine that reads them would be built for."""
    x, model = torch.randn(4, 3, 5, dtype=dtype), nn.BatchNorm1d(3).to(dtype).train()
    eager = copy.deepcopy(model)
    compiled = trtplug.compile(model, (x,), min_block_size=1)
    assert not compiled.report.torch_ops
    torch.testing.assert_close(compiled(x), eager(x), rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(model.running_mean, eager.running_mean, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(model.running_var, eager.running_var, rtol=2e-2, atol=2e-2)
