"""acme-ops beside the built-in converters, and beside a rival: who is asked first, and how the user decides."""

from __future__ import annotations

import types

import acme_ops
import pytest
import torch
from torch import nn

import trtplug
from trtplug_registry import (
    NUMBERS,
    Domain,
    Only,
    PluginError,
    PluginManager,
    PluginWarning,
    Registry,
    Tensor,
    converter,
)

aten = torch.ops.aten


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.linspace(-1, 1, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return acme_ops.hard_swish(torch.relu(x + self.bias)) ** 2 + x**3


@pytest.fixture
def model() -> nn.Module:
    return Model().eval()


def converters(model: nn.Module, **settings: object) -> dict[str, set[str]]:
    """Whose converter takes each op; also holds the compiled model to eager."""
    x = torch.linspace(-4, 4, 12).view(4, 3)
    compiled = trtplug.compile(model, (x,), min_block_size=1, **settings)
    torch.testing.assert_close(compiled(x), model(x))
    found: dict[str, set[str]] = {}
    for node in compiled.report.nodes:
        found.setdefault(node.op, set()).add(node.converter.partition(":")[0] or "torch")
    return found


def test_everything_is_used_because_it_is_installed(model: nn.Module) -> None:
    found = converters(model)
    assert found["acme::bias_relu"] == {"acme-ops"}  # the pass and the converter
    assert found["aten::pow.Tensor_Scalar"] == {"acme-ops", "trtplug-converters"}  # the square, and the cube
    assert "acme::hard_swish" not in found  # the decomposition
    assert "torch" not in set().union(*found.values())


def test_the_user_decides(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    found = converters(model, prefer=["trtplug-converters"])
    assert found["aten::pow.Tensor_Scalar"] == {"trtplug-converters"}
    assert found["acme::bias_relu"] == {"acme-ops"}
    monkeypatch.setenv("TRTPLUG_BLOCK", "acme-ops")
    found = converters(model)
    assert found["aten::relu"] == {"trtplug-converters"}
    assert found["acme::hard_swish"] == {"torch"}
    assert "acme-ops" not in set().union(*found.values())


@converter(aten.pow.Tensor_Scalar, Domain(self=Tensor(NUMBERS), exponent=Only(2, 4)))
def rival_square(ctx: object, self: object, exponent: object) -> object:
    """pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor"""
    raise AssertionError("never asked")


def beside_a_rival(**choices: object) -> Registry:
    manager = PluginManager()
    manager.load_entry_points()
    manager.register(types.SimpleNamespace(trtplug_contract=1, trtplug_converters=lambda: [rival_square]), "rival")
    return Registry(manager.plugins, **choices)


def test_a_conflict_is_said_and_settled(model: nn.Module) -> None:
    with pytest.warns(PluginWarning, match="acme-ops:aten::pow.Tensor_Scalar and rival:aten::pow.Tensor_Scalar"):
        found = converters(model, registry=beside_a_rival())
    assert found["aten::pow.Tensor_Scalar"] == {"trtplug-converters"}  # both are refused, the built-in one is asked
    with pytest.raises(PluginError, match=r"Set prefer=\[...\]"):
        converters(model, registry=beside_a_rival(), strict_plugins=True)
    found = converters(model, registry=beside_a_rival(prefer=["acme-ops"]))
    assert found["aten::pow.Tensor_Scalar"] == {"acme-ops", "trtplug-converters"}
