"""Small models, each with one thing that a compiler may get wrong, and arguments for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

f = nn.functional


@dataclasses.dataclass(frozen=True)
class Example:
    """A model and a call of it. `dynamic`: sizes of dimension 0 of every tensor argument may vary."""

    name: str
    make: Callable[[], nn.Module]
    args: Callable[[], tuple[Any, ...]]
    kwargs: Callable[[], dict[str, Any]] = dict
    retraces: bool = False

    def __str__(self) -> str:
        return self.name


def _x(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


class Counters(nn.Module):
    """Buffers, persistent and not, updated in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sum", torch.zeros(2))
        self.register_buffer("power", torch.ones(2), persistent=False)

    def forward(self, x):
        self.sum.add_(x.sum())
        self.power.mul_(2)
        return self.sum * x.mean(), self.power


class WritesSlice(nn.Module):
    def forward(self, x):
        y = x * 2
        y[:, 0] = 7
        return y


class WritesInput(nn.Module):
    def forward(self, x):
        x.add_(1)
        return x * 2


class Outputs(nn.Module):
    """Inputs, duplicates, copies, constants."""

    def forward(self, x):
        return x, x, x.clone(), x.detach(), torch.arange(3), 5, None, "text", {"view": x.t()}


class Nested(nn.Module):
    def forward(self, a, b=None, *, c, flag=True, k=2.5):
        return {"o": a["x"] * k + a["l"][0], "p": (a["l"][1], c + 1 if b is None else b)}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(self.one(x).relu_())


class Branches(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x.sin() + 1, lambda x: x.cos() - 1, (x,))


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.linear(x).float()


class Regions(nn.Module):
    """Grad modes, nested, and autocast that is off."""

    def forward(self, x):
        with torch.no_grad():
            y = x.sin()
            with torch.enable_grad():
                y = y + 1
        with torch.autocast("cpu", enabled=False):
            y = y @ y.transpose(0, 1)
        y.add_(1)
        return y


class DataDependent(nn.Module):
    """``nonzero`` has no size, and is unsupported."""

    def forward(self, x):
        return torch.nonzero(x) * 2, x[x > 0]


class Promotions(nn.Module):
    def forward(self, i, x, h):
        return (
            i * 2.5,
            i / 2,
            i + x,
            i > 0.5,
            torch.where(i > 0, x, i),
            torch.cat([i, i.bool()], -1),
            x * torch.tensor(2.0, dtype=torch.float64),
            h + x,
            (i > 0).sum(-1),
            torch.exp(i),
            i**2,
            2**x,
            i // 2,
            i % 3,
            i.clamp(min=0.5),
            i == 1.5,
            h * 2.5,
            torch.tensor(2) * h,
            torch.div(i, 2, rounding_mode="floor"),
        )


class Constants(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.register_buffer("table", torch.arange(8.0))

    def forward(self, x):
        ramp = torch.arange(4) + 1
        return self.weight, self.table, x + torch.tensor([1.0, 2.0, 3.0, 4.0]) * self.table[:4] + ramp, torch.ones(2)


class Random(nn.Module):
    def forward(self, x):
        torch.rand(3)  # nobody reads it, and yet the numbers after it depend on it
        return f.dropout(x, 0.5, True), torch.rand_like(x)


class Strides(nn.Module):
    def forward(self, x):
        return torch.as_strided(x.t() * 2, (2, 2), (1, 2)), torch.view_as_complex(x * 2), x.t().contiguous().view(-1)


class Cache(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(2, 4))

    def forward(self, x):
        self.cache[0:1].copy_(x[0:1])
        return self.cache + x


class Dtypes(nn.Module):
    """In-place ops keep their tensor's dtype."""

    def forward(self, x):
        y, z = x.int(), x.half()
        y.add_(1)
        z.add_(x)
        return y, z, x.double().fill_(3)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.norm = nn.Linear(8, 24), nn.LayerNorm(8)

    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        y = f.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
        return self.norm(x + y.transpose(1, 2).reshape(x.shape))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, groups=4),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()


EXAMPLES = (
    Example("convolutions", convolutions, lambda: (_x(2, 3, 8, 8),)),
    Example("attention", Attention, lambda: (_x(2, 5, 8), torch.ones(2, 1, 5, 5, dtype=torch.bool).tril())),
    Example("causal attention", Attention, lambda: (_x(2, 5, 8),)),
    Example("None input", Attention, lambda: (_x(2, 5, 8), None)),
    Example(
        "mlp", lambda: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2), nn.Softmax(-1)), lambda: (_x(3, 4),)
    ),
    Example("lstm", lambda: nn.LSTM(4, 5, batch_first=True).eval(), lambda: (_x(2, 3, 4),)),
    Example("counters", Counters, lambda: (_x(1, 2),)),
    Example("writes slice", WritesSlice, lambda: (_x(2, 4),)),
    Example("writes input", WritesInput, lambda: (_x(2, 4),)),
    Example("outputs", Outputs, lambda: (_x(2, 4),)),
    Example("nested", Nested, lambda: ({"x": _x(2), "l": [_x(2), _x(2)]},), lambda: {"c": _x(2)}),
    Example(
        "keywords out of order",
        Nested,
        lambda: ({"x": _x(2), "l": [_x(2), _x(2)]}, None),
        lambda: {"k": 3.5, "c": _x(2), "flag": False},
    ),
    Example("tied", Tied, lambda: (_x(2, 4),)),
    Example("training", lambda: nn.BatchNorm1d(4), lambda: (_x(3, 4),), retraces=True),
    Example("branches", Branches, lambda: (_x(3, 4),)),
    Example("autocast", lambda: Autocast().eval(), lambda: (_x(3, 4),), retraces=True),
    Example("regions", Regions, lambda: (_x(3, 4),)),
    Example("data dependent", DataDependent, lambda: (_x(3, 4),)),
    Example("promotions", Promotions, lambda: (torch.tensor([[1, 0, 3, 4]]), _x(1, 4), _x(1, 4).half())),
    Example("constants", Constants, lambda: (_x(3, 4),)),
    Example("random", Random, lambda: (_x(4),)),
    Example("strides", Strides, lambda: (_x(4, 2),)),
    Example("cache", Cache, lambda: (_x(2, 4),)),
    Example("dtypes", Dtypes, lambda: (_x(2, 4),)),
)
