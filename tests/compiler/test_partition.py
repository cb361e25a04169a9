"""The partition on graphs made by hand, each with the one thing it is about."""

from __future__ import annotations

import importlib.util
import operator
import warnings
from pathlib import Path

import pytest
import torch
from test_partition_graphs import Maker, check_runs, check_shape_of, linked, names, refusing
from torch import fx, nn

from trtplug.partition import extract, link, partition, tensor_bytes

aten = torch.ops.aten
relu, sin, exp, add, mul = (
    aten.relu.default,
    aten.sin.default,
    aten.exp.default,
    aten.add.Tensor,
    aten.mul.Tensor,
)


def sample(*shape: int) -> torch.Tensor:
    return torch.linspace(-2, 3, torch.Size(shape).numel()).reshape(shape)


# --- blocks and ranks


def test_everything_supported_is_one_block() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    a = make.call(relu, x)
    b = make.call(add, a, make.call(exp, a))
    gm = make.done(b)
    parts = partition(gm, refusing())
    check_shape_of(gm, parts)
    assert [names(block.nodes) for block in parts.blocks] == [["relu_default", "exp_default", "add_tensor"]]
    assert parts.torch_nodes == ()
    assert parts.too_small == {}
    check_runs(gm, parts, sample(2, 4))


def test_a_graph_is_as_good_as_its_module() -> None:
    make = Maker()
    gm = make.done(make.call(relu, make.input("x", (2, 4))))
    assert partition(gm.graph, refusing()) == partition(gm, refusing())


def test_everything_refused_leaves_the_graph() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    gm = make.done(make.call(exp, make.call(relu, x)))
    parts = partition(gm, lambda node: False)
    assert parts.blocks == ()
    assert names(parts.torch_nodes) == ["relu_default", "exp_default"]
    outer = check_runs(gm, parts, sample(2, 4))
    assert names(outer.graph.nodes) == names(gm.graph.nodes)


def test_an_empty_graph() -> None:
    gm = Maker().done()
    parts = partition(gm, refusing())
    assert (parts.blocks, parts.torch_nodes) == ((), ())
    assert linked(gm, parts)() == ()


def test_the_output_may_be_an_input_a_weight_a_number_or_the_same_twice() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    y = make.input("y", (3,))
    w = make.weight("w", sample(4))
    a = make.call(add, x, w)
    gm = make.done(a, x, w, a, None, 3)
    parts = partition(gm, refusing())
    check_shape_of(gm, parts)
    (block,) = parts.blocks
    assert names(block.outputs) == ["add_tensor"]
    assert y not in block.inputs
    check_runs(gm, parts, sample(2, 4), sample(3))


def test_a_diamond_around_a_refused_node_is_two_blocks() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    top = make.call(relu, x)
    left = make.call(sin, top)
    right = make.call(exp, top)
    gm = make.done(make.call(add, left, right))
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    assert len(parts.blocks) == 2
    assert parts.blocks[0].nodes[0] is top
    assert left in parts.blocks[1].inputs
    check_runs(gm, parts, sample(2, 4))


def test_parallel_branches_share_blocks() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    ends = []
    for _ in range(4):
        ends.append(make.call(exp, make.call(sin, make.call(relu, x))))
    gm = make.done(*ends)
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    assert [len(block.nodes) for block in parts.blocks] == [4, 4]
    check_runs(gm, parts, sample(2, 4))


def test_a_skip_connection_past_a_refused_node() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    a = make.call(relu, x)
    b = make.call(exp, a)
    c = make.call(sin, b)
    d = make.call(add, a, c)
    gm = make.done(d)
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    assert [names(block.nodes) for block in parts.blocks] == [["relu_default", "exp_default"], ["add_tensor"]]
    assert set(parts.blocks[1].inputs) == {a, c}
    check_runs(gm, parts, sample(2, 4))


def test_two_outputs_of_one_node_stay_with_it() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    both = make.call(aten.sort.default, x, 1)
    first, second = make.call(operator.getitem, both, 0), make.call(operator.getitem, both, 1)
    gm = make.done(make.call(sin, first), second)
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    (block,) = parts.blocks
    assert block.nodes == (both, first, second)
    assert block.outputs == (first, second)
    assert block.compute_nodes == (both,)
    check_runs(gm, parts, sample(2, 4))
    parts = partition(gm, refusing("sort"))
    check_shape_of(gm, parts)
    assert parts.blocks[0].inputs == (first,)
    assert parts.torch_nodes == (both,)
    check_runs(gm, parts, sample(2, 4))


def test_several_values_taken_whole_do_not_cross() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    pieces = make.call(aten.split.Tensor, make.call(relu, x), 2, 1)
    gm = make.done(make.call(aten.cat.default, pieces))
    parts = partition(gm, refusing())
    check_shape_of(gm, parts)
    assert names(parts.torch_nodes) == ["split_tensor", "cat_default"]
    check_runs(gm, parts, sample(2, 4))


