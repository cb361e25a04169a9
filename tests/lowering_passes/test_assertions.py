"""Assertions are kept as checks outside the engine: they raise when they do not hold, and cut no engine in two."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import trtplug


class Values(nn.Module):
    """About what is computed half way, twice."""

    def forward(self, x):
        y = x.relu() * 2
        torch._assert_async((y < 50).all(), "too large")
        z = y + 1
        torch._assert_async((z != 7).all(), "seven")
        return z.exp()


class Number(nn.Module):
    """About a number that leaves the graph, and that nothing is computed from."""

    def forward(self, x):
        y = x.relu()
        total = y.sum().int().item()
        torch._check(total > 0)
        return y * 2 + 1


class Input(nn.Module):
    """About a number that comes in as a tensor."""

    def forward(self, x, n):
        count = n.item()
        torch._check(count >= 0)
        torch._check(count < 10)
        return x.relu() * 2 + 1


class Size(nn.Module):
    def forward(self, x):
        torch._check(x.shape[0] > 2)
        return x.relu().reshape(x.shape[0] * 4) + 1


X = torch.rand(4, 4)
CASES = {
    "values": (Values(), (X,), (X * 0 + 30,), "too large"),
    "values, the second": (Values(), (X,), (X * 0 + 3,), "seven"),
    "a number": (Number(), (X,), (X * 0 - 1,), "Runtime assertion failed"),
    "an input": (Input(), (X, torch.tensor(3)), (X, torch.tensor(12)), "Runtime assertion failed"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_raises_and_cuts_nothing(name):
    model, good, bad, message = CASES[name]
    compiled = trtplug.compile(model, good, min_block_size=1, executor="reference")
    assert len(compiled.report.engines) == 1
    assert any("_assert" in record.op for record in compiled.report.torch_ops)
    torch.testing.assert_close(compiled(*good), model(*good))
    with pytest.raises(RuntimeError):  # in other words
        model(*bad)
    with pytest.raises(RuntimeError, match=message):
        compiled(*bad)


def test_about_a_size_becomes_the_inputs_range():
    compiled = trtplug.compile(
        Size(), (X,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC(max=64)},), min_block_size=1, executor="reference"
    )
    assert len(compiled.report.engines) == 1
    assert not compiled.report.torch_ops
    with pytest.raises(trtplug.TrtplugError, match=r"is 2; .* is compiled for 3 to 64"):
        compiled(torch.rand(2, 4))


def test_about_metadata_is_gone_with_the_casts_that_it_was_about():
    class Casts(nn.Module):
        def forward(self, x):
            return x.to(torch.float16).to(torch.float32) * 2

    compiled = trtplug.compile(Casts(), (X,), min_block_size=1, executor="reference")
    assert len(compiled.report.engines) == 1
    assert not compiled.report.torch_ops
