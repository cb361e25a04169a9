"""Symbolic sizes between blocks: none leaves an engine, and each block has those that it computes with."""

from __future__ import annotations

import operator

import pytest
import torch
from test_partition_graphs import Maker, add, check_runs, check_shape_of, exp, mul, names, refusing, relu, sample, sin
from torch import fx

from trtplug.partition import extract, partition

aten = torch.ops.aten


# --- sizes


def test_sizes_are_read_from_the_blocks_own_inputs() -> None:
    make = Maker()
    x = make.input("x", (4, 6), dynamic=[0, 1])
    rows, columns = make.size(x, 0), make.size(x, 1)
    a = make.call(sin, x)
    product = make.call(operator.mul, rows, columns)
    half = make.call(operator.floordiv, product, 2)
    flat = make.call(aten.view.default, a, [product])
    cut = make.call(aten.slice.Tensor, flat, 0, 0, half)
    gm = make.done(cut)
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    (block,) = parts.blocks
    assert block.sizes == ()
    assert block.inputs == (a,)
    assert set(block.copies) == {product, half}
    targets = {node.target for node in extract(gm, block).graph.nodes if node.op == "call_function"}
    assert targets == {aten.sym_size.int, operator.mul, operator.floordiv, aten.view.default, aten.slice.Tensor}
    for shape in ((4, 6), (3, 5)):
        check_runs(gm, parts, sample(*shape))


@pytest.mark.parametrize(
    "formula",
    [
        lambda call, n, m: call(operator.sub, call(operator.mul, n, 3), m),
        lambda call, n, m: call(operator.mod, call(operator.add, n, 7), m),
        lambda call, n, m: call(operator.floordiv, call(operator.add, n, 1), 2),
        lambda call, n, m: call(operator.pow, m, 2),
        lambda call, n, m: call(torch.sym_max, n, m),
        lambda call, n, m: call(torch.sym_min, call(operator.mul, 2, n), m),
        lambda call, n, m: call(operator.add, call(operator.neg, m), 20),
        lambda call, n, m: call(operator.mod, call(operator.floordiv, n, 2), 3),
    ],
)
def test_size_arithmetic_is_written_again(formula: object) -> None:
    make = Maker()
    x = make.input("x", (6, 5), dynamic=[0, 1])
    size = formula(make.call, make.size(x, 0), make.size(x, 1))  # type: ignore[operator]  # a lambda of the row
    ones = make.call(aten.full.default, [2, 3], 1.0)
    a = make.call(sin, x)
    gm = make.done(make.call(add, a, size), make.call(mul, ones, size), size)
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    assert [block.sizes for block in parts.blocks] == [()]
    for shape in ((6, 5), (9, 4)):
        check_runs(gm, parts, sample(*shape))


def test_a_dimension_that_is_an_expression_is_solved() -> None:
    make = Maker()
    x = make.input("x", (3, 4), dynamic=[0])
    n = make.size(x, 0)
    with make.mode:
        y = make.value("y", torch.empty(3 * x.meta["val"].shape[0] + 1, 4))
    gm = make.done(make.call(sin, x), make.call(aten.slice.Tensor, make.call(relu, y), 0, 0, n))
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    (block,) = parts.blocks
    assert (block.inputs, block.sizes) == ((y,), ())
    for rows in (3, 5):
        check_runs(gm, parts, sample(rows, 4), sample(3 * rows + 1, 4))


def test_a_size_that_no_input_shows_is_an_input_after_the_tensors() -> None:
    make = Maker()
    x = make.input("x", (3, 4), dynamic=[0])
    y = make.input("y", (4,))
    n = make.size(x, 0)
    double = make.call(operator.mul, n, 2)
    again = make.call(operator.mul, 2, n)
    out = make.call(aten.expand.default, make.call(relu, y), [double, 4])
    out = make.call(aten.slice.Tensor, out, 0, 1, again)
    gm = make.done(out)
    parts = partition(gm, refusing())
    check_shape_of(gm, parts)
    (block,) = parts.blocks
    assert (block.inputs, block.sizes) == ((y,), (double,))
    for rows in (3, 5):
        check_runs(gm, parts, sample(rows, 4), sample(4))


