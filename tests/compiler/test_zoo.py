"""What 202 architectures hold after export: each op runs in TensorRT, or is refused for a reason that the docs give."""

from __future__ import annotations

import operator
from pathlib import Path

import pytest
import torch

import trtplug
from trtplug.covering.opsets import zoo
from trtplug_registry import nature

DOCS = (Path(__file__).parents[2] / "docs" / "coverage.md").read_text()

NOT_OPS = (operator.getitem, operator.eq, operator.ge, operator.le, torch.sym_ite)
"""What the architectures hold beside ops: places in results, and arithmetic on sizes."""

OF_A_LIBRARY = "transformers::grouped_mm_fallback"

LEFT = {
    "aten::_assert_scalar": "it checks and returns nothing",
    "aten::_fft_c2c": "complex",
    "aten::_local_scalar_dense": "it hands a value to Python",
    "aten::view_as_real": "complex",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("xdg")))
        plugins = [plugin.name for plugin in trtplug.registry().plugins if not plugin.built_in]
        return {op.op: op for op in trtplug.coverage("zoo", registry=trtplug.registry(block=plugins)).ops}


def test_every_op_of_the_table_is_judged(found):
    assert found.keys() == zoo().keys()
    assert len(found) > 100


def test_each_is_taken_or_refused_for_a_reason_that_the_docs_give(found):
    left = {name: op.reasons for name, op in found.items() if not op.covered}
    assert left.keys() == LEFT.keys()
    for name, reasons in left.items():
        assert LEFT[name] in reasons[0].because
        assert f"`{name.removeprefix('aten::')}`" in DOCS


def test_what_is_decomposed_ends_in_ops_that_are_taken(found):
    for op in found.values():
        assert (op.status == "decomposed") == bool(op.decomposes_to), op


class Numbers(torch.nn.Module):
    """All of `NOT_OPS`, of a symbolic size."""

    def forward(self, x):
        n = x.shape[0]
        size = torch.sym_ite(n >= 4, torch.sym_ite(n == 5, n, n + 1), torch.sym_ite(n <= 2, n, n * 2))
        return x.max(0)[0].unsqueeze(0).expand(size, -1) * 2


def test_arithmetic_on_sizes_is_no_op():
    dynamic = ({0: torch.export.Dim("n", min=2, max=8)},)
    program = torch.export.export(Numbers(), (torch.rand(6, 3),), dynamic_shapes=dynamic)
    targets = {node.target for node in program.graph.nodes}
    assert set(NOT_OPS) <= targets, targets
    compiled = trtplug.compile(program, min_block_size=1, executor="reference")
    assert not compiled.report.torch_ops, str(compiled.report)
    for count in (2, 3, 5, 7):
        x = torch.rand(count, 3)
        torch.testing.assert_close(compiled(x), Numbers()(x))


def test_an_op_of_a_library_says_which():
    torch.library.define("zootest::op", "(Tensor x) -> Tensor")
    assert "the library 'zootest'" in nature(torch.ops.zootest.op.default)
    assert f"`{OF_A_LIBRARY}`" in DOCS
