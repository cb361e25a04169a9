"""Chains of reshapes and permutations become one, or none."""

from __future__ import annotations

import pytest
import torch
from conftest_passes import apply, graph_of, targets

from trtplug_lowering_passes import (
    canonical_views_early,
    canonical_views_late,
    merge_common_subexpressions,
    remove_no_ops,
)
from trtplug_registry import aliasing

X = torch.randn(4, 6, 10)

JOINED = {
    "reshapes": (lambda x: x.reshape(4, 60).reshape(8, -1) + 1, ["reshape.default"]),
    "views": (lambda x: x.view(24, 10).view(2, 120) + 1, ["reshape.default"]),
    "three": (lambda x: x.view(24, 10).unsqueeze(1).flatten() + 1, ["reshape.default"]),
    "there and back": (lambda x: x.reshape(4, 60).reshape(4, 6, 10) + 1, []),
    "an axis more and less": (lambda x: x.unsqueeze(1).squeeze(1) + 1, []),
    "flatten and unflatten": (lambda x: x.flatten(1).unflatten(1, (6, 10)) + 1, []),
    "permutations": (lambda x: x.permute(1, 2, 0).permute(1, 0, 2) + 1, ["permute.default"]),
    "permutations that cancel": (lambda x: x.permute(1, 2, 0).permute(2, 0, 1) + 1, []),
    "transpositions that cancel": (lambda x: x.transpose(1, 2).transpose(-1, -2) + 1, []),
    "a transposition and a permutation": (lambda x: x.transpose(0, 1).permute(0, 2, 1) + 1, ["permute.default"]),
    "mT": (lambda x: x.mT.transpose(0, 1).mT + 1, ["permute.default"]),
    "matrices": (lambda x: x[0].t().t() + 1, ["select.int"]),
    "a copy before a view": (
        lambda x: x.transpose(1, 2).contiguous().view(4, 60) + 1,
        ["transpose.int", "reshape.default"],
    ),
    "a copy before a product": (
        lambda x: x.transpose(1, 2).contiguous() @ x,
        ["transpose.int", "matmul.default"],
    ),
}
UNIT_AXES = {
    "last to first": (lambda x: x.unsqueeze(1).permute(0, 2, 1, 3) + 1, (4, 6, 1, 10)),
    "twice": (lambda x: x[:1].transpose(0, 1).transpose(1, 2) + 1, (6, 10, 1)),
}
STAYS = {
    "a permutation of wide axes": lambda x: x.permute(0, 2, 1) + 1,
    "one reshape": lambda x: x.reshape(24, 10) + 1,
    "one axis more": lambda x: x.unsqueeze(0) + 1,
    "a reshape between permutations": lambda x: x.permute(1, 0, 2).reshape(12, 2, 10).permute(1, 0, 2) + 1,
    "what is returned": lambda x: x.permute(1, 2, 0).permute(1, 0, 2),
    "what is returned as a view": lambda x: x.reshape(4, 60).reshape(4, 6, 10)[0],
    "a copy that arithmetic reads": lambda x: torch.as_strided(x.transpose(1, 2).contiguous() + 1, (3,), (7,)),
    "a copy that is returned": lambda x: x.transpose(1, 2).contiguous(),
    "another memory format": lambda x: x.unsqueeze(0).contiguous(memory_format=torch.channels_last).reshape(24, 10) + 1,
}


def shapes_only(graph):
    return [name for name in targets(graph) if name not in ("add.Tensor", "mul.Tensor") and "sym_size" not in name]


@pytest.mark.parametrize("item", [canonical_views_early, canonical_views_late], ids=lambda item: item.name)
@pytest.mark.parametrize("name", JOINED)
def test_joined(name, item):
    function, left = JOINED[name]
    graph = graph_of(function, X)
    assert apply(item, graph, X)
    assert shapes_only(graph) == left


@pytest.mark.parametrize("name", UNIT_AXES)
def test_a_permutation_that_moves_only_unit_axes_is_a_reshape(name):
    function, shape = UNIT_AXES[name]
    graph = graph_of(function, X)
    assert apply(canonical_views_late, graph, X)
    (reshape,) = [node for node in graph.graph.nodes if node.target is torch.ops.aten.reshape.default]
    assert tuple(reshape.args[1]) == shape
    assert not any("permute" in name or "transpose" in name for name in targets(graph))


@pytest.mark.parametrize("name", STAYS)
def test_stays(name):
    graph = graph_of(STAYS[name], X)
    before = targets(graph)
    apply(canonical_views_late, graph, X)
    assert [name.replace("view", "reshape") for name in before] == targets(graph)


def test_a_view_is_made_a_reshape():
    graph = graph_of(lambda x: x.view(24, 10) + 1, X)
    assert apply(canonical_views_late, graph, X)
    assert targets(graph) == ["reshape.default", "add.Tensor"]


DYNAMIC = {
    "explicit sizes": (lambda x: x.reshape(x.shape[0], 60).reshape(x.shape[0] * 2, 30) + 1, ["reshape.default"]),
    "one unknown": (lambda x: x.reshape(x.shape[0], 60).unsqueeze(1) + 1, ["reshape.default"]),
    "there and back": (lambda x: x.reshape(x.shape[0], 60).view(x.shape[0], 6, 10) + 1, []),
    "a unit axis": (lambda x: x.unsqueeze(1).permute(0, 2, 1, 3) + 1, ["reshape.default"]),
    "permutations": (lambda x: x.permute(1, 2, 0).permute(1, 0, 2) + 1, ["permute.default"]),
}


@pytest.mark.parametrize("size", [2, 4, 7])
@pytest.mark.parametrize("name", DYNAMIC)
def test_dynamic(name, size):
    function, left = DYNAMIC[name]
    graph = graph_of(function, X, dynamic=True)
    assert apply(canonical_views_late, graph, torch.randn(size, 6, 10))
    assert [target for target in shapes_only(graph) if target != "mul"] == left


def test_a_symbolic_axis_may_not_be_passed():
    """It may have size 1, and then again it may not."""
    graph = graph_of(lambda x: x.permute(1, 0, 2) + 1, X, dynamic=True)
    assert not apply(canonical_views_late, graph, X)


@pytest.mark.parametrize("item", [canonical_views_early, remove_no_ops, merge_common_subexpressions])
def test_views_that_end_in_an_output_are_followed_once(item, monkeypatch):
    def chain(x):
        for _ in range(15):
            x = x.transpose(0, 1).contiguous().unsqueeze(0).squeeze(0)
        return x

    graph, asked = graph_of(chain, X), []
    count = len(graph.graph.nodes)
    follow = aliasing.may_be_view
    monkeypatch.setattr(aliasing, "may_be_view", lambda target: asked.append(target) or follow(target))
    item.function(graph)
    assert len(asked) <= count  # not once for each that comes before
