"""Writes and effects keep their order between blocks, and the linked graph computes what the whole did."""

from __future__ import annotations

import importlib.util
import operator
import warnings
from pathlib import Path

import pytest
import torch
from test_partition_graphs import (
    Maker,
    add,
    check_runs,
    check_shape_of,
    exp,
    linked,
    mul,
    names,
    refusing,
    relu,
    sample,
    sin,
)
from torch import fx, nn

from trtplug.partition import link, partition

aten = torch.ops.aten


# --- writes and effects


def test_a_write_to_an_input_keeps_its_place() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    before = make.call(exp, x)
    write = make.call(aten.copy_.default, x, make.call(relu, x))
    after = make.call(exp, x)
    more = make.call(add, write, after)
    gm = make.done(before, more)
    parts = partition(gm, refusing())
    check_shape_of(gm, parts)
    assert write in parts.torch_nodes
    assert len(parts.blocks) == 2
    assert before in parts.blocks[0].nodes
    assert after in parts.blocks[1].nodes
    check_runs(gm, parts, sample(2, 4))


def test_a_buffer_that_is_written_is_no_constant() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    buffer = make.weight("buffer", sample(4))
    a = make.call(add, x, make.call(exp, buffer))
    make.call(aten.add_.Tensor, buffer, 1.0)
    b = make.call(mul, a, make.call(exp, buffer))
    gm = make.done(b)
    parts = partition(gm, refusing())
    check_shape_of(gm, parts)
    assert [buffer in block.inputs for block in parts.blocks] == [True, True]
    check_runs(gm, parts, sample(2, 4))


def test_views_of_what_is_written_stay_in_torch() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    a = make.call(relu, x)
    view = make.call(aten.view.default, a, [8])
    make.call(aten.mul_.Tensor, view, 3.0)
    gm = make.done(make.call(exp, a))
    parts = partition(gm, refusing())
    check_shape_of(gm, parts)
    assert view in parts.torch_nodes
    check_runs(gm, parts, sample(2, 4))


def test_writes_through_getitems_of_views() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    a = make.call(relu, x)
    halves = make.call(aten.split.Tensor, a, 2, 1)
    left = make.call(operator.getitem, halves, 0)
    right = make.call(operator.getitem, halves, 1)
    early = make.call(exp, a)
    make.call(aten.add_.Tensor, left, right)
    gm = make.done(early, make.call(sin, a), right)
    parts = partition(gm, refusing())
    check_shape_of(gm, parts)
    check_runs(gm, parts, sample(2, 4))


def test_effects_keep_their_order_and_are_never_asked_about() -> None:
    make = Maker()
    x = make.input("x", (3, 4), dynamic=[0])
    buffer = make.weight("buffer", torch.zeros(()))
    n = make.size(x, 0)
    late = make.call(aten.sum.default, make.call(relu, x))  # in a block with the last node, hence after the sine
    first = make.call(aten.copy_.default, buffer, late)
    check = make.graph.call_function(aten._assert_scalar.default, (make.call(operator.gt, n, 1), "too short"))
    make.with_val(check, None)
    second = make.call(aten.mul_.Tensor, buffer, 2.0)
    gm = make.done(make.call(exp, make.call(sin, x)))
    asked: list[fx.Node] = []
    parts = partition(gm, lambda node: asked.append(node) is None and node.target is not sin)
    check_shape_of(gm, parts)
    assert not {first, check, second} & set(asked)
    outer = check_runs(gm, parts, sample(3, 4))
    order = names(outer.graph.nodes)
    assert order.index(first.name) < order.index(check.name) < order.index(second.name)
    with pytest.raises(RuntimeError, match="too short"):
        outer(sample(1, 4))


# --- linking


def test_runners_must_match_the_blocks() -> None:
    make = Maker()
    gm = make.done(make.call(relu, make.input("x", (2, 4))))
    with pytest.raises(ValueError, match="0 runners for 1 blocks"):
        link(gm, partition(gm, refusing()), [])


def test_attributes_named_like_engines_do_not_clash() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    gm = make.done(make.call(sin, make.call(mul, x, make.weight("w", sample(4)))), make.weight("engine_0", sample(4)))
    parts = partition(gm, refusing("sin"))
    assert [n.target for n in linked(gm, parts).graph.nodes if n.op == "call_module"] == ["_engine_0"]
    check_runs(gm, parts, sample(2, 4))


def test_structure_of_inputs_and_outputs_is_kept() -> None:
    class Nested(nn.Module):
        def forward(self, pair: dict[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
            return {"out": torch.relu(pair["a"] + pair["b"]) * scale, "in": pair["a"]}

    pair = {"a": sample(2, 4), "b": sample(2, 4)}
    gm = torch.export.export(Nested(), (pair, 2.0)).module()
    assert isinstance(gm, fx.GraphModule)
    parts = partition(gm, refusing())
    outer = linked(gm, parts)
    torch.testing.assert_close(outer(pair, 2.0), gm(pair, 2.0))


def test_an_exported_dynamic_model() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 24)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batch, length, width = x.shape
            q, k, v = self.inner(x).view(batch, length, 3, width).unbind(2)
            scores = torch.softmax(q @ k.transpose(1, 2) / width**0.5, -1)
            return (scores @ v).reshape(batch * length, width) + torch.arange(batch * length)[:, None]

    torch.manual_seed(0)
    dims = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("length", max=64)}
    program = torch.export.export(Attention(), (torch.randn(3, 5, 8),), dynamic_shapes=(dims,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Torch copies a class that it deprecates
        gm = program.run_decompositions().module(check_guards=False)
    assert isinstance(gm, fx.GraphModule)
    for refused in ("", "_softmax", "bmm", "view", "arange", "select"):
        parts = partition(gm, refusing(refused))
        check_shape_of(gm, parts)
        for shape in ((3, 5, 8), (2, 7, 8)):
            check_runs(gm, parts, torch.randn(shape))


def test_a_long_chain_needs_no_recursion() -> None:
    make = Maker()
    x = make.input("x", (3, 4), dynamic=[0])
    w = make.weight("w", sample(4))
    size = make.size(x, 0)
    for i in range(2_000):
        w = make.call(aten.neg.default, w)
        x = make.call(sin if i % 4 == 0 else relu, x)
        size = make.call(operator.add, size, 1)
    gm = make.done(make.call(mul, x, w), make.call(add, x, size))
    parts = partition(gm, refusing("sin"))
    assert len(parts.blocks) == 500
    assert len(parts.blocks[-1].copies) == 2_002
    linked(gm, parts).graph.lint()


def test_the_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "partition.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_partition", path)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.main([50, 100])
    assert len(capsys.readouterr().out.splitlines()) == 3
