"""Ops whose result's shape depends on values stay in Torch, for that reason; TensorRT-RTX could not have them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import trtplug
from trtplug._tensorrt import library
from trtplug.errors import BuildError
from trtplug.network import Binding, Network, NetworkBuilder
from trtplug_registry import ReasonCode, TensorFacts


class Around(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function((x * 2).relu()) + 1


OPS = {
    "aten::nonzero": torch.nonzero,
    "aten::masked_select": lambda x: torch.masked_select(x, x > 1),
    "aten::_unique2": torch.unique,
}


@pytest.mark.parametrize("op", OPS)
def test_the_reason_is_the_shape(op):
    model, x = Around(OPS[op]), torch.tensor([[1.0, -2.0, 3.0], [3.0, 0.0, 0.5]])
    compiled = trtplug.compile(model, (x,), min_block_size=1)
    (node,) = [node for node in compiled.report.nodes if node.op == op]
    assert node.engine is None
    assert node.reasons[0].code is ReasonCode.NO_CONVERTER
    assert "the shape of its result depends on values" in node.reasons[0].because
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.skipif(library().__name__ != "tensorrt_rtx", reason="standard TensorRT has the layer")
def test_tensorrt_rtx_declares_the_layer_and_cannot_build_it():
    """Where this fails, a converter of `nonzero` is due."""
    network = NetworkBuilder()
    x = network.add_input("x", torch.bool, (2, 4))
    network.mark_output(network.add("non_zero", x).get_output(0), "y")
    facts = TensorFacts((2, 4), torch.bool)
    finished = Network("engine", network, (Binding("x", facts),), (Binding("y", TensorFacts((2, -1), torch.int32)),))
    with pytest.raises(BuildError, match="non_zero has no runners that implement it"):
        finished.build()