def test_dead_nodes_are_neither_asked_about_nor_kept() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    dead = make.call(exp, make.call(sin, x))
    gm = make.done(make.call(relu, x))
    asked: list[fx.Node] = []
    parts = partition(gm, lambda node: asked.append(node) is None)
    check_shape_of(gm, parts)
    assert names(asked) == ["relu_default"]
    assert dead.name not in names(linked(gm, parts).graph.nodes)


# --- constants


def test_constants_are_copied_into_each_block_that_uses_them() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    w = make.weight("layer.w", sample(4))
    scale = make.call(exp, w)
    scale = make.call(aten.neg.default, scale)
    a = make.call(mul, x, scale)
    b = make.call(sin, a)
    c = make.call(mul, b, scale)
    gm = make.done(c)
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    assert [names(block.copies) for block in parts.blocks] == [["layer_w", "exp_default", "neg_default"]] * 2
    assert [names(block.inputs) for block in parts.blocks] == [["x"], ["sin_default"]]
    assert parts.torch_nodes == (b,)
    check_runs(gm, parts, sample(2, 4))


def test_a_refused_constant_is_computed_by_torch_and_makes_no_boundary() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    w = make.weight("w", sample(4))
    refused = make.call(sin, w)
    folded = make.call(exp, refused)
    a = make.call(relu, x)
    b = make.call(mul, a, folded)
    gm = make.done(b)
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    (block,) = parts.blocks
    assert block.nodes == (a, b)
    assert block.copies == (folded,)
    assert block.inputs == (x, refused)
    assert parts.torch_nodes == (refused,)
    check_runs(gm, parts, sample(2, 4))


def test_a_constant_that_torch_reads_is_computed_there() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    folded = make.call(exp, make.weight("w", sample(4)))
    gm = make.done(make.call(relu, x), folded)
    parts = partition(gm, refusing())
    check_shape_of(gm, parts)
    assert parts.torch_nodes == (folded,)
    check_runs(gm, parts, sample(2, 4))


def test_a_function_of_sizes_alone_is_a_constant_of_the_block() -> None:
    make = Maker()
    x = make.input("x", (3, 4), dynamic=[0])
    n = make.size(x, 0)
    a = make.call(sin, make.call(relu, x))
    filled = make.call(aten.full.default, [n, 4], 2.0)
    gm = make.done(make.call(add, a, filled))
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    assert filled in parts.blocks[1].copies
    assert parts.blocks[1].inputs == (a,)
    for rows in (3, 7):
        check_runs(gm, parts, sample(rows, 4))


def test_random_numbers_are_drawn_once() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    noise = make.call(aten.rand.default, [2, 4])
    a = make.call(sin, make.call(add, x, noise))
    gm = make.done(make.call(add, a, noise))
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    assert noise in parts.blocks[0].nodes
    assert noise in parts.blocks[0].outputs
    torch.manual_seed(0)
    want = gm(sample(2, 4))
    torch.manual_seed(0)
    torch.testing.assert_close(linked(gm, parts)(sample(2, 4)), want)


def test_random_numbers_are_drawn_in_order_though_nobody_reads_them() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    make.call(aten.rand.default, [3])
    first = make.call(aten.dropout.default, make.call(sin, x), 0.5, True)
    second = make.call(aten.rand_like.default, x)
    make.call(aten.dropout.default, x, 0.5, False)  # draws nothing
    gm = make.done(make.call(add, make.call(sin, second), first))
    parts = partition(gm, lambda node: node.target in (sin, add))
    module = linked(gm, parts)
    drawn = [node.target for node in module.graph.nodes if "rand" in str(node.target) or "drop" in str(node.target)]
    assert drawn == [aten.rand.default, aten.dropout.default, aten.rand_like.default]
    torch.manual_seed(0)
    want = gm(sample(2, 4))
    torch.manual_seed(0)
    torch.testing.assert_close(module(sample(2, 4)), want)


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
    size = formula(make.call, make.size(x, 0), make.size(x, 1))  # type: ignore[operator]
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


# --- min_block_size


def test_small_blocks_go_back_to_torch() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    a = make.call(relu, x)
    b = make.call(exp, make.call(sin, a))
    c = make.call(exp, make.call(relu, make.call(sin, b)))
    gm = make.done(c)
    parts = partition(gm, refusing("sin"), min_block_size=2)
    check_shape_of(gm, parts)
    assert [len(block.nodes) for block in parts.blocks] == [2]
    assert parts.too_small == {a: 1, b: 1}
    assert set(parts.too_small) < set(parts.torch_nodes)
    check_runs(gm, parts, sample(2, 4))


