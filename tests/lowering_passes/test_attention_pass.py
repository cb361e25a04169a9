"""Attention that is written out becomes one op; what is not certainly attention stays as it is."""

from __future__ import annotations

import math

import pytest
import torch
from conftest_passes import apply, graph_of, targets
from torch import nn

from trtplug_lowering_passes import canonical_views_early, recognise_attention
from trtplug_registry import take_notes

f = nn.functional
aten = torch.ops.aten
SDPA = "scaled_dot_product_attention.default"
LOW = torch.finfo(torch.float32).min

Q, K, V = (torch.randn(2, 3, n, 8, generator=torch.Generator().manual_seed(n)) for n in (5, 7, 7))
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0]]).bool()[:, None, None, :]
CAUSAL = torch.ones(5, 7).tril().bool()


def softmax(scores):
    return torch.softmax(scores, -1)


FORMS = {
    "a factor": lambda q, k, v: softmax(q @ k.transpose(-1, -2) * 0.35) @ v,
    "a divisor": lambda q, k, v: softmax(q @ k.transpose(2, 3) / math.sqrt(8)) @ v,
    "no scale": lambda q, k, v: softmax(q @ k.transpose(2, 3)) @ v,
    "a scaled query": lambda q, k, v: softmax((q * 0.35) @ k.mT) @ v,
    "a scaled key": lambda q, k, v: softmax(q @ (k / 3).permute(0, 1, 3, 2)) @ v,
    "both scaled": lambda q, k, v: softmax((q * 0.6) @ (k * 0.6).mT) @ v,
    "a key that is transposed already": lambda q, k, v: softmax(q @ k.reshape(2, 3, 8, 7)) @ v,
    "softmax in float32": lambda q, k, v: torch.softmax(q @ k.mT, -1, dtype=torch.float32).to(q.dtype) @ v,
    "batches of matrices": lambda q, k, v: softmax(torch.bmm(q[0], k[0].mT)) @ v[0],
    "matrices": lambda q, k, v: softmax(q[0, 0] @ k[0, 0].mT) @ v[0, 0],
    "dropout that is off": lambda q, k, v: f.dropout(softmax(q @ k.mT), 0.5, False) @ v,
}
MASKED = {
    "an addend": lambda q, k, v, m: softmax(q @ k.mT * 0.3 + torch.where(m, 0.0, LOW)) @ v,
    "an addend in front": lambda q, k, v, m: softmax(torch.where(m, 0.0, -1e4) + q @ k.mT) @ v,
    "a computed addend": lambda q, k, v, m: softmax(q @ k.mT + (1.0 - m.float()) * LOW) @ v,
    "an addend by masked_fill": lambda q, k, v, m: (
        softmax(q @ k.mT + torch.zeros_like(m, dtype=q.dtype).masked_fill(~m, LOW)) @ v
    ),
    "two addends": lambda q, k, v, m: softmax(q @ k.mT + torch.full((5, 7), -3.0) + torch.where(m, 0.0, LOW)) @ v,
    "where": lambda q, k, v, m: softmax(torch.where(m, q @ k.mT * 0.3, LOW)) @ v,
    "masked_fill": lambda q, k, v, m: softmax((q @ k.mT * 0.3).masked_fill(~m, LOW)) @ v,
}


def recognised(function, *args, dynamic=False, tolerance=1e-5):
    graph = graph_of(function, *args, dynamic=dynamic)
    from trtplug_lowering_passes import remove_no_ops_early

    remove_no_ops_early.function(graph)
    canonical_views_early.function(graph)
    changed = apply(recognise_attention, graph, *args, tolerance=tolerance)
    return graph, changed


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", FORMS)
def test_recognised(name, dynamic):
    if dynamic and name in ("a key that is transposed already",):
        dynamic = False  # export gives it a fixed size
    graph, changed = recognised(FORMS[name], Q, K, V, dynamic=dynamic)
    assert changed
    assert targets(graph).count(SDPA) == 1
    assert not any(name.startswith(("softmax", "matmul", "bmm")) for name in targets(graph))
    assert take_notes(graph).applied["attention"] == 1


