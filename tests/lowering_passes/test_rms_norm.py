"""Root-mean-square normalization, with and without a weight, in float32 and of halves."""

from __future__ import annotations

import pytest
import torch
from conftest_passes import apply, graph_of, targets
from torch import nn

from trtplug_lowering_passes import recognise_rms_norm
from trtplug_registry import take_notes

RMS = "rms_norm.default"
X = torch.randn(2, 3, 8)


class Weighted(nn.Module):
    def __init__(self, function, shape=(8,)):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(shape) + 0.5)
        self.function = function

    def forward(self, x):
        return self.function(x, self.weight)


def inverse(x, *, dim=-1):
    return torch.rsqrt(x.pow(2).mean(dim, keepdim=True) + 1e-6)


FORMS = {
    "weight first": lambda x, w: w * (x * inverse(x)),
    "weight last": lambda x, w: x * inverse(x) * w,
    "a product of itself": lambda x, w: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * w,
    "a root that divides": lambda x, w: x / torch.sqrt(x.square().mean(-1, True) + 1e-5) * w,
    "a negative power": lambda x, w: x * (x.pow(2).mean(-1, keepdim=True) + 1e-5).pow(-0.5) * w,
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", FORMS)
def test_recognised(name, dynamic):
    graph = graph_of(Weighted(FORMS[name]), X, dynamic=dynamic)
    assert apply(recognise_rms_norm, graph, X, tolerance=1e-6)
    assert targets(graph) == [RMS]


def test_without_a_weight():
    graph = graph_of(lambda x: x * inverse(x) + 1, X)
    assert apply(recognise_rms_norm, graph, X, tolerance=1e-6)
    assert targets(graph) == [RMS, "add.Tensor"]


def test_over_several_axes():
    graph = graph_of(Weighted(lambda x, w: x * inverse(x, dim=(-2, -1)) * w, (3, 8)), X)
    assert apply(recognise_rms_norm, graph, X, tolerance=1e-6)
    assert targets(graph) == [RMS]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_that_are_widened(dtype):
    """As in Llama (all widened) and in T5 (only the square)."""

    def llama(x, w):
        wide = x.to(torch.float32)
        return w * (wide * inverse(wide)).to(x.dtype)

    def t5(x, w):
        return w * (x * torch.rsqrt(x.to(torch.float32).pow(2).mean(-1, keepdim=True) + 1e-6)).to(w.dtype)

    x = X.to(dtype) * 300  # whose squares float16 does not hold
    for function in (llama, t5):
        graph = graph_of(Weighted(function).to(dtype), x)
        assert apply(recognise_rms_norm, graph, x, tolerance=2e-2)
        assert RMS in targets(graph)
        assert "rsqrt.default" not in targets(graph)


def test_halves_that_are_not_widened_overflow():
    x = X.half()
    graph = graph_of(Weighted(FORMS["weight last"]).half(), x)
    assert not apply(recognise_rms_norm, graph, x)
    assert set(take_notes(graph).declined) == {"rms-norm: halves are squared as they are, which overflows"}


OTHER = {
    "another axis": lambda x, w: x * inverse(x, dim=1) * w,
    "of something else": lambda x, w: (x + 1) * inverse(x) * w,
    "a step that is read elsewhere": lambda x, w: (x * (i := inverse(x)) * w, i),
    "not a square": lambda x, w: x * torch.rsqrt(x.pow(4).mean(-1, keepdim=True) + 1e-6) * w,
    "without the axis": lambda x, w: x * torch.rsqrt(x.pow(2).mean(-1) + 1e-6).unsqueeze(-1) * w,
    "a root that multiplies": lambda x, w: x * torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * w,
}


@pytest.mark.parametrize("name", OTHER)
def test_something_else(name):
    graph = graph_of(Weighted(OTHER[name]), X)
    before = targets(graph)
    assert not apply(recognise_rms_norm, graph, X)
    assert targets(graph) == before
