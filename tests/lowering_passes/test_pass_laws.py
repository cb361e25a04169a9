"""Law 7, over every pass of every installed plugin, on models that each of the built-in passes has work in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

import trtplug
from trtplug.testing import check_pass
from trtplug_registry import LoweringPass


def mixed_types(x: torch.Tensor, y: torch.Tensor) -> Any:
    return x.half() * y + x, torch.where(x > y, x, 1), x.int() / 3, (x + 2.5).long() + y


def views(x: torch.Tensor, y: torch.Tensor) -> Any:
    flat = x.reshape(x.shape[0], -1).contiguous().view(x.shape).clone()
    return flat, y.permute(0, 1), y[:], y.expand(y.shape).detach(), torch.cat([x, y]).flatten(1)


def folded(x: torch.Tensor, y: torch.Tensor) -> Any:
    table = torch.arange(8).view(2, 4).float()
    return x @ torch.eye(4) + table[0], y + torch.full((4,), 7.0), torch.ones(3) * 2


def unused(x: torch.Tensor, y: torch.Tensor) -> Any:
    torch.exp(x)
    torch.split(y, 2, 1)
    return nn.functional.dropout(x, 0.5, False)


def from_sizes(x: torch.Tensor, y: torch.Tensor) -> Any:
    n = x.shape[0]
    return x.reshape(n * 4), y.sum(0).expand(n, 4), torch.arange(n * 2 + 1)


MODELS = (mixed_types, views, folded, unused, from_sizes)
PASSES = trtplug.registry().passes


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@pytest.mark.parametrize("item", PASSES, ids=lambda item: item.id)
def test_pass_keeps_what_it_must(item: LoweringPass, model: Any, dynamic: bool) -> None:
    shapes = (({0: Dim.AUTO}, {0: Dim.AUTO}),) if dynamic else None  # the function's parameters are *args
    check_pass(item, model, (torch.randn(4, 4), torch.randn(4, 4)), dynamic_shapes=shapes)
