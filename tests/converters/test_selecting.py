"""What masks select, by fixed calls: no library here has the layer that the laws would need."""

from __future__ import annotations

import math

import pytest
import torch

from conftest_standard import check

aten = torch.ops.aten

ROWS = torch.tensor([[1.0, 0.0, -2.0], [0.0, 0.5, math.nan]])
CUBE = torch.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "x",
    [ROWS, ROWS > 0, ROWS.nan_to_num().long(), CUBE, torch.tensor(3.0), torch.tensor(0.0), torch.tensor([0.25, 0.0])],
)
def test_places_of_what_is_not_zero(x: torch.Tensor) -> None:
    check(aten.nonzero.default, x)


@pytest.mark.parametrize(
    ("x", "mask"),
    [
        (ROWS, ROWS > 0),
        (ROWS, torch.tensor([True, False, True])),
        (ROWS[0], ROWS > 0),
        (ROWS, torch.tensor(True)),
        (torch.tensor(2.0), torch.tensor([[True], [False]])),
        (ROWS[:, :1], torch.tensor([[True, False, True]])),
    ],
)
def test_masks_are_broadcast(x: torch.Tensor, mask: torch.Tensor) -> None:
    check(aten.masked_select.default, x, mask)


@pytest.mark.parametrize(
    "indices",
    [
        [CUBE > 5],
        [(CUBE > 5).any(-1)],
        [None, (CUBE > 5).any(0)],
        [None, torch.tensor([True, False, True])],
        [None, None, torch.tensor([True, False, False, True])],
        [torch.tensor([False, False])],
    ],
)
def test_axes_of_a_mask(indices: list[torch.Tensor | None]) -> None:
    check(aten.index.Tensor, CUBE, indices)
