"""Results that share memory in eager: inputs that are returned, the same twice, views, and what is written to."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import trtplug


class Returned(nn.Module):
    """Inputs, one result several times, views of results and of inputs, copies."""

    def forward(self, x, y):
        z = x.relu()
        return x, z, z, z.view(-1), y.t(), x[1:], z.detach(), y.clone()


class Nothing(nn.Module):
    def forward(self, x, y):
        return y, x


class Written(nn.Module):
    """An input that is written to after a view of it was taken, and returned."""

    def forward(self, x, y):
        view = x.view(-1)
        x.add_(y)
        return view, x, x * 2


class Parameters(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3))

    def forward(self, x, y):
        return self.weight, self.weight.t(), self.weight @ x


class Copied(nn.Module):
    """Fresh memory, which the caller may write to."""

    def forward(self, x, y):
        return x.clone(), x.reshape(-1).clone(), torch.ones(3), y + 0


MODELS = (Returned, Nothing, Written, Parameters, Copied)


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_results_and_inputs_are_eagers(make):
    torch.manual_seed(0)
    model, args = make().eval(), (torch.randn(3, 4), torch.randn(3, 4))
    compiled = trtplug.compile(copy.deepcopy(model), copy.deepcopy(args), min_block_size=1, executor="reference")
    for _ in range(2):
        ours, theirs = copy.deepcopy(args), copy.deepcopy(args)
        with torch.no_grad():
            found, wanted = compiled(*ours), model(*theirs)
        for one, two in zip(pytree.tree_leaves((found, ours)), pytree.tree_leaves((wanted, theirs)), strict=True):
            torch.testing.assert_close(one.detach(), two.detach())


def test_writing_to_a_result_changes_neither_inputs_nor_later_results():
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    compiled = trtplug.compile(Copied(), (x, y), min_block_size=1, executor="reference")
    kept = x.clone(), y.clone()
    for result in compiled(x, y):
        result.fill_(7)
    torch.testing.assert_close((x, y), kept)
    for one, two in zip(compiled(x, y), Copied()(x, y), strict=True):
        torch.testing.assert_close(one, two)


def test_an_engine_never_returns_what_it_was_given():
    compiled = trtplug.compile(
        Returned(), (torch.randn(3, 4), torch.randn(3, 4)), min_block_size=1, executor="reference"
    )
    for engine in compiled.report.engines:
        names = [text.partition(":")[0] for text in engine.inputs], [text.partition(":")[0] for text in engine.outputs]
        assert not set(names[0]) & set(names[1])
        assert len(names[1]) == len(set(names[1]))
