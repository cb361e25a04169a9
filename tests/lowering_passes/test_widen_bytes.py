"""Bytes that are widened again are never made; those that somebody reads are."""

from __future__ import annotations

import pytest
import torch
from conftest_passes import apply, graph_of

from trtplug_lowering_passes import remove_no_ops, widen_bytes
from trtplug_registry import take_notes

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * 200
INT8, UINT8 = torch.int8, torch.uint8


def lowered(function, dynamic=False):
    graph = graph_of(function, X, dynamic=dynamic)
    remove_no_ops.function(graph)  # assertions about metadata
    return graph


def bytes_in(graph):
    values = (node.meta["val"] for node in graph.graph.nodes if node.op == "call_function")
    return sum(value.dtype in (INT8, UINT8) for value in values if isinstance(value, torch.Tensor))


WIDENED = {
    "signed": lambda x: x.clamp(-128, 127).to(INT8).float() * 2,
    "unsigned": lambda x: x.clamp(0, 255).to(UINT8).int() + 1,
    "fewer bits": lambda x: x.clamp(-8, 7).to(INT8).reshape(2, 2, 6).float() * 2,
    "moved": lambda x: ((q := x.round().clamp(-128, 127).to(INT8))[:, :2].t().half() * 2, q.unsqueeze(0).float() + 1),
}
STAY = {
    "the numbers may be none of a byte's": lambda x: x.clamp(-128, 128).to(INT8).float() * 2,
    "bytes are read as such": lambda x: (x.clamp(-128, 127).to(INT8) + 1).float() * 2,
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", WIDENED)
def test_widened(name, dynamic):
    graph = lowered(WIDENED[name], dynamic and name != "fewer bits")
    assert bytes_in(graph) > 0
    assert apply(widen_bytes, graph, X), "to the last bit"
    assert bytes_in(graph) == 0


@pytest.mark.parametrize("reason", STAY)
def test_stay(reason):
    graph = lowered(STAY[reason])
    assert not apply(widen_bytes, graph, X)
    assert f"widen-bytes: {reason}" in take_notes(graph).declined


def test_returned():
    graph = lowered(lambda x: x.clamp(-128, 127).to(INT8))
    assert not apply(widen_bytes, graph, X)
