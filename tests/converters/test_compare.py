from __future__ import annotations

from typing import Any

import pytest
import torch

aten = torch.ops.aten
FLOAT, HALF, INT, BOOL = (torch.ones(3, dtype=d) for d in (torch.float32, torch.float16, torch.int64, torch.bool))


@pytest.mark.parametrize(
    ("op", "args", "expected"),
    [
        (aten.eq.Tensor, (BOOL, BOOL), "ELEMENTWISE XOR, UNARY NOT"),
        (aten.ne.Tensor, (BOOL, BOOL), "ELEMENTWISE XOR"),
        (aten.eq.Scalar, (HALF, 0.1), "ELEMENTWISE EQUAL"),
        (aten.ne.Scalar, (FLOAT, 1), "ELEMENTWISE EQUAL, UNARY NOT"),
        (aten.le.Tensor, (FLOAT, FLOAT), "ELEMENTWISE LESS, ELEMENTWISE EQUAL, ELEMENTWISE OR"),
        (aten.lt.Tensor, (BOOL, BOOL), "CAST, CAST, ELEMENTWISE LESS"),
        (aten.logical_and.default, (FLOAT, BOOL), "CAST, ELEMENTWISE AND"),
        (aten.bitwise_or.Tensor, (BOOL, BOOL), "ELEMENTWISE OR"),
        (aten.where.self, (BOOL, FLOAT, FLOAT), "SELECT"),
        (aten.where.ScalarOther, (BOOL, HALF, 0.0), "SELECT"),
        (aten.masked_fill.Scalar, (FLOAT, BOOL, -1.0), "SELECT"),
    ],
)
def test_layers(layers: Any, op: Any, args: tuple[Any, ...], expected: str) -> None:
    assert layers(op, *args) == expected


@pytest.mark.parametrize(
    ("op", "args", "words"),
    [
        (aten.bitwise_and.Tensor, (INT, INT), "TensorRT has no layer for the bits of integers"),
        (aten.eq.Scalar, (INT, 0.5), "other of a kind that leaves the tensor's dtype as it is"),
    ],
)
def test_refusals(refusal: Any, op: Any, args: tuple[Any, ...], words: str) -> None:
    assert words in refusal(op, *args)
