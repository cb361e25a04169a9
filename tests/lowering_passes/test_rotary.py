"""Rotary embedding loses its negation, and no bit of its result."""

from __future__ import annotations

import pytest
import torch
from conftest_passes import apply, graph_of, targets
from torch import nn

from trtplug_lowering_passes import canonical_rotary

Q = torch.randn(2, 3, 5, 8)
ANGLES = torch.randn(5, 4)
COS, SIN = (torch.cat([part, part], -1) for part in (ANGLES.cos(), ANGLES.sin()))


def rotate_half(x):
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), -1)


class Constant(nn.Module):
    def __init__(self, rotate=rotate_half):
        super().__init__()
        self.register_buffer("cos", COS)
        self.register_buffer("sin", SIN)
        self.rotate = rotate

    def forward(self, q, k):
        return q * self.cos + self.rotate(q) * self.sin, k * self.cos + self.sin * self.rotate(k)


def computed(q, k, angles):
    cos, sin = (torch.cat([part, part], -1) for part in (angles.cos(), angles.sin()))
    return q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_constant_sines(dynamic, dtype):
    args = Q.to(dtype), (Q * 2).to(dtype)
    graph = graph_of(Constant().to(dtype), *args, dynamic=dynamic)
    assert apply(canonical_rotary, graph, *args)  # to the last bit
    assert "neg.default" not in targets(graph)
    (turned,) = [node for node in graph.graph.nodes if "turned" in str(node.target)]
    assert turned.meta["folded_from"] == {"sin"}


def test_computed_sines():
    graph = graph_of(computed, Q, Q * 2, ANGLES)
    before = len(targets(graph))
    assert apply(canonical_rotary, graph, Q, Q * 2, ANGLES)
    assert "neg.default" not in targets(graph)
    assert len(targets(graph)) == before - 1


OTHER = {
    "used once": lambda q, k, a: q + rotate_half(q) * a.sin().repeat(1, 2),
    "another half negated": lambda q, k, a: torch.cat((q[..., 4:], -q[..., :4]), -1) * SIN + k,
    "of two tensors": lambda q, k, a: torch.cat((-q[..., 4:], k[..., :4]), -1) * SIN + k,
    "not halves": lambda q, k, a: torch.cat((-q[..., 3:], q[..., :3]), -1) * SIN + k,
    "another axis": lambda q, k, a: torch.cat((-q[:, :, :, 4:], q[:, :, :, :4]), -2)[:, :, :5] + k[..., :4],
    "read elsewhere": lambda q, k, a: ((r := rotate_half(q)) * SIN, r),
    "sines of one element": lambda q, k, a: rotate_half(q) * SIN[:, :1] + k,
}


@pytest.mark.parametrize("name", OTHER)
def test_something_else(name):
    graph = graph_of(OTHER[name], Q, Q * 2, ANGLES)
    assert not apply(canonical_rotary, graph, Q, Q * 2, ANGLES)