@pytest.mark.parametrize("name", MASKED)
def test_masks(name):
    """Computed in each call from a bool tensor: no query is left without a key, or it sees all keys alike."""
    blind = MASK.clone()
    blind[0] = False  # the first batch sees nothing, and gets the mean of all values
    graph, changed = recognised(MASKED[name], Q, K, V, MASK)
    assert changed
    assert targets(graph).count(SDPA) == 1
    wanted = MASKED[name](Q, K, V, blind)
    (found,) = torch.fx.Interpreter(graph).run(Q, K, V, blind)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves(dtype):
    def model(q, k, v, m):
        weights = torch.softmax(q @ k.mT * 0.35 + m, -1, dtype=torch.float32).to(q.dtype)
        return weights @ v

    mask = torch.where(MASK, 0.0, torch.finfo(dtype).min).to(dtype)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", mask)

        def forward(self, q, k, v):
            return model(q, k, v, self.mask)

    graph, changed = recognised(Model(), *(x.to(dtype) for x in (Q, K, V)), tolerance=2e-2)
    assert changed
    assert targets(graph).count(SDPA) == 1


class Buffer(nn.Module):
    def __init__(self, mask, function):
        super().__init__()
        self.register_buffer("mask", mask)
        self.function = function

    def forward(self, q, k, v):
        return self.function(q, k, v, self.mask)


CONSTANT = {
    "bool": (CAUSAL, lambda q, k, v, m: softmax(torch.where(m, q @ k.mT, -math.inf)) @ v),
    "bool to be filled": (~CAUSAL, lambda q, k, v, m: softmax((q @ k.mT).masked_fill(m, -math.inf)) @ v),
    "an addend": (torch.where(CAUSAL, 0.0, -math.inf), lambda q, k, v, m: softmax(q @ k.mT + m) @ v),
}


@pytest.mark.parametrize("name", CONSTANT)
def test_constant_masks_are_looked_at(name):
    mask, function = CONSTANT[name]
    graph, changed = recognised(Buffer(mask, function), Q, K, V)
    assert changed
    (node,) = [node for node in graph.graph.nodes if node.target is aten.scaled_dot_product_attention.default]
    assert node.meta["sees_keys"]
    blind = mask.clone()
    blind[0] = mask[0, -1]  # what the first query does not see, throughout
    _, changed = recognised(Buffer(blind, function), Q, K, V)
    assert not changed


DECLINED = {
    "its weights are read elsewhere": lambda q, k, v: ((w := softmax(q @ k.mT)) @ v, w),
    "its scores are read elsewhere": lambda q, k, v: (softmax(s := q @ k.mT) @ v, s),
    "a query may see no key": lambda q, k, v: softmax(q @ k.mT + torch.where(v.mT[:, :, :1] > 0, 0.0, -math.inf)) @ v,
    "heads or batches are broadcast": lambda q, k, v: softmax(q @ k[:1].mT) @ v,
    "queries, keys and values differ in rank": lambda q, k, v: softmax(q @ k[0].mT) @ v,
    "the mask is scaled with the scores": lambda q, k, v: softmax((q @ k.mT + torch.zeros(5, 7)) * 0.3) @ v,
    "the mask has another dtype": lambda q, k, v: softmax(q @ k.mT + (v.mT[:, :, :1] > 0)) @ v,
    "the mask does not broadcast to the scores": lambda q, k, v: softmax(q @ k.mT + torch.zeros(7)) @ v,
    "what masked scores are replaced by is not small enough to have no weight": lambda q, k, v: (
        softmax((q @ k.mT).masked_fill(v.mT[:, :, :1] > 0, -1.0)) @ v
    ),
}


@pytest.mark.parametrize("reason", DECLINED)
def test_declined(reason):
    graph, changed = recognised(DECLINED[reason], Q, K, V)
    assert not changed
    assert f"attention: {reason}" in take_notes(graph).declined


OTHER = {
    "softmax over another axis": lambda q, k, v: torch.softmax(q @ k.mT, -2) @ v,
    "weights on the right": lambda q, k, v: v.mT @ softmax(q @ k.mT).mT,
    "no product before": lambda q, k, v: softmax(q[..., :7]) @ v,
    "no product behind": lambda q, k, v: softmax(q @ k.mT) + 1,
    "something between": lambda q, k, v: softmax((q @ k.mT).tanh()) @ v,
}


@pytest.mark.parametrize("name", OTHER)
def test_something_else(name):
    _, changed = recognised(OTHER[name], Q, K, V)
    assert not changed


def test_memory_that_is_read_stays_as_it_was():
    def model(q, k, v):
        return torch.as_strided(softmax(q @ k.mT) @ v, (4,), (3,))

    graph, changed = recognised(model, Q, K, V)
    assert changed
    assert "contiguous.default" in targets(graph)
