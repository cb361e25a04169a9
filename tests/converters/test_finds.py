"""Calls that the laws once found wrong, nightly or on a GPU: kept, since another run need not draw them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import trtplug
from trtplug.testing import run_lowered_op, run_op
from trtplug_registry import Registry

aten = torch.ops.aten
INTS = torch.tensor([3], dtype=torch.int32)
EMPTY = torch.zeros(0, 1, 2, dtype=torch.int32)


@pytest.mark.parametrize(
    ("op", "args"),
    [
        pytest.param(aten.elu.default, (torch.tensor([0.0, 1.0, -1.0]), 0.0, 0.0, math.inf), id="elu of 0 times inf"),
        pytest.param(aten.constant_pad_nd.default, (INTS, [], 2**31), id="nothing padded with what int32 has not"),
        pytest.param(aten.constant_pad_nd.default, (INTS, [0, -1], 2**31), id="cropped, and padded with nothing"),
        pytest.param(
            aten.scatter.src, (torch.ones(2, 3, 3), 0, EMPTY, torch.zeros(0, 1, 1)), id="nothing of a smaller source"
        ),
        pytest.param(
            aten.linear.default,
            (torch.ones(2), torch.ones(3, 2), torch.ones(1, 3)),
            id="a vector, and a matrix as bias",
        ),
    ],
)
def test_equals_eager(built_in: Registry, op: Any, args: tuple[Any, ...]) -> None:
    (result,) = run_op(built_in, op, args)
    torch.testing.assert_close(result, op(*args), equal_nan=True)


def test_refused(refusal: Callable[..., str]) -> None:
    """What eager makes of these is not defined: memory not written, memory past the end, one thing in each version."""
    three = torch.ones(2, 3)
    assert "no more put around an axis than is left of it" in refusal(aten.pad.default, three, [3, -1], "circular")
    assert not refusal(aten.pad.default, three, [2, -1], "circular")
    q, k, v = torch.ones(2, 1, 1, 2), torch.ones(2, 1, 4, 2), torch.ones(2, 1, 2, 2)
    assert "as many values as keys" in refusal(aten.scaled_dot_product_attention.default, q, k, v)
    matrices = (torch.ones(0, 2), torch.ones(2, 2), torch.ones(2, 4))
    with contextlib.suppress(IndexError):  # versions of Torch refuse it themselves
        assert "heads to share" in refusal(aten.scaled_dot_product_attention.default, *matrices, enable_gqa=True)
    assert "differently" in refusal(aten.clamp.default, three, math.nan)


def test_instances_of_one_element_are_the_bias(built_in: Registry) -> None:
    x, weight, bias = torch.linspace(-16, -2, 9).view(3, 3), torch.linspace(-16, -12, 3), torch.tensor([3.76, 1.6, 0.3])
    (result,) = run_op(built_in, aten.instance_norm.default, (x, weight, bias, None, None, True, 0.0, 0.01, False))
    torch.testing.assert_close(result, bias.expand(3, 3), rtol=0, atol=0)  # which eager, as x * a + b, has not


def test_sums_of_batched_integers_stay_what_they_are() -> None:
    batches = torch.arange(24, dtype=torch.int32).view(2, 3, 4)
    args = (torch.ones(3, 3, dtype=torch.int32), batches, batches.mT)
    (result,) = run_lowered_op(trtplug.registry(), aten.addbmm.default, args, {"beta": 2, "alpha": 3})
    torch.testing.assert_close(result, torch.addbmm(*args, beta=2, alpha=3))


INT32 = torch.tensor([16777217, -2, -3, 2147483647], dtype=torch.int32)
NAMED = {
    "no int32 goes through float32": (aten.threshold.default, (INT32, -2.5, 0.5)),
    "halves": (aten.threshold.default, (torch.tensor([0.1, 0.2], dtype=torch.float16), 0.1, 0.3)),
    "distances of integers": (aten.isclose.default, (INT32, INT32.flip(0), 0.1, 0.0)),
    "bools that are near": (
        aten.isclose.default,
        (torch.tensor([True, False]), torch.tensor([False, False]), 0.0, 1.0),
    ),
    "bools, exactly": (aten.isclose.default, (torch.tensor([True, False]), torch.tensor([False, False]), 0.0, 0.0)),
}


@pytest.mark.parametrize("case", NAMED)
def test_lowered_equals_eager(case: str) -> None:
    op, args = NAMED[case]
    (result,) = run_lowered_op(trtplug.registry(), op, args)
    torch.testing.assert_close(result, op(*args), rtol=0, atol=0)


@pytest.mark.parametrize("inner", [0, 2])
def test_infinitely_much_of_what_may_be_nothing(built_in: Registry, inner: int) -> None:
    args, kwargs = (torch.ones(3, 4), torch.ones(3, inner), torch.ones(inner, 4)), {"alpha": math.inf}
    sizes = {"symbolic": {"mat1": [1], "mat2": [0]}, "example": {"mat1": [3, 2], "mat2": [2, 4]}}
    ranges = {"mat1": [(0, 4)], "mat2": [(0, 4)]}
    (result,) = run_op(built_in, aten.addmm.default, args, kwargs, **sizes, ranges=ranges)
    torch.testing.assert_close(result, aten.addmm.default(*args, **kwargs))


def test_a_cast_fixes_no_size() -> None:
    """Torch asks how the tensor lies in memory, which of a size of 1 to 2 once left 2."""
    values = torch.tensor([[[[[-16, -15], [-14, 3]]]]], dtype=torch.int32)
    args = values, torch.tensor(-3, dtype=torch.int32)
    symbolic: dict[str, Any] = {"symbolic": {"self": [3]}, "example": {"self": [1, 1, 1, 2, 2]}}
    (result,) = run_lowered_op(trtplug.registry(), aten.ldexp.Tensor, args, {}, **symbolic, ranges={"self": [(1, 2)]})
    torch.testing.assert_close(result, aten.ldexp.Tensor(*args))


@pytest.mark.parametrize("training", [False, True])
def test_running_statistics_keep_their_dtype(training: bool) -> None:
    values = torch.tensor([[-16.0, 3.5], [-14.25, 2.0], [-12.5, 0.25]], dtype=torch.float16)
    args = values, values[0], values[1], values[2], values[2].abs(), training, 0.5, 0.125
    results = run_lowered_op(trtplug.registry(), aten._native_batch_norm_legit_functional.default, args)
    expected = aten._native_batch_norm_legit_functional.default(*args)
    assert [result.dtype for result in results] == [result.dtype for result in expected]
    torch.testing.assert_close(list(results), list(expected), rtol=1e-2, atol=1e-2)


WINDOWS = {
    "adaptive": (aten.adaptive_max_pool2d.default, ([1, 2],)),
    "adaptive, 3-D": (aten.adaptive_max_pool3d.default, ([1, 1, 2],)),
    "padded": (aten.max_pool2d_with_indices.default, ([2, 2], [1, 1], [1, 1])),
    "padded, 3-D": (aten.max_pool3d_with_indices.default, ([1, 2, 2], [1, 1, 1], [0, 1, 1])),
    "dilated past all elements": (aten.max_pool2d_with_indices.default, ([2, 2], [1, 1], [1, 1], [1, 2])),
}


@pytest.mark.parametrize("value", [math.nan, -math.inf, 1.0])
@pytest.mark.parametrize("case", WINDOWS)
def test_where_the_largest_of_equals_is(case: str, value: float) -> None:
    """Eager names the first of equals, but the last nan, and a place even where there is nothing."""
    op, how = WINDOWS[case]
    shape = (2, 2, 3, 1 if "dilated" in case else 3)
    args = torch.full((1, *shape) if "3-D" in case else shape, value), *how
    results = run_lowered_op(trtplug.registry(), op, args)
    torch.testing.assert_close(list(results), list(op(*args)), equal_nan=True)


def test_nor_does_a_copy() -> None:
    args = torch.ones(3, 2), torch.ones(3, 2)
    both = {"symbolic": {"self": [1], "src": [1]}, "ranges": {"self": [(0, 2)], "src": [(0, 2)]}}
    (result,) = run_lowered_op(trtplug.registry(), aten.copy.default, args, {}, **both)
    torch.testing.assert_close(result, args[1])


@pytest.mark.parametrize("right", [False, True])
def test_searches_among_nan(right: bool) -> None:
    """Which is the first for eager, whose search asks whether an element is less."""
    rows = torch.tensor([[math.nan, -math.inf, 1.0, 1.0, math.inf], [math.nan, math.nan, 0.0, 0.0, 0.5]])
    values = torch.tensor([[math.nan, 1.0, -math.inf], [0.0, 0.25, math.inf]])
    for op, args in (
        (aten.searchsorted.Tensor, (rows, values)),
        (aten.bucketize.Tensor, (values, rows[0])),
        (aten.bucketize.Scalar, (1, rows[0])),
        (aten.searchsorted.Scalar, (rows[0, :0], 1)),
    ):
        (result,) = run_lowered_op(trtplug.registry(), op, args, {"right": right})
        torch.testing.assert_close(result, op(*args, right=right))
