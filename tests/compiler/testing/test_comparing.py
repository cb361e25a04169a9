"""Comparison: number of results, dtype, shape, values, in this order; tolerances; what huge inputs leave open."""

from __future__ import annotations

import math

import pytest
import torch

from trtplug.testing import mismatch
from trtplug.testing.compare import is_exact, undetermined
from trtplug_registry import Tolerance

INF, NAN = math.inf, math.nan


def found(ours: object, theirs: object, **options: object) -> str | None:
    difference = mismatch([ours], [theirs], **options)  # type: ignore[arg-type]
    return None if difference is None else difference.what


def floats(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize(
    ("ours", "theirs", "what"),
    [
        (floats(1, 2), floats(1, 2), None),
        (torch.zeros(2, 3, dtype=torch.int32), torch.zeros(3), "dtype"),
        (torch.zeros(2, 3), torch.zeros(3), "shape"),
        (torch.zeros(0, 3), torch.zeros(0, 3), None),
        (torch.zeros(0, 3), torch.zeros(3, 0), "shape"),
        (floats(NAN), floats(NAN), None),
        (floats(NAN), floats(1), "values"),
        (floats(INF), floats(INF), None),
        (floats(INF), floats(-INF), "values"),
        (floats(3.4e38), floats(INF), "values"),
        (floats(0.0), floats(-0.0), None),
        (floats(1.000001), floats(1), None),
        (floats(1.001), floats(1), "values"),
        (floats(1.001, dtype=torch.float16), floats(1, dtype=torch.float16), None),
        (floats(1.01, dtype=torch.float16), floats(1, dtype=torch.float16), "values"),
        (torch.tensor([2**40 + 1]), torch.tensor([2**40]), "values"),
        (torch.tensor([True]), torch.tensor([False]), "values"),
        (floats(1e30, 1.1), floats(1e30, 1), "values"),
    ],
)
def test_dtype_then_shape_then_values(ours: torch.Tensor, theirs: torch.Tensor, what: str | None) -> None:
    assert found(ours, theirs) == what


def test_the_number_of_results_comes_first() -> None:
    difference = mismatch([torch.zeros(1)], [torch.zeros(1), torch.zeros(1)])
    assert difference is not None
    assert difference.what == "number"


def test_zeros_are_told_apart_where_asked() -> None:
    assert found(floats(0.0), floats(-0.0), signed_zeros=True) == "values"
    assert found(floats(0.0, 1), floats(0.0, 1), signed_zeros=True) is None


def test_a_converters_own_tolerance_stands_in_for_the_default() -> None:
    loose = {torch.float32: Tolerance(0.1, 0, "a polynomial of degree 3")}
    assert found(floats(1.05), floats(1), tolerance=loose) is None
    difference = mismatch([floats(1.5)], [floats(1)], loose)
    assert "a polynomial of degree 3" in str(difference)
    assert "at [0]: 1.5, eager 1.0" in str(difference)


def total(tensors):  # type: ignore[no-untyped-def]
    return [tensors["x"].sum()]


def test_a_sum_of_huge_terms_has_no_right_order() -> None:
    most = torch.finfo(torch.float32).max
    inputs = {"x": floats(most, most, -most)}
    difference = mismatch([torch.tensor(INF)], [torch.tensor(most)])
    assert difference is not None
    assert undetermined(difference, [torch.tensor(INF)], inputs, total)


def test_small_terms_leave_nothing_open() -> None:
    difference = mismatch([torch.tensor(INF)], [torch.tensor(3.0)])
    assert difference is not None
    assert not undetermined(difference, [torch.tensor(INF)], {"x": floats(1, 1, 1)}, total)


def test_nor_do_huge_ones_where_the_result_does_not_depend_on_them() -> None:
    most = torch.finfo(torch.float32).max
    ours, theirs = floats(5, most), floats(1, most)
    difference = mismatch([ours], [theirs])
    assert difference is not None
    assert not undetermined(difference, [ours], {"x": floats(1, most)}, lambda tensors: [tensors["x"]])


def test_places_of_huge_elements_are_not_open() -> None:
    most = torch.finfo(torch.float32).max
    ours, theirs = torch.tensor([0]), torch.tensor([1])
    difference = mismatch([ours], [theirs])
    assert difference is not None
    assert not undetermined(difference, [ours], {"x": floats(most, most)}, lambda moved: [moved["x"].argmax()[None]])


@pytest.mark.parametrize(
    ("ours", "exact"), [(floats(INF), True), (floats(NAN), False), (floats(3e38), False), (floats(-INF), False)]
)
def test_what_eager_makes_in_float64_is_right(ours: torch.Tensor, exact: bool) -> None:
    least = torch.finfo(torch.float32).min
    inputs = {"x": floats(least, least, INF)}  # nan where the finite ones are added first
    wrong = mismatch([ours], [floats(1)])
    assert wrong is not None
    assert is_exact(wrong, [ours], inputs, lambda moved: [moved["x"].sum()[None]], {}) == exact
    assert not is_exact(wrong, [ours], {"x": torch.ones(1, dtype=torch.int64)}, lambda moved: [floats(INF)], {})


@pytest.mark.parametrize(("ours", "open"), [(floats(NAN), True), (floats(INF), False), (floats(0), False)])
def test_infinities_beside_huge_terms_may_be_lost(ours: torch.Tensor, open: bool) -> None:
    most = torch.finfo(torch.float32).max
    wrong = mismatch([ours], [floats(-INF)])
    assert wrong is not None
    sums = [{"x": floats(most, most, -INF)}, {"x": floats(1, 1, -INF)}]
    found = [undetermined(wrong, [ours], inputs, lambda moved: [moved["x"].sum()[None]]) for inputs in sums]
    assert found == [open, False]
