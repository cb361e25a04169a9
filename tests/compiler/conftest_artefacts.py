"""Small models that test what a file has to hold, each compiled, with arguments for a call of some size."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import torch
from torch import nn
from torch.utils import _pytree as pytree

import trtplug

Pair = namedtuple("Pair", ["first", "second"])


@torch.library.custom_op("trtplug_artefacts::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    return x * 3


@mystery.register_fake
def _(x):
    return torch.empty_like(x)


class Mixed(nn.Module):
    """Engines, Torch ops in between, parameters on both sides, and nested inputs and outputs."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8))
        self.centres = nn.Parameter(torch.randn(8, 8))

    def forward(self, x, *, more):
        y = torch.relu(x * self.weight + self.bias)
        z = torch.cdist(torch.sort(y)[0], self.centres) + self.weight
        w = torch.tanh(z + more["k"][0])
        return OrderedDict(w=w, rest=[z, (w.reshape(-1), None)], size=x.shape[0], three=3)


class Counter(nn.Module):
    """Buffers that are read and written, or only written; one that another sees."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(3))
        self.register_buffer("last", torch.zeros(3))
        self.register_buffer("zeros", torch.zeros(3))  # equal to the others until they are written

    def forward(self, x):
        self.count.add_(1)
        self.last.copy_(x)
        return torch.relu(x + self.count).sort().values + self.zeros


class Writes(nn.Module):
    def forward(self, x):
        x.mul_(2)
        return torch.relu(x)


class Fixed(nn.Module):
    def forward(self, x, factor, mode=None, flag=True):
        return torch.relu(x * factor) if flag and mode == "on" else x


class Sizes(nn.Module):
    def forward(self, x, y):
        z = torch.cat([x, y]).sort(0).values
        return torch.relu(z.reshape(-1) * x.shape[0]), torch.tanh(z + (x.shape[0] + y.shape[0]) // 2)


class Foreign(nn.Module):
    def forward(self, pair):
        return Pair(torch.relu(pair.first), torch.tanh(pair.second))


class Strided(nn.Module):
    """Views of one memory, transposed and expanded constants, half types."""

    def __init__(self):
        super().__init__()
        self.register_buffer("flat", torch.randn(12))
        self.register_buffer("head", self.flat[:4])
        self.register_buffer("table", torch.randn(4, 3).T)
        self.register_buffer("wide", torch.randn(1, 4).expand(3, 4))
        self.register_buffer("narrow", torch.randn(4).bfloat16())
        self.register_buffer("many", torch.arange(4))

    def forward(self, x):
        y = torch.sort(x + self.head + self.narrow).values
        z = torch.cummax(self.table + self.wide, -1).values * self.many
        return torch.relu(y @ z.mT), self.flat.sort().values, torch.sort(self.many + 1).values


def dynamic(name, *shape, batch=(2, 4, 8)):
    low, typical, high = ((size, *shape) for size in batch)
    return trtplug.Input(min_shape=low, opt_shape=typical, max_shape=high, name=name)


def mixed():
    torch.manual_seed(0)
    program = trtplug.trace(Mixed(), (dynamic("x", 8),), {"more": {"k": [torch.randn(8)]}})
    return trtplug.compile(program, min_block_size=1, torch_ops=["aten::cdist", "aten::sort"])


CASES = {
    "mixed": (mixed, lambda n: ((torch.randn(n, 8),), {"more": {"k": [torch.randn(8)]}})),
    "counter": (
        lambda: trtplug.compile(Counter(), (torch.randn(3),), min_block_size=1, torch_ops=["aten::sort"]),
        lambda n: ((torch.randn(3),), {}),
    ),
    "writes": (lambda: trtplug.compile(Writes(), (torch.randn(3),)), lambda n: ((torch.randn(3),), {})),
    "fixed": (
        lambda: trtplug.compile(Fixed(), (torch.randn(3), 2.5), {"mode": "on"}, min_block_size=1),
        lambda n: ((torch.randn(3), 2.5), {"mode": "on"}),
    ),
    "sizes": (
        lambda: trtplug.compile(
            Sizes(),
            inputs=[dynamic("x", 3), dynamic("y", 3, batch=(3, 5, 9))],
            min_block_size=1,
            torch_ops=["aten::sort"],
        ),
        lambda n: ((torch.randn(n, 3), torch.randn(n + 1, 3)), {}),
    ),
    "strided": (
        lambda: trtplug.compile(Strided(), (torch.randn(2, 4),), min_block_size=1, torch_ops=["aten::sort"]),
        lambda n: ((torch.randn(2, 4),), {}),
    ),
    "torch only": (
        lambda: trtplug.compile(Strided(), (torch.randn(2, 4),), min_block_size=1000),
        lambda n: ((torch.randn(2, 4),), {}),
    ),
}


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
    (flat, spec), (wanted, wanted_spec) = pytree.tree_flatten(actual), pytree.tree_flatten(expected)
    assert spec == wanted_spec
    for one, other in zip(flat, wanted, strict=True):
        assert type(one) is type(other)
        if isinstance(one, torch.Tensor):
            assert (one.stride(), one.requires_grad) == (other.stride(), other.requires_grad)
