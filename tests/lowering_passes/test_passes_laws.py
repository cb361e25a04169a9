"""Law 7: every built-in pass preserves results, metadata and the names of inputs and outputs, and is idempotent."""

from __future__ import annotations

import pytest
import torch
from conftest_passes import apply, graph_of
from torch import nn

import trtplug_lowering_passes
from trtplug_registry import PluginManager, Registry

f = nn.functional

PASSES = trtplug_lowering_passes.trtplug_lowering_passes()


def arithmetic(x, y):
    return x.half() * y + x, (x > 0) & (y < 0.5), torch.where(x > y, x, 1), x.int() / 3, x.sum() + y


def shapes(x, y):
    flat = x.reshape(x.shape[0], -1).contiguous().view(x.shape)
    halves = flat.view(-1), y.expand(y.shape), y[:], y.permute(0, 1), y.transpose(0, 0).clone()
    return (*halves, x.clone(), x.detach(), torch.cat([x, y]).view(2, -1), x.new_zeros(x.shape[0], 2))


def constants(x, y):
    table = torch.arange(8).view(2, 4).float()
    eye = torch.eye(4)
    return (
        x @ eye + table[0],
        torch.ones_like(eye),
        y.new_ones(3) * 2,
        torch.full((2,), 7),
        (x @ eye).sum() + eye.t().sum(),
    )


def randomness(x, y):
    torch.rand(2)
    return f.dropout(x, 0.5, True), f.dropout(y, 0.5, False), torch.rand_like(x) + y


def sizes(x, y):
    n = x.shape[0]
    return (
        x.reshape(n * 4),
        y.sum(0).expand(n, 4),
        torch.arange(n * 2 + 1),
        torch.full((n // 2 + 1,), n),
        (x + 1).view(-1),
    )


def dead(x, y):
    torch.exp(x)
    torch.split(y, 2, 1)
    return x


class Weights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(16.0).view(4, 4))
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("mask", torch.ones(4, 4, dtype=torch.bool).tril())

    def forward(self, x, y):
        self.count.add_(1)
        weight = self.weight.masked_fill(~self.mask, 0.0)
        return f.linear(x, weight.t()) * self.count, self.weight, y @ self.weight.t().contiguous()


MODELS = (arithmetic, shapes, constants, randomness, sizes, dead, Weights)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_pass_alone(model, dynamic):
    args = torch.randn(4, 4), torch.randn(4, 4)
    for item in PASSES:
        apply(item, graph_of(model() if isinstance(model, type) else model, *args, dynamic=dynamic), *args)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_pass_after_those_before_it(model):
    args = torch.randn(4, 4), torch.randn(4, 4)
    manager = PluginManager(strict=True)
    manager.register(trtplug_lowering_passes, "passes")
    graph = graph_of(model() if isinstance(model, type) else model, *args, dynamic=True)
    for item in Registry(manager.plugins).passes:
        apply(item, graph, *args)


def test_every_pass_draws_before_and_after():
    for item in PASSES:
        assert "→" in (item.function.__doc__ or ""), item.name


def test_decompositions():
    table = trtplug_lowering_passes.trtplug_decompositions()
    assert torch.ops.aten.scaled_dot_product_attention.default in table
    assert len(table) > 200
    for op in table:
        assert not op._schema.is_mutable


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.tensor([[True, False, True], [False, False, False]])},
        {"attn_mask": torch.tensor([[0.0, -1.0, float("-inf")], [float("-inf")] * 3])},
        {"enable_gqa": True},
    ],
    ids=lambda options: ", ".join(options) or "plain",
)
def test_attention_by_definition(options, dtype):
    heads = 2 if options.get("enable_gqa") else 4
    query = torch.randn(2, 4, 2, 8, dtype=dtype)
    key, value = torch.randn(2, heads, 3, 8, dtype=dtype), torch.randn(2, heads, 3, 5, dtype=dtype)
    if "attn_mask" in options and options["attn_mask"].is_floating_point():
        options = {"attn_mask": options["attn_mask"].to(dtype)}
    op = torch.ops.aten.scaled_dot_product_attention.default
    table = trtplug_lowering_passes.trtplug_decompositions()
    found = table[op](query, key, value, **options)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        torch.testing.assert_close(found, op(query, key, value, **options), rtol=1e-5, atol=1e-5)
    with pytest.raises(NotImplementedError):
        table[op](query, key, value, dropout_p=0.5)
