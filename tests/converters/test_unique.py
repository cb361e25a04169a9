"""What there is once, by fixed calls: no library here has the layer that the laws would need."""

from __future__ import annotations

import math

import pytest
import torch

from conftest_standard import check

aten = torch.ops.aten
pytestmark = pytest.mark.skipif(torch.__version__ < (2, 12), reason="torch 2.11 promises another dtype of places")

REPEATS = torch.tensor([1.0, 3.0, 2.0, 3.0, 1.0, 1.0, -0.0, 0.0])
NANS = torch.tensor([1.0, math.nan, -math.inf, math.nan, 1.0, 1.0, 5.0])
ROWS = torch.tensor([[1.0, 2.0], [3.0, 4.0], [3.0, 4.0], [1.0, 2.0], [1.0, 1.0], [1.0, 2.0], [0.0, 9.0], [0.0, 9.0]])
COLUMNS = torch.tensor([[1.0, 1.0, 2.0], [3.0, 3.0, 4.0]])
PLANES = torch.tensor([[[0, 1], [1, 0]], [[0, 1], [1, 0]], [[1, 1], [0, 0]]])
GIVEN = {
    "repeats": REPEATS,
    "nans": NANS,
    "bools": REPEATS > 1,
    "places": REPEATS.long(),
    "one": torch.tensor([2.0]),
    "a number": torch.tensor(3.0),
    "rows": ROWS,
    "planes": PLANES,
}


@pytest.mark.parametrize("asked", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("name", GIVEN)
def test_of_all_elements(name: str, asked: tuple[bool, bool]) -> None:
    check(aten._unique2.default, GIVEN[name], True, *asked)
    check(aten.unique_consecutive.default, GIVEN[name], *asked)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("rows", [ROWS, ROWS > 1, COLUMNS, ROWS.T.contiguous(), COLUMNS.T.long()])
def test_along_an_axis(rows: torch.Tensor, axis: int) -> None:
    check(aten.unique_dim.default, rows, axis, True, True, True)
    check(aten.unique_consecutive.default, rows, True, True, axis)


@pytest.mark.parametrize("axis", [0, 1, 2, -2, -3])
def test_along_one_of_three_axes(axis: int) -> None:
    check(aten.unique_dim.default, PLANES, axis, True, True, True)
    check(aten.unique_consecutive.default, PLANES, True, True, axis)
