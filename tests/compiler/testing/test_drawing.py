"""Calls drawn from domains: all that must be in play is, all that the domain forbids is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import planted
import pytest
import torch
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from trtplug.testing import DrawnCall, Layout, call_of, calls, values
from trtplug.testing.arguments import small_integers
from trtplug.testing.elements import Fill, edges
from trtplug.testing.script import script
from trtplug_registry import (
    ALL,
    FLOATS,
    NUMBERS,
    Anything,
    Converter,
    Domain,
    ListOf,
    Not,
    Only,
    Optional,
    Static,
    Tensor,
    TensorFacts,
    converter,
)

aten = torch.ops.aten
quick = settings(
    max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


def exists(this: Converter, condition: Callable[[DrawnCall], bool], **options: Any) -> DrawnCall:
    """A drawn call that satisfies a condition; fails where 2,000 draws hold none."""
    many = settings(max_examples=2000, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    return find(calls(this, **options), condition, settings=many)


def of_relu(spec: Tensor) -> Converter:
    @converter(aten.relu.default, Domain(self=spec))
    def relu(ctx, self):  # type: ignore[no-untyped-def]  # a toy
        return ctx.activation("RELU", self)

    return relu


RELU = of_relu(Tensor(ALL))


def shape(call: DrawnCall) -> tuple[Any, ...]:
    return call.tensors["self"].shape


@pytest.mark.parametrize("size", [0, 1, 2, 5])
def test_every_small_size_is_in_play(size: int) -> None:
    exists(RELU, lambda call: size in shape(call))


@pytest.mark.parametrize("rank", range(9))
def test_every_rank_is_in_play(rank: int) -> None:
    exists(RELU, lambda call: len(shape(call)) == rank)


@pytest.mark.parametrize("kind", ["contiguous", "permuted", "sliced", "offset", "expanded"])
def test_every_layout_is_in_play(kind: str) -> None:
    call = exists(RELU, lambda call: call.layouts["self"].kind == kind and 0 not in shape(call))
    plain = Fill("distinct")(call.tensors["self"])
    laid = call.layouts["self"](plain)
    assert laid.shape == plain.shape
    assert (kind == "contiguous") == (laid.is_contiguous() and laid.storage_offset() == 0) or laid.numel() < 2
    if kind != "expanded":
        assert torch.equal(laid, plain)


@pytest.mark.parametrize("dtype", ALL)
def test_the_wanted_dtype_is_drawn(dtype: torch.dtype) -> None:
    call = exists(RELU, lambda call: True, dtype=dtype)
    assert call.tensors["self"].dtype == dtype


@quick
@given(st.data())
def test_what_is_drawn_is_in_the_domain(data: st.DataObject) -> None:
    this = of_relu(Tensor(FLOATS, rank=(2, 3), zero_size=False, values=(0, 1)))
    call = data.draw(calls(this))
    assert this.domain.refusal(call.arguments) is None
    (tensor,) = data.draw(values(call)).values()
    assert not tensor.isnan().any()
    assert ((tensor >= 0) & (tensor <= 1)).all()


@quick
@given(st.data())
def test_axes_come_from_both_ends_and_relations_are_kept(data: st.DataObject) -> None:
    call = data.draw(calls(planted.right_sum))
    rank = max(1, call.tensors["self"].rank)
    axes = call.arguments["dim"]
    assert axes is None or len({axis % rank for axis in axes}) == len(axes)
    assert axes is None or all(-rank <= axis < rank for axis in axes)


def test_negative_axes_are_in_play() -> None:
    exists(planted.right_sum, lambda call: any(axis < 0 for axis in call.arguments["dim"] or ()))


@converter(aten.gelu.default, Domain(self=Tensor(FLOATS), approximate=Not(("none",))))
def not_none(ctx, self, *, approximate="none"):  # type: ignore[no-untyped-def]  # a toy
    return self


def test_not_draws_other_values_of_the_type() -> None:
    assert exists(not_none, lambda call: True).arguments["approximate"] != "none"
    exists(not_none, lambda call: call.arguments["approximate"] == "tanh")


@converter(
    aten._to_copy.default,
    Domain(
        self=Tensor(NUMBERS),
        dtype=Optional(Only(*FLOATS)),
        memory_format=Anything(),
        layout=Anything(),
        device=Anything(),
    ),
)
def copied(ctx, self, *, dtype=None, layout=None, device=None, pin_memory=None, non_blocking=False, memory_format=None):  # type: ignore[no-untyped-def]
    return self


def test_optional_and_anything() -> None:
    exists(copied, lambda call: call.arguments["dtype"] is None)
    exists(copied, lambda call: call.arguments["dtype"] is torch.float16)
    exists(copied, lambda call: call.arguments["memory_format"] is torch.contiguous_format)


@converter(
    aten.convolution.default,
    Domain(
        input=Tensor(FLOATS),
        weight=Tensor(FLOATS),
        bias=Optional(Tensor(FLOATS)),
        stride=ListOf(Static(1, 3), 2, 2),
        padding=ListOf(Static(0), 2, 2),
        dilation=ListOf(Static(1, 1), 2, 2),
        transposed=Only(False),
        output_padding=ListOf(Static(0, 0), 2, 2),
        groups=Static(1, 4),
    ),
)
def convolution(ctx, input, weight, bias, stride, padding, dilation, transposed, output_padding, groups):  # type: ignore[no-untyped-def]
    return input


@quick
@given(st.data())
def test_lists_of_numbers_are_lists_of_ints(data: st.DataObject) -> None:
    call = data.draw(calls(convolution))
    for name in ("stride", "padding", "dilation"):
        assert len(call.arguments[name]) == 2
        assert all(type(item) is int for item in call.arguments[name])
    assert type(call.arguments["groups"]) is int


@pytest.mark.parametrize(("low", "high"), [(3, 3), (-1, 2), (5, 1e9), (-1e9, -70), (3841, float("inf"))])
def test_small_integers_keep_the_bounds(low: float, high: float) -> None:
    @quick
    @given(small_integers(low, high))
    def check(value: int) -> None:
        assert low <= value <= high

    check()


@pytest.mark.parametrize("dtype", ALL)
def test_edges_fit_their_dtype(dtype: torch.dtype) -> None:
    for edge in edges(dtype):
        assert torch.tensor(edge, dtype=torch.float64).isnan() or torch.tensor(edge).to(dtype).item() == edge
    assert dtype.is_floating_point or dtype is torch.bool or -(2**31) not in edges(dtype)


@pytest.mark.parametrize("dtype", ALL)
def test_a_fill_is_the_same_each_time_and_mixes_its_edges_in(dtype: torch.dtype) -> None:
    facts = TensorFacts((4, 4), dtype)
    fill = Fill("edges", 3, (edges(dtype)[-1],))
    assert torch.equal(fill(facts), fill(facts))
    assert bool((fill(facts) == edges(dtype)[-1]).any())


def test_distinct_values_are_distinct() -> None:
    assert Fill("distinct")(TensorFacts((8, 8), torch.float32)).unique().numel() == 64


def test_defaults_at_the_end_are_left_out_as_export_does() -> None:
    x = torch.ones(2)
    call, _ = call_of(aten.add.Tensor, (x, x), {"alpha": 1})
    assert call.spell(lambda place, value: place) == (("self", "other"), {})
    call, _ = call_of(aten.add.Tensor, (x, x), {"alpha": 2})
    assert call.spell(lambda place, value: place)[1] == {"alpha": "alpha"}


def test_true_is_not_one() -> None:
    call, _ = call_of(aten.add.Tensor, (torch.ones(2), torch.ones(2)), {"alpha": True})
    assert "alpha" in call.spell(lambda place, value: value)[1]


@quick
@given(st.data())
def test_a_script_rebuilds_the_very_values(data: st.DataObject) -> None:
    call = data.draw(calls(planted.right_add))
    tensors = data.draw(values(call))
    code = script(call, tensors).partition("print(")[0].replace("import trtplug\n", "")
    space: dict[str, Any] = {}
    exec(code, space)
    for name, tensor in tensors.items():
        rebuilt = space[name]
        assert rebuilt.dtype == tensor.dtype
        assert rebuilt.stride() == tensor.stride()
        assert torch.equal(rebuilt.nan_to_num(7), tensor.nan_to_num(7))


def test_an_expanded_tensor_prints_as_one() -> None:
    layout = Layout("expanded", (0,))
    call = DrawnCall(aten.relu.default, {"self": TensorFacts((3, 2), torch.float32)}, {"self": layout})
    assert ".narrow(0, 0, 1).expand((3, 2))" in script(call, {"self": layout(torch.arange(6.0).view(3, 2))})
