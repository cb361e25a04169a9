"""The trace stage: inputs as specs, ranges by symbol, and errors that say what to do."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import trtplug
from trtplug.errors import InputError, TraceError
from trtplug.input_specs import spread_sizes
from trtplug.ranges import Range
from trtplug.tracing import Input, Program, as_program, trace
from trtplug_registry import UnknownNameError


class Add(nn.Module):
    def forward(self, x, y):
        return x + y


class Separate(nn.Module):
    def forward(self, x, y):
        return x * 2, y * 2


def batched(low: int = 1, opt: int = 2, high: int = 8, **options) -> Input:
    return Input(min_shape=(low, 4), opt_shape=(opt, 4), max_shape=(high, 4), **options)


def shapes(program: Program) -> list[tuple]:
    users = set(program.exported.graph_signature.user_inputs)
    nodes = [node for node in program.exported.graph.nodes if node.op == "placeholder" and node.name in users]
    return [tuple(map(str, node.meta["val"].shape)) for node in nodes]


def test_static():
    program = trace(nn.Linear(4, 2), inputs=[Input(shape=(3, 4))])
    assert program.ranges == {}
    assert shapes(program) == [("3", "4")]


@pytest.mark.parametrize(("low", "opt", "high"), [(1, 1, 8), (1, 8, 8), (0, 1, 2), (2, 3, 3), (1, 64, 128)])
@pytest.mark.parametrize("dims", [{}, {0: "batch"}], ids=["unnamed", "named"])
def test_a_range_is_kept_whole(low, opt, high, dims):
    program = trace(nn.Linear(4, 2), inputs=[batched(low, opt, high, dims=dims)])
    assert list(program.ranges.values()) == [Range(low, opt, high)]


def test_equal_min_and_max_are_static():
    program = trace(nn.Linear(4, 2), inputs=[Input(min_shape=(3, 4), opt_shape=(3, 4), max_shape=(3, 4))])
    assert program.ranges == {}


def test_a_shared_name_is_one_symbol():
    program = trace(Separate(), inputs=[batched(dims={0: "batch"}), batched(dims={0: "batch"})])
    assert len(program.ranges) == 1
    assert shapes(program)[0] == shapes(program)[1]


def test_unnamed_dimensions_are_independent_unless_the_model_relates_them():
    assert len(trace(Separate(), inputs=[batched(), batched()]).ranges) == 2
    assert len(trace(Add(), inputs=[batched(), batched()]).ranges) == 1


def test_names_with_equal_opt_are_told_apart_and_may_be_related_all_the_same():
    square = Input(min_shape=(8, 8), opt_shape=(32, 32), max_shape=(64, 64), dims={0: "height", 1: "width"})
    assert len(trace(nn.ReLU(), inputs=[square]).ranges) == 2

    unnamed = Input(min_shape=(1, 1), opt_shape=(4, 4), max_shape=(9, 9))

    class Transposes(nn.Module):
        def forward(self, x):
            return x + x.t()

    assert len(trace(Transposes(), inputs=[unnamed]).ranges) == 1


class Pair(NamedTuple):
    one: Any
    two: Any


class Mixed(nn.Module):
    def forward(self, items, pair, *, scale=2.0, mask=None, **rest):
        result = items["a"] * scale + items["b"][0] + pair.one - pair.two
        return (result if mask is None else result * mask), sum(rest.values())


def test_inputs_among_other_arguments():
    items = {"a": batched(dims={0: "n"}), "b": [torch.ones(4)]}
    pair = Pair(batched(dims={0: "n"}), torch.ones(4))
    program = trace(Mixed(), args=(items, pair), kwargs={"mask": None, "scale": 3.0})
    assert list(program.ranges.values()) == [Range(1, 2, 8)]


def test_extra_keywords():
    static = {"a": Input(shape=(2, 4)), "b": [torch.ones(4)]}, Pair(torch.ones(4), torch.ones(4))
    trace(Mixed(), args=static, kwargs={"extra": Input(shape=(2, 4))})
    with pytest.raises(InputError, match=r"receives 'extra' as \*\*rest: name them"):
        trace(Mixed(), args=static, kwargs={"extra": batched()})


def test_inputs_by_keyword_in_any_order():
    by_keyword = trace(Add(), inputs={"y": batched(1, 3, 9), "x": Input(shape=(1, 4))})
    assert list(by_keyword.ranges.values()) == [Range(1, 3, 9)]


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
)
def test_dtypes(dtype):
    class Identity(nn.Module):
        def forward(self, x):
            return x.clone()

    program = trace(Identity(), inputs=[Input(shape=(2,), dtype=dtype)])
    (node,) = [node for node in program.exported.graph.nodes if node.op == "placeholder"]
    assert node.meta["val"].dtype == dtype


def test_the_model_and_the_random_state_are_left_alone():
    model = nn.Sequential(nn.Linear(4, 2), nn.Dropout())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    trace(model, inputs=[batched()])
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_example_tensors():
    program = trace(
        nn.Linear(4, 2), (torch.ones(3, 4),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=16)},)
    )
    assert list(program.ranges.values()) == [Range(1, 3, 16)]


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "missing"),
        ({"shape": (1,), "min_shape": (1,)}, "both shape and min_shape"),
        ({"min_shape": (1,), "max_shape": (2,)}, "opt_shape missing"),
        ({"min_shape": (1,), "opt_shape": (1, 2), "max_shape": (1,)}, "differ in rank"),
        ({"min_shape": (4,), "opt_shape": (2,), "max_shape": (8,)}, "dimension 0 is not min <= opt <= max: 4..2..8"),
        ({"shape": 3}, "not a sequence"),
        ({"shape": (-1,)}, "holds -1"),
        ({"shape": (2.0,)}, r"holds 2\.0"),
        ({"shape": (2,), "dtype": float}, "not a torch.dtype"),
        ({"shape": (2,), "dims": {1: "n"}}, "names dimension 1"),
        ({"shape": (2,), "dims": {0: "not a name"}}, "not an identifier"),
    ],
)
def test_contradictory_specs(options, message):
    with pytest.raises(InputError, match=f"input 'x': .*{message}"):
        Input(**options, name="x")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([batched(dims={0: "n"}), batched(1, 2, 9, dims={0: "n"})], "a shared name means one range"),
        ([batched(dims={1: "n"}), batched()], "does not vary"),
        ([batched(0, 1, 1), batched()], "dimension 0 of input 'x' ranges over 0..1..1: a size that is at most 1"),
        ([batched()], "missing a required argument: 'y'"),
        (batched(), "a sequence or a mapping"),
    ],
)
def test_contradictory_inputs(inputs, message):
    with pytest.raises(InputError, match=message):
        trace(Add(), inputs=inputs)


@pytest.mark.parametrize("wrong", [5, torch.ones(2, 4)], ids=["a number", "a tensor"])
def test_what_is_no_sequence(wrong):
    model = nn.Linear(4, 4)
    with pytest.raises(InputError, match=r"trace: args is a tuple .* found a (int|Tensor): write \(x,\)"):
        trtplug.trace(model, wrong)
    with pytest.raises(InputError, match=r"trace: inputs= is a sequence or a mapping .* found a single (int|Tensor)"):
        trtplug.trace(model, inputs=wrong)
    for function in (trtplug.load, lambda path: trtplug.save(trtplug.compile(model, (torch.ones(2, 4),)), path)):
        with pytest.raises(trtplug.SettingsError, match="must be the path of a file or folder"):
            function(wrong)


def test_other_wrong_arguments():
    with pytest.raises(UnknownNameError, match="unknown input 'yy': did you mean 'y'"):
        trace(Add(), inputs={"x": batched(), "yy": batched()})
    with pytest.raises(InputError, match="both inputs= and args"):
        trace(Add(), (torch.ones(1),), inputs=[batched()])
    with pytest.raises(InputError, match="both Input values and dynamic_shapes"):
        trace(Add(), (batched(), batched()), dynamic_shapes=({0: torch.export.Dim.AUTO}, None))
    with pytest.raises(InputError, match=r"expected a torch\.nn\.Module, found builtin"):
        trace(torch.relu, inputs=[batched()])


class FixesSize(nn.Module):
    def forward(self, x):
        y = x * 2
        return y.reshape(2, 4) + 1  # the line to name


class Branches(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[0] < 5 else x  # the line to name


@pytest.mark.parametrize("dims", [{}, {0: "batch"}], ids=["unnamed", "named"])
@pytest.mark.parametrize("model", [FixesSize(), Branches()], ids=lambda model: type(model).__name__)
def test_a_range_that_the_model_does_not_keep(model, dims):
    with pytest.raises(TraceError, match="the line to name") as caught:
        trace(model, inputs=[batched(dims=dims)])
    text = str(caught.value)
    assert "batch" in text if dims else "x" in text
    assert "TORCH_LOGS" not in text


def test_dimensions_that_must_be_equal():
    with pytest.raises(TraceError, match="one name"):
        trace(Add(), inputs=[batched(1, 2, 8), batched(1, 3, 9)])
    with pytest.raises(TraceError, match="must have the same size in this model"):
        trace(Add(), inputs=[batched(1, 2, 8), batched(1, 2, 9)])
    with pytest.raises(TraceError, match="one name"):
        trace(Add(), inputs=[batched(dims={0: "one"}), batched(dims={0: "two"})])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_export_refuses():
    class DataDependent(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else x + 1  # the line to name

    class Raises(nn.Module):
        def forward(self, x):
            raise ValueError("no such thing")  # the line to name

    with pytest.raises(TraceError, match=r"(?s)data-dependent.*the line to name"):
        trace(DataDependent(), inputs=[batched()])
    with pytest.raises(TraceError, match=r"refuses Raises at .*the line to name: ValueError: no such thing"):
        trace(Raises(), inputs=[batched()])


def test_an_exported_program_needs_bounds():
    def exported(dim):
        return torch.export.export(nn.Linear(4, 2), (torch.ones(3, 4),), dynamic_shapes=({0: dim},), strict=False)

    assert list(as_program(exported(torch.export.Dim("n", max=5))).ranges.values()) == [Range(0, 3, 5)]
    with pytest.raises(TraceError, match=r"dimension 0 of input 'input' \(s\d+\) has no upper bound.*max="):
        as_program(exported(torch.export.Dim.DYNAMIC))


def test_example_sizes():
    spans = {"a": Range(1, 1, 8), "b": Range(1, 1, 8), "c": Range(8, 224, 512), "d": Range(8, 224, 512)}
    assert spread_sizes(spans) == {"a": 2, "b": 4, "c": 224, "d": 256}
    assert spread_sizes({"a": Range(2, 2, 2), "b": Range(1, 2, 2)}) == {"a": 2, "b": 2}


def test_no_warning_escapes():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(Add(), inputs=[batched(), batched()])