def test_the_size_of_a_tensor_inside_a_block_adds_no_output() -> None:
    make = Maker()
    x = make.input("x", (3, 4), dynamic=[0])
    inner = make.call(relu, x)
    doubled = make.call(aten.cat.default, [inner, inner])
    n = make.size(doubled, 0)
    total = make.call(aten.sum.dim_IntList, doubled, [0])
    a = make.call(sin, total)
    wide = make.call(aten.expand.default, a, [n, 4])
    gm = make.done(wide, n)
    parts = partition(gm, refusing("sin", "expand"))
    check_shape_of(gm, parts)
    (block,) = parts.blocks
    assert block.outputs == (total,)
    outer = check_runs(gm, parts, sample(3, 4))
    assert any(node.target is aten.sym_size.int and node.args[0].name == "x" for node in outer.graph.nodes)
    check_runs(gm, parts, sample(5, 4))


def test_a_symint_placeholder() -> None:
    make = Maker()
    x = make.input("x", (3, 4), dynamic=[0])
    s = make.value("s", x.meta["val"].shape[0])
    y = make.input("y", (4,))
    near = make.call(aten.view.default, make.call(relu, x), [4, s])
    far = make.call(aten.expand.default, make.call(exp, make.call(sin, make.call(relu, y))), [s, 4])
    gm = make.done(near, far)
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    assert [names(block.sizes) for block in parts.blocks] == [[], ["s"]]
    for rows in (3, 5):
        check_runs(gm, parts, sample(rows, 4), rows, sample(4))


def test_a_python_number_as_placeholder_becomes_a_literal() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    k = make.value("k", 3)
    gm = make.done(make.call(mul, x, k))
    parts = partition(gm, refusing())
    check_shape_of(gm, parts)
    assert parts.blocks[0].inputs == (x,)
    check_runs(gm, parts, sample(2, 4), 3)


def test_an_unbacked_size_that_an_input_shows() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    y = make.input("y", (1, 3))
    found = make.call(aten.nonzero.default, x)
    count = make.size(found, 0)
    pairs = make.call(operator.mul, count, 2)
    gm = make.done(make.call(aten.neg.default, found), make.call(aten.expand.default, y, [pairs, 3]))
    parts = partition(gm, refusing("nonzero"))
    check_shape_of(gm, parts)
    assert parts.blocks[0].sizes == ()
    assert parts.blocks[0].inputs == (y, found)
    check_runs(gm, parts, sample(2, 4), sample(1, 3))


def test_an_unbacked_size_from_item() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    k = make.input("k", (), dtype=torch.int64)
    a = make.call(relu, x)
    count = make.call(aten._local_scalar_dense.default, make.call(aten.neg.default, k))
    torch._check(count.meta["val"] >= 0)
    b = make.call(aten.expand.default, make.call(aten.unsqueeze.default, a, 0), [count, 2, 4])
    gm = make.done(b)
    parts = partition(gm, refusing())
    check_shape_of(gm, parts)
    assert len(parts.blocks) == 2  # the negation before, the expansion after .item()
    assert names(parts.torch_nodes) == ["_local_scalar_dense_default"]
    assert parts.blocks[1].sizes == (count,)
    for repeats in (1, 3):
        check_runs(gm, parts, sample(2, 4), torch.tensor(-repeats))


def test_a_data_dependent_size_made_inside_a_block() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    y = make.input("y", (1, 3))
    found = make.call(aten.nonzero.default, make.call(relu, x))
    count = make.size(found, 0)
    inner = make.call(aten.expand.default, y, [count, 3])
    later = make.call(aten.expand.default, make.call(exp, make.call(sin, y)), [count, 3])
    gm = make.done(inner, later)
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    check_runs(gm, parts, sample(2, 4), sample(1, 3))
    parts = partition(gm, refusing("sin", later))
    check_shape_of(gm, parts)
    assert found in parts.blocks[0].outputs
    check_runs(gm, parts, sample(2, 4), sample(1, 3))


def test_symbolic_floats_and_bools_stay_outside() -> None:
    make = Maker()
    x = make.input("x", (3, 4), dynamic=[0])
    n = make.size(x, 0)
    ratio = make.call(operator.truediv, n, 2)
    up = make.call(torch.sym_ite, make.call(operator.gt, n, 100), 1, 2)
    a = make.call(relu, x)
    scaled = make.call(mul, a, ratio)
    gm = make.done(scaled, make.call(add, a, up))
    asked: list[fx.Node] = []
    parts = partition(gm, lambda node: asked.append(node) is None)
    check_shape_of(gm, parts)
    assert scaled not in asked
    assert names(parts.torch_nodes) == [scaled.name]
    for rows in (3, 5):
        check_runs(gm, parts, sample(rows, 4))
