"""Loops and conditionals, built by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from handmade import Handmade, trt

from trtplug.reference import LayerError, UnsupportedLayer

F32, I32, BOOL = torch.float32, torch.int32, torch.bool
OPS = trt.ElementWiseOperation


class Looped:
    """A loop over a hand-built network, with one recurrence."""

    def __init__(self, made: Handmade, first: Any, count: Any = None) -> None:
        self.made, self.loop = made, made.network.add_loop()
        if count is not None:
            self.loop.add_trip_limit(count, trt.TripLimit.COUNT)
        self.recurrence = self.loop.add_recurrence(first)
        self.state = self.recurrence.get_output(0)

    def next(self, value: Any) -> Any:
        self.recurrence.set_input(1, value)
        return self.loop.add_loop_output(self.state, trt.LoopOutput.LAST_VALUE).get_output(0)

    def collect(self, value: Any, kind: str, length: Any, axis: int = 0) -> Any:
        layer = self.loop.add_loop_output(value, getattr(trt.LoopOutput, kind), axis)
        layer.set_input(1, length)
        return layer.get_output(0)


def add(made: Handmade, a: Any, b: Any, op: Any = OPS.SUM) -> Any:
    return made.network.add_elementwise(a, b, op).get_output(0)


def test_count_with_all_outputs() -> None:
    made = Handmade()
    x, count = made.input("x", F32, 2), made.constant(3, I32)
    loop = Looped(made, x, count)
    grown = add(made, loop.state, x)
    outputs = [
        loop.next(grown),
        loop.collect(grown, "CONCATENATE", count),
        loop.collect(loop.state, "REVERSE", count, axis=1),
    ]
    last, forward, backward = made.lift(*outputs)(torch.tensor([1.0, 10.0]))
    assert last.tolist() == [4, 40]
    assert forward.tolist() == [[2, 20], [3, 30], [4, 40]]
    assert backward.tolist() == [[3, 2, 1], [30, 20, 10]]  # the state as each iteration finds it


@pytest.mark.parametrize("reverse", [False, True])
def test_iterator(reverse: bool) -> None:
    made = Handmade()
    xs = made.input("xs", F32, 2, 3)
    loop = Looped(made, made.constant(torch.zeros(2)), made.constant(3, I32))
    doubled = add(made, loop.state, loop.state)
    element = loop.loop.add_iterator(xs, 1, reverse).get_output(0)
    (have,) = made.lift(loop.next(add(made, doubled, element)))(torch.tensor([[1.0, 2, 3], [0, 1, 0]]))
    assert have.tolist() == ([4 * 3 + 2 * 2 + 1, 2] if reverse else [4 * 1 + 2 * 2 + 3, 2])


def test_trip_count_from_an_input_and_no_iteration() -> None:
    made = Handmade()
    x = made.input("x", F32, 1)
    loop = Looped(made, x, made.input("count", I32))
    module = made.lift(loop.next(add(made, loop.state, loop.state)))
    for count, want in ((0, 3.0), (1, 6.0), (4, 48.0)):
        assert module(torch.tensor([3.0]), torch.tensor(count, dtype=I32))[0].item() == want


def test_while_asks_before_each_iteration() -> None:
    made = Handmade()
    xs = made.input("xs", F32, 3)
    loop = Looped(made, made.constant(torch.tensor(0.0)))
    below = add(made, loop.state, made.constant(torch.tensor(5.0)), OPS.LESS)
    loop.loop.add_trip_limit(below, trt.TripLimit.WHILE)
    element = loop.loop.add_iterator(xs, 0, False).get_output(0)
    module = made.lift(loop.next(add(made, loop.state, element)))
    # the third element already fails the condition; a body run for its sake would read past the end
    assert module(torch.tensor([2.0, 2.0, 3.0]))[0].item() == 7.0
    with pytest.raises(LayerError, match=r"ITERATOR.*iteration 3 reads place 3"):
        module(torch.tensor([1.0, 1.0, 1.0]))


def test_nested_loops_and_what_they_capture() -> None:
    made = Handmade()
    rows = made.input("rows", F32, 2, 3)
    offset = made.input("offset", F32)
    outer = Looped(made, made.constant(torch.tensor(0.0)), made.constant(2, I32))
    row = outer.loop.add_iterator(rows, 0, False).get_output(0)
    inner = Looped(made, outer.state, made.constant(3, I32))
    element = inner.loop.add_iterator(row, 0, False).get_output(0)
    inside = inner.next(add(made, inner.state, add(made, element, offset)))
    (total,) = made.lift(outer.next(inside))(torch.arange(6.0).reshape(2, 3), torch.tensor(100.0))
    assert total.item() == 15 + 600


def test_inner_trip_count_from_the_outer_loop() -> None:
    made = Handmade()
    one = made.constant(1, I32)
    outer = Looped(made, made.constant(0, I32), made.constant(4, I32))
    inner = Looped(made, made.constant(1, I32), outer.state)  # its count is all that ties it to the outer loop
    power = inner.next(add(made, inner.state, inner.state))
    collected = outer.collect(power, "CONCATENATE", made.constant(4, I32))
    made.network.mark_output(outer.next(add(made, outer.state, one)))
    last, powers = made.lift(collected)()
    assert last.item() == 4
    assert powers.tolist() == [1, 2, 4, 8]


def test_loop_output_of_the_wrong_length_is_refused() -> None:
    made = Handmade()
    x = made.input("x", F32)
    loop = Looped(made, x, made.constant(3, I32))
    grown = add(made, loop.state, x)
    loop.next(grown)
    module = made.lift(loop.collect(grown, "CONCATENATE", made.constant(5, I32)))
    with pytest.raises(LayerError, match="length 5 after 3 iterations"):
        module(torch.tensor(1.0))


def test_value_used_outside_its_loop_is_refused() -> None:
    made = Handmade()
    x = made.input("x", F32)
    loop = Looped(made, x, made.constant(3, I32))
    loop.next(add(made, loop.state, x))
    with pytest.raises(UnsupportedLayer, match="outside its loop"):
        made.lift(made.network.add_unary(loop.state, trt.UnaryOperation.NEG).get_output(0))


def branched(made: Handmade, x: Any) -> Any:
    """exp(x) gathered at an index out of range, or -x."""
    branch = made.network.add_if_conditional()
    branch.set_condition(made.input("condition", BOOL))
    inside = branch.add_input(x).get_output(0)
    wrong = made.network.add_gather(inside, made.input("index", I32, 2), 0).get_output(0)
    other = made.network.add_unary(branch.add_input(x).get_output(0), trt.UnaryOperation.NEG).get_output(0)
    return branch.add_output(wrong, other).get_output(0)


def test_only_the_taken_branch_runs() -> None:
    made = Handmade()
    module = made.lift(branched(made, made.input("x", F32, 2)))
    assert "choose" in module.code
    x, bad = torch.tensor([1.0, 2.0]), torch.tensor([0, 7], dtype=I32)
    arguments = {"x": x, "index": bad, "condition": torch.tensor(False)}
    names = [node.target for node in module.graph.nodes if node.op == "placeholder"]
    assert module(*(arguments[name] for name in names))[0].tolist() == [-1.0, -2.0]
    arguments["condition"] = torch.tensor(True)
    with pytest.raises(LayerError, match=r"GATHER.*index 7"):
        module(*(arguments[name] for name in names))


def test_conditional_inside_a_loop() -> None:
    made = Handmade()
    flags = made.input("flags", BOOL, 3)
    loop = Looped(made, made.constant(torch.tensor(1.0)), made.constant(3, I32))
    branch = made.network.add_if_conditional()
    branch.set_condition(loop.loop.add_iterator(flags, 0, False).get_output(0))
    state = branch.add_input(loop.state).get_output(0)
    doubled = add(made, state, state)
    output = branch.add_output(doubled, made.network.add_unary(state, trt.UnaryOperation.NEG).get_output(0))
    module = made.lift(loop.next(output.get_output(0)))
    assert module(torch.tensor([True, False, True]))[0].item() == -4.0
    assert copy.deepcopy(module)(torch.tensor([True, True, True]))[0].item() == 8.0


def test_assertion() -> None:
    made = Handmade()
    x = made.input("x", F32, 2)
    holds = add(made, x, made.constant([0.0, 0.0]), OPS.GREATER)
    made.network.add_assertion(holds, "x must be positive")
    module = made.lift(made.network.add_identity(x).get_output(0))
    assert module(torch.tensor([1.0, 2.0]))[0].tolist() == [1.0, 2.0]
    with pytest.raises(LayerError, match=r"ASSERTION.*x must be positive"):
        module(torch.tensor([1.0, -2.0]))
