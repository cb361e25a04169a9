"""Products of flat batches are written with all their axes again, as in a model that was decomposed before."""

from __future__ import annotations

import pytest
import torch
from conftest_passes import apply, graph_of, targets

from trtplug_lowering_passes import canonical_products

A, B = torch.randn(2, 4, 8, 5), torch.randn(2, 4, 5, 6)

JOINED = {
    "reshapes": lambda a, b: torch.bmm(a.reshape(8, 8, 5), b.reshape(8, 5, 6)).reshape(2, 4, 8, 6) + 1,
    "copies": lambda a, b: (
        torch.bmm(a.reshape(8, 8, 5), b.mT.contiguous().mT.clone().reshape(8, 5, 6)).reshape(2, 4, 8, 6) + 1
    ),
    "expansions": lambda a, b: (
        torch.bmm(a.expand(2, 4, 8, 5).reshape(8, 8, 5), b.reshape(8, 5, 6)).reshape(2, 4, 8, 6) + 1
    ),
}
STAYS = {
    "read flat": lambda a, b: torch.bmm(a.reshape(8, 8, 5), b.reshape(8, 5, 6)) + 1,
    "other batches": lambda a, b: torch.bmm(a.reshape(8, 8, 5), b.reshape(8, 5, 6)).reshape(4, 2, 8, 6) + 1,
    "other matrices": lambda a, b: torch.bmm(a.mT.reshape(8, 8, 5), b.mT.reshape(8, 5, 6)).reshape(2, 4, 8, 6) + 1,
    "a part of the matrices": lambda a, b: (
        torch.bmm(a.reshape(8, 8, 5), b.reshape(8, 5, 6)).reshape(2, 4, 4, 2, 6).sum(3) + 1
    ),
    "returned": lambda a, b: torch.bmm(a.reshape(8, 8, 5), b.reshape(8, 5, 6)).reshape(2, 4, 8, 6),
}


@pytest.mark.parametrize("name", JOINED)
def test_joined(name):
    graph = graph_of(JOINED[name], A, B)
    assert apply(canonical_products, graph, A, B, tolerance=1e-6)
    left = targets(graph)
    assert "matmul.default" in left
    assert not {"bmm.default", "reshape.default", "expand.default"} & set(left)


def test_repeated_heads():
    def model(a, b):
        heads = b[:, :2, None].expand(2, 2, 2, 5, 6).contiguous()
        return torch.bmm(a.reshape(8, 8, 5), heads.reshape(8, 5, 6)).reshape(2, 4, 8, 6) + 1

    graph = graph_of(model, A, B)
    assert apply(canonical_products, graph, A, B, tolerance=1e-6)
    left = targets(graph)
    assert ("matmul.default" in left, "bmm.default" in left, left.count("reshape.default")) == (True, False, 1)


@pytest.mark.parametrize("name", STAYS)
def test_stays(name):
    graph = graph_of(STAYS[name], A, B)
    assert not apply(canonical_products, graph, A, B)