@pytest.mark.parametrize("least", [1, 2, 3, 4])
def test_what_is_left_is_what_a_fresh_partition_would_give(least: int) -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    for length in (1, 3, 2, 1, 3):
        for _ in range(length):
            x = make.call(relu, x)
        x = make.call(sin, x)
    gm = make.done(x)
    parts = partition(gm, refusing("sin"), min_block_size=least)
    check_shape_of(gm, parts)
    assert sorted(map(len, (block.nodes for block in parts.blocks))) == sorted(n for n in (1, 3, 2, 1, 3) if n >= least)
    again = partition(gm, lambda node: refusing("sin")(node) and node not in parts.too_small, min_block_size=least)
    assert [block.nodes for block in again.blocks] == [block.nodes for block in parts.blocks]
    assert not again.too_small
    check_runs(gm, parts, sample(2, 4))


def test_getitems_and_copies_do_not_count_as_size() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    folded = make.call(exp, make.weight("w", sample(4)))
    both = make.call(aten.sort.default, x, 1)
    first = make.call(operator.getitem, both, 0)
    gm = make.done(make.call(mul, first, folded))
    assert partition(gm, refusing(), min_block_size=2).blocks
    parts = partition(gm, refusing(), min_block_size=3)
    assert set(parts.too_small.values()) == {2}
    check_runs(gm, parts, sample(2, 4))


def test_a_move_for_bytes_does_not_cost_a_block() -> None:
    make = Maker()
    x = make.input("x", (64, 4))
    y = make.input("y", (64, 4))
    kept = make.call(relu, x)
    moved = make.call(exp, y)  # later would be cheaper: its output would not cross
    late = make.call(add, make.call(sin, kept), moved)
    gm = make.done(make.call(relu, late))
    assert [len(b.nodes) for b in partition(gm, refusing("sin")).blocks] == [1, 3]
    parts = partition(gm, refusing("sin"), min_block_size=2)
    assert [len(b.nodes) for b in parts.blocks] == [2, 2]
    check_runs(gm, parts, sample(64, 4), sample(64, 4))


def test_a_negative_block_size_is_refused() -> None:
    with pytest.raises(ValueError, match="min_block_size=-1"):
        partition(Maker().done(), refusing(), min_block_size=-1)


# --- bytes


def test_a_node_moves_to_the_block_that_reads_it() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    y = make.input("y", (64, 4))
    a = make.call(sin, make.call(relu, x))
    chain = make.call(exp, make.call(relu, y))
    gm = make.done(make.call(add, make.call(aten.sum.default, chain), a))
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    assert names(parts.blocks[0].nodes) == ["relu_default"]
    assert parts.crossing_bytes == 4 * (8 + 8 + 8 + 8 + 64 * 4)
    check_runs(gm, parts, sample(2, 4), sample(64, 4))


def test_a_chain_moves_across_its_widest_tensor() -> None:
    make = Maker()
    x = make.input("x", (2, 4))
    y = make.input("y", (1, 4))
    wide = make.call(aten.expand.default, y, [64, 4])
    narrow = make.call(aten.sum.dim_IntList, make.call(exp, wide), [0])
    a = make.call(sin, make.call(relu, x))
    gm = make.done(make.call(add, narrow, a))
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    assert names(parts.blocks[0].nodes) == ["relu_default"]
    check_runs(gm, parts, sample(2, 4), sample(1, 4))


def test_what_pays_moves_and_what_does_not_stays() -> None:
    make = Maker()
    x = make.input("x", (64, 4))
    y = make.input("y", (1, 4))
    kept = make.call(relu, x)  # Torch needs it after block 0: its sum is smaller to hand on than kept itself
    total = make.call(aten.sum.dim_IntList, kept, [0])
    wide = make.call(aten.expand.default, y, [64, 4])  # only its sum is needed, in block 1
    narrow = make.call(aten.sum.dim_IntList, make.call(exp, wide), [0])
    late = make.call(aten.sum.dim_IntList, make.call(sin, kept), [0])
    gm = make.done(make.call(add, make.call(add, narrow, late), total))
    parts = partition(gm, refusing("sin"))
    check_shape_of(gm, parts)
    assert parts.blocks[0].nodes == (kept, total)
    assert parts.crossing_bytes == 4 * (256 + 256 + 4 + 4 + 4 + 256 + 4)
    check_runs(gm, parts, sample(64, 4), sample(1, 4))


def test_bytes_of_a_tensor() -> None:
    make = Maker()
    x = make.input("x", (3, 4), dynamic=[0], dtype=torch.float16)
    assert tensor_bytes(x) == 24
    assert tensor_bytes(make.size(x, 0)) == 0


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
