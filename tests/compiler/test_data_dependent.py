"""Ops whose result's shape depends on values: TensorRT-RTX builds none, and says so; standard TensorRT gets them."""

from __future__ import annotations

import math
import os

import pytest
import torch
from torch import nn

import trtplug
from conftest_standard import Standard
from trtplug import _tensorrt
from trtplug._tensorrt import capabilities, library
from trtplug.errors import BuildError
from trtplug.network import Binding, Network, NetworkBuilder
from trtplug.testing import Law, LawCase, law_cases, run_op
from trtplug_registry import DATA_DEPENDENT_SHAPES, ReasonCode, TensorFacts

X = torch.tensor([[1.0, -2.0, 3.0], [3.0, 0.0, 0.5]])
RTX = pytest.mark.skipif(library().__name__ != "tensorrt_rtx", reason="standard TensorRT has the layer")


PROMISED = torch.__version__ >= (2, 12)
"""Torch 2.11 promises places of the data's dtype of `unique`, so that what a converter gives is not taken."""


class Around(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function((x * 2).relu()) + 1


CONVERTED = {
    "aten::nonzero": torch.nonzero,
    "aten::masked_select": lambda x: torch.masked_select(x, x > 1),
    "aten::index.Tensor": lambda x: x[x > 1],
    "aten::_unique2": torch.unique,
    "aten::unique_dim": lambda x: torch.unique(x, dim=1),
    "aten::unique_consecutive": torch.unique_consecutive,
}


@RTX
@pytest.mark.parametrize("op", CONVERTED)
def test_the_reason_is_the_shape(op):
    model = Around(CONVERTED[op])
    compiled = trtplug.compile(model, (X,), min_block_size=1)
    (node,) = [node for node in compiled.report.nodes if node.op == op]
    assert node.engine is None
    reason = node.reasons[-1]
    assert reason.code is ReasonCode.DATA_DEPENDENT_SHAPE
    assert "depends on values" in reason.because
    assert "has no implementation of it" in reason.seen
    torch.testing.assert_close(compiled(X), model(X))


@RTX
def test_coverage_says_so():
    (op,) = trtplug.coverage("aten::nonzero").ops
    assert op.status == "unsupported"
    assert [reason.code for reason in op.reasons] == [ReasonCode.DATA_DEPENDENT_SHAPE]
    assert "depends on values" in str(trtplug.coverage("aten::nonzero"))
    texts = [idea.text for idea in trtplug.coverage(Around(torch.nonzero), (X,)).model.suggestions]
    assert any("standard TensorRT" in text for text in texts)


def cases() -> list[LawCase]:
    """Every law that needs no engine, of the converters that need the ability."""
    found = law_cases(trtplug.registry().having(capabilities=Standard()))
    dtypes = {case.dtype for case in found} if os.environ.get("TRTPLUG_LAWS") == "nightly" else {None, torch.float32}
    return [
        case
        for case in found
        if DATA_DEPENDENT_SHAPES in case.converter.needs
        and case.law is not Law.BUILDS
        and case.dtype in dtypes
        and (PROMISED or "unique" not in str(case.converter.target))
    ]


@pytest.mark.parametrize("case", cases(), ids=str)
def test_laws_where_the_library_has_the_layer(case):
    case.check()


def test_no_law_is_tried_of_what_cannot_be_used():
    capable = capabilities().has(DATA_DEPENDENT_SHAPES)
    assert any(DATA_DEPENDENT_SHAPES in case.converter.needs for case in law_cases(trtplug.registry())) == capable


@pytest.mark.parametrize("value", [3.0, 0.0, float("nan")])
def test_a_number_has_no_axes(value):
    registry = trtplug.registry().having(capabilities=Standard())
    (result,) = run_op(registry, torch.ops.aten.nonzero.default, (torch.tensor(value),))
    torch.testing.assert_close(result, torch.nonzero(torch.tensor(value)))


@pytest.mark.skipif(not PROMISED, reason="torch 2.11 promises another dtype")
@pytest.mark.parametrize("op", ["_unique2", "unique_consecutive"])
def test_nan_is_like_no_other(op):
    """The laws draw none for an op that orders: which of several comes first, eager leaves open."""
    x = torch.tensor([1.0, math.nan, -math.inf, math.nan, 1.0, 1.0, -0.0, 0.0])
    flags = {"return_inverse": True, "return_counts": True}
    overload = getattr(torch.ops.aten, op).default
    results = run_op(trtplug.registry().having(capabilities=Standard()), overload, (x,), flags)
    torch.testing.assert_close(results, overload(x, **flags), equal_nan=True)


@pytest.fixture
def standard(monkeypatch):
    """The library at hand, taken for one that has the layer."""
    monkeypatch.setattr(_tensorrt._Capabilities, "has", lambda self, name: Standard().has(name) or True)


@pytest.mark.parametrize("op", [op for op in CONVERTED if PROMISED or "unique" not in op])
def test_one_engine_where_the_library_has_the_layer(op, standard, monkeypatch):
    """All but the build, which TensorRT-RTX would refuse."""
    monkeypatch.setattr(Network, "build", lambda self, progress=None, options=None: b"plan")
    model = Around(CONVERTED[op])
    compiled = trtplug.compile(model, (X,), min_block_size=1, executor="reference")
    assert len(compiled.report.engines) == 1
    assert all(node.engine is not None for node in compiled.report.nodes if node.op == op)
    for x in (X, -X, X + 3):
        torch.testing.assert_close(compiled(x), model(x))


@RTX
def test_a_build_that_fails_costs_the_node(standard):
    model = Around(torch.nonzero)
    with pytest.warns(UserWarning, match="nonzero"):
        compiled = trtplug.compile(model, (X,), min_block_size=1)
    (node,) = [node for node in compiled.report.nodes if node.op == "aten::nonzero"]
    assert node.reasons[0].code is ReasonCode.BUILD_FAILED
    torch.testing.assert_close(compiled(X), model(X))


@RTX
def test_tensorrt_rtx_declares_the_layer_and_cannot_build_it():
    """Where this fails, TensorRT-RTX has what `DATA_DEPENDENT_SHAPES` says it has not."""
    network = NetworkBuilder()
    x = network.add_input("x", torch.bool, (2, 4))
    network.mark_output(network.add("non_zero", x).get_output(0), "y")
    facts = TensorFacts((2, 4), torch.bool)
    finished = Network("engine", network, (Binding("x", facts),), (Binding("y", TensorFacts((2, -1), torch.int32)),))
    with pytest.raises(BuildError, match="non_zero has no runners that implement it"):
        finished.build()
