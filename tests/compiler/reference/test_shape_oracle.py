"""Integer expressions: what TensorRT computes on the CPU while it infers shapes, and what the lifted module computes.

Values stay small: TensorRT carries int32 shape arithmetic out in 64 bits, so that it never wraps around where a kernel
would. The lowest int64 over -1 is never asked for: TensorRT itself dies of it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from handmade import CLIP, Handmade, trt
from hypothesis import given, note, settings
from hypothesis import strategies as st

from trtplug._tensorrt import trt_dtype
from trtplug.reference import LayerError

OPS, UNARY, MODES = trt.ElementWiseOperation, trt.UnaryOperation, trt.SampleMode
BOUND = 10_000
small = st.integers(-12, 12)


def agree(made: Handmade, value: Any) -> None:
    """TensorRT's value of a 1-D integer tensor and the lifted module's are the same."""
    theirs = made.computed_shape(value)
    ours = made.run(value).clamp(-CLIP, CLIP).tolist()
    assert theirs == ours, f"TensorRT computes {theirs}, the lifted module {ours}"


class Program:
    """A pool of 1-D integer tensors, each step adding one made of others."""

    def __init__(self, draw: Any) -> None:
        self.draw, self.made = draw, Handmade()
        self.n = self.made.network
        self.pool = [self.made.constant(draw(st.lists(small, min_size=1, max_size=5)), torch.int64) for _ in range(2)]

    def pick(self) -> Any:
        return self.draw(st.sampled_from(self.pool))

    def like(self, value: Any) -> Any:
        """Another tensor of the pool, cast and wrapped round to go with a value."""
        other = self.n.add_slice(self.pick(), (0,), (value.shape[0],), (1,))
        other.mode = MODES.WRAP
        return self.n.add_cast(other.get_output(0), value.dtype).get_output(0)

    def number(self, value: Any, number: int) -> Any:
        return self.made.constant([number], torch.int64 if value.dtype == trt.int64 else torch.int32)

    def binary(self, a: Any, b: Any, op: Any) -> Any:
        return self.n.add_elementwise(a, b, op).get_output(0)

    def bounded(self, value: Any, low: int = -BOUND, high: int = BOUND) -> Any:
        above = self.binary(value, self.number(value, low), OPS.MAX)
        return self.binary(above, self.number(value, high), OPS.MIN)

    def arithmetic(self) -> Any:
        a = self.pick()
        op = self.draw(st.sampled_from([OPS.SUM, OPS.SUB, OPS.PROD, OPS.MAX, OPS.MIN]))
        return self.bounded(self.binary(a, self.like(a), op))

    def nonzero(self, value: Any) -> Any:
        zero = self.binary(value, self.number(value, 0), OPS.EQUAL)
        return self.n.add_select(zero, self.number(value, 1), value).get_output(0)

    def division(self) -> Any:
        a = self.pick()
        return self.binary(a, self.nonzero(self.like(a)), self.draw(st.sampled_from([OPS.DIV, OPS.FLOOR_DIV])))

    def remainder(self) -> Any:
        a = self.pick()
        b = self.nonzero(self.like(a))
        quotient = self.binary(a, b, self.draw(st.sampled_from([OPS.DIV, OPS.FLOOR_DIV])))
        return self.binary(a, self.binary(quotient, b, OPS.PROD), OPS.SUB)

    def power(self) -> Any:
        base = self.bounded(self.pick(), -20, 20)
        return self.bounded(self.binary(base, self.bounded(self.like(base), -3, 3), OPS.POW))

    def unary(self) -> Any:
        return self.n.add_unary(self.pick(), self.draw(st.sampled_from([UNARY.ABS, UNARY.NEG, UNARY.SIGN]))).get_output(
            0
        )

    def select(self) -> Any:
        a = self.pick()
        tests = [
            self.binary(a, self.like(a), self.draw(st.sampled_from([OPS.EQUAL, OPS.GREATER, OPS.LESS])))
            for _ in range(2)
        ]
        both = self.binary(*tests, self.draw(st.sampled_from([OPS.AND, OPS.OR, OPS.XOR])))
        if self.draw(st.booleans()):
            both = self.n.add_unary(both, UNARY.NOT).get_output(0)
        return self.n.add_select(both, a, self.like(a)).get_output(0)

    def gather(self) -> Any:
        a = self.pick()
        indices = self.bounded(self.pick(), -a.shape[0], a.shape[0] - 1)
        mode = self.draw(st.sampled_from([trt.GatherMode.DEFAULT, trt.GatherMode.ELEMENT]))
        return self.n.add_gather_v2(a, indices, mode).get_output(0)

    def slice(self) -> Any:
        mode = self.draw(st.sampled_from([MODES.WRAP, MODES.CLAMP, MODES.REFLECT, MODES.FILL]))
        start, size, stride = self.draw(small), self.draw(st.integers(1, 5)), self.draw(st.integers(-3, 3))
        layer = self.n.add_slice(self.pick(), (start,), (size,), (stride,))
        layer.mode = mode
        return layer.get_output(0)

    def strict_slice(self) -> Any:
        a = self.pick()
        start, stop = sorted(self.draw(st.tuples(*[st.integers(0, a.shape[0] - 1)] * 2)))
        size = stop - start + 1
        backwards = self.draw(st.booleans())
        layer = self.n.add_slice(a, (stop if backwards else start,), (size,), (-1 if backwards else 1,))
        return layer.get_output(0)

    def concat(self) -> Any:
        a = self.pick()
        b = self.n.add_cast(self.pick(), a.dtype).get_output(0)
        return self.shortened(self.n.add_concatenation([a, b]).get_output(0))

    def shortened(self, value: Any) -> Any:
        size = min(value.shape[0], 5)
        return self.n.add_slice(value, (value.shape[0] - size,), (size,), (1,)).get_output(0)

    def reduce(self) -> Any:
        op = self.draw(st.sampled_from(["SUM", "PROD", "MAX", "MIN", "AVG"]))
        bounded = self.bounded(self.pick(), -20, 20)
        reduced = self.n.add_reduce(bounded, getattr(trt.ReduceOperation, op), 1, True)
        return self.bounded(reduced.get_output(0))

    def cast(self) -> Any:
        dtype = self.draw(st.sampled_from([trt.int32, trt.int64]))
        return self.n.add_cast(self.pick(), dtype).get_output(0)

    def through_float(self) -> Any:
        a = self.pick()
        floats = [self.n.add_cast(t, trt.float32).get_output(0) for t in (a, self.nonzero(self.like(a)))]
        op = self.draw(st.sampled_from([OPS.DIV, OPS.FLOOR_DIV, OPS.PROD, OPS.SUM, OPS.MAX]))
        x = self.binary(*floats, op)
        rounding = self.draw(st.sampled_from([None, UNARY.CEIL, UNARY.FLOOR, UNARY.ROUND]))
        x = x if rounding is None else self.n.add_unary(x, rounding).get_output(0)
        return self.bounded(self.n.add_cast(x, a.dtype).get_output(0))

    def transpose(self) -> Any:
        a = self.pick()
        pair = self.n.add_concatenation([a, self.like(a)]).get_output(0)
        layer = self.n.add_shuffle(pair)
        layer.reshape_dims = (2, -1)
        layer.second_transpose = (1, 0)
        flat = self.n.add_shuffle(layer.get_output(0))
        flat.reshape_dims = (-1,)
        return self.shortened(flat.get_output(0))

    def unsqueeze(self) -> Any:
        axis = self.draw(st.integers(-2, 1))
        tall = self.n.add_unsqueeze(self.pick(), self.made.constant([axis], torch.int64)).get_output(0)
        return self.n.add_squeeze(tall, self.made.constant([axis], torch.int64)).get_output(0)

    def one_hot(self) -> Any:
        values = self.made.constant(self.draw(st.lists(small, min_size=2, max_size=2)), torch.int64)
        index = self.made.constant(self.draw(st.integers(0, 3)), torch.int64)
        return self.n.add_one_hot(index, values, self.made.constant(4, torch.int64), 0).get_output(0)

    def linspace(self) -> Any:
        layer = self.n.add_fill((self.draw(st.integers(1, 5)),), trt.FillOperation.LINSPACE, trt.int64)
        layer.set_input(1, self.made.constant(self.draw(small), torch.int64))
        layer.set_input(2, self.made.constant([self.draw(small)], torch.int64))
        return layer.get_output(0)


STEPS = sorted(
    {"arithmetic", "division", "remainder", "power", "unary", "select", "gather", "slice", "strict_slice", "concat"}
    | {"reduce", "cast", "through_float", "transpose", "unsqueeze", "one_hot", "linspace"}
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_integer_expressions(data: st.DataObject) -> None:
    torch.set_num_threads(1)
    program = Program(data.draw)
    for name in data.draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=8), label="steps"):
        program.pool.append(getattr(program, name)())
        note(f"{name}: {list(program.pool[-1].shape)}")
    agree(program.made, program.pool[-1])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("op", ["SUM", "SUB", "PROD", "DIV", "FLOOR_DIV", "POW", "MAX", "MIN"])
def test_signs(op: str, dtype: torch.dtype) -> None:
    made = Handmade()
    a, b = made.constant([-7, 7, -7, 7, 0, 3], dtype), made.constant([2, -2, -2, 2, 5, -1], dtype)
    agree(made, made.network.add_elementwise(a, b, getattr(OPS, op)).get_output(0))


@pytest.mark.parametrize("op", ["SUM", "SUB", "PROD"])
def test_int64_wraps_around(op: str) -> None:
    made = Handmade()
    most = 2**63 - 1
    a, b = made.constant([most, -most - 1, most], torch.int64), made.constant([2, -1, most], torch.int64)
    agree(made, made.network.add_elementwise(a, b, getattr(OPS, op)).get_output(0))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_floats_are_truncated_and_saturate(dtype: torch.dtype) -> None:
    made = Handmade()
    x = made.constant([2.7, -2.7, 2.5, -0.5, 1e30, -1e30], torch.float32)
    agree(made, made.network.add_cast(x, trt_dtype(dtype)).get_output(0))


def test_narrowing_an_integer_wraps_around() -> None:
    made = Handmade()
    x = made.constant([2**31, 2**32 + 5, -(2**31) - 1, 2**33], torch.int64)
    agree(made, made.network.add_cast(x, trt.int32).get_output(0))


def test_floor_division_of_floats_rounds_the_quotient_first() -> None:
    made = Handmade()
    quotient = made.network.add_elementwise(
        made.constant([1.0, 7.0, -7.0, 7.0]), made.constant([0.1, -2.0, 2.0, 2.0]), OPS.FLOOR_DIV
    )
    agree(made, made.network.add_cast(quotient.get_output(0), trt.int64).get_output(0))


@pytest.mark.parametrize("mode", ["WRAP", "CLAMP", "REFLECT", "FILL"])
@pytest.mark.parametrize("places", [(-3, 5, 1), (5, 6, -2), (1, 4, 0), (7, 3, 2), (0, 1, 1)], ids=str)
def test_slices_outside(mode: str, places: tuple[int, int, int]) -> None:
    made = Handmade()
    layer = made.network.add_slice(made.constant([2, 3, 4]), *([v] for v in places))
    layer.mode = getattr(MODES, mode)
    agree(made, layer.get_output(0))


def test_slice_of_some_axes() -> None:
    made = Handmade()
    layer = made.network.add_slice(made.constant([[2, 3, 4], [5, 6, 7]]), (1,), (2,), (1,))
    layer.set_input(5, made.constant([1]))
    flat = made.network.add_shuffle(layer.get_output(0))
    flat.reshape_dims = (-1,)
    agree(made, flat.get_output(0))


def gather_outside(made: Handmade, index: int) -> Any:
    return made.network.add_gather(made.constant([5, 6, 7]), made.constant([index]), 0)


REFUSED = {
    "gather above": (lambda made: gather_outside(made, 3), "index 3"),
    "gather below": (lambda made: gather_outside(made, -4), "index -4"),
    "slice": (lambda made: made.network.add_slice(made.constant([5, 6]), (1,), (2,), (1,)), "leaves axis 0"),
    "division": (
        lambda made: made.network.add_elementwise(made.constant([5]), made.constant([0]), OPS.DIV),
        "ZeroDivisionError",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_tensorrt_refuses_is_refused(case: str) -> None:
    make, message = REFUSED[case]
    made = Handmade()
    layer = make(made)
    layer.name = "culprit"
    assert made.computed_shape(layer.get_output(0)).count(None) > 0  # type: ignore[union-attr]
    module = made.lift(layer.get_output(0))
    with pytest.raises(LayerError, match=f"layer 'culprit' .*{message}"):
        module()
