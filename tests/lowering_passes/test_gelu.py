"""GELU in its two forms, however it is grouped."""

from __future__ import annotations

import math

import pytest
import torch
from conftest_passes import apply, graph_of, targets

from trtplug_lowering_passes import recognise_gelu

X = torch.randn(4, 8) * 3
C = math.sqrt(2 / math.pi)

ERF = {
    "half first": lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    "half last": lambda x: x * (1 + torch.erf(x * math.sqrt(0.5))) * 0.5,
    "divided": lambda x: x * (torch.erf(x / 1.4142135623730951) + 1.0) / 2,
    "half inside": lambda x: x * (0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))),
    "multiplied out": lambda x: 0.5 * x + 0.5 * x * torch.erf(x / math.sqrt(2)),
}
TANH = {
    "a power": lambda x: 0.5 * x * (1 + torch.tanh(C * (x + 0.044715 * torch.pow(x, 3.0)))),
    "a square": lambda x: 0.5 * x * (1 + torch.tanh(x * C * (1 + 0.044715 * x * x))),
    "cubes": lambda x: x * 0.5 * (torch.tanh((x + x * x * x * 0.044715) * 0.7978845608028654) + 1),
}
OTHER = {
    "another constant": lambda x: 0.5 * x * (1 + torch.erf(x / 1.5)),
    "a rounded constant": lambda x: 0.5 * x * (1 + torch.tanh(0.79 * (x + 0.0447 * x**3))),
    "another argument": lambda x: 0.5 * (x + 1) * (1 + torch.erf(x / math.sqrt(2))),
    "no half": lambda x: x * (1 + torch.erf(x / math.sqrt(2))),
    "a step that is read elsewhere": lambda x: (0.5 * x * (e := 1 + torch.erf(x / math.sqrt(2))), e),
    "erf alone": lambda x: torch.erf(x / math.sqrt(2)),
    "tanh alone": lambda x: torch.tanh(x) * 2,
    "a widened argument": lambda x: 0.5 * x * (1 + torch.erf(x.double() / math.sqrt(2))),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", [*ERF, *TANH])
def test_recognised(name, dynamic):
    graph = graph_of({**ERF, **TANH}[name], X, dynamic=dynamic)
    assert apply(recognise_gelu, graph, X, tolerance=1e-6)
    (node,) = [node for node in graph.graph.nodes if node.op == "call_function"]
    assert node.target is torch.ops.aten.gelu.default
    assert node.kwargs == ({} if name in ERF else {"approximate": "tanh"})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves(dtype):
    x = X.to(dtype)
    for function in (ERF["half first"], TANH["a power"]):
        graph = graph_of(function, x)
        assert apply(recognise_gelu, graph, x, tolerance=2e-2)
        assert targets(graph) == ["gelu.default"]


@pytest.mark.parametrize("name", OTHER)
def test_something_else(name):
    graph = graph_of(OTHER[name], X)
    before = targets(graph)
    assert not apply(recognise_gelu, graph, X)
    assert targets(graph) == before


def test_of_a_sum():
    """The sum is not taken apart: it is x."""

    def model(x):
        y = x * 2 + 1
        return 0.5 * y * (1 + torch.erf(y / math.sqrt(2)))

    graph = graph_of(model, X)
    assert apply(recognise_gelu, graph, X, tolerance=1e-5)
    assert targets(graph) == ["mul.Tensor", "add.Tensor", "gelu.default"]
