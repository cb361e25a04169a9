"""Linear maps: what becomes one product of rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

linear = torch.ops.aten.linear.default
WEIGHT, BIAS = torch.randn(5, 4), torch.randn(5)


@pytest.mark.parametrize(
    ("shape", "flat"),
    [((2, 3, 4), True), ((2, 1, 3, 4), True), ((1, 3, 4), False), ((3, 4), False), ((0, 3, 4), False)],
)
def test_a_batch_of_matrices_is_one(layers: Any, shape: tuple[int, ...], flat: bool) -> None:
    found = layers(linear, torch.randn(shape), WEIGHT, BIAS, constants=["weight", "bias"])
    assert found.count("SHUFFLE") == (2 if flat else 0)
    assert found.count("MATRIX_MULTIPLY") == 1


def test_weights_that_are_computed_and_symbolic_sizes_stay(layers: Any) -> None:
    assert "SHUFFLE" not in layers(linear, torch.randn(2, 3, 4), WEIGHT, BIAS)
    symbolic = {"input": [0, 1]}
    assert "SHUFFLE" not in layers(linear, torch.randn(2, 3, 4), WEIGHT, constants=["weight"], symbolic=symbolic)
