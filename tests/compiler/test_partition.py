"""The partition on graphs made by hand, each with the one thing it is about."""

from __future__ import annotations

import operator

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
from torch import fx

from trtplug.partition import partition, tensor_bytes

aten = torch.ops.aten


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
