from __future__ import annotations

from typing import Any

import pytest
import torch

aten = torch.ops.aten
FLOAT, HALF, INT, BOOL = (torch.ones(3, dtype=d) for d in (torch.float32, torch.float16, torch.int64, torch.bool))


@pytest.mark.parametrize(
    ("op", "args", "expected"),
    [
        (aten.add.Tensor, (FLOAT, FLOAT), "ELEMENTWISE SUM"),
        (aten.add.Tensor, (BOOL, BOOL), "ELEMENTWISE OR"),
        (aten.add.Tensor, (HALF, 2), "ELEMENTWISE SUM"),
        (aten.add.Tensor, (HALF, 0.1), "CAST, ELEMENTWISE SUM, CAST"),
        (aten.add.Tensor, (HALF, 2049.0), "CAST, ELEMENTWISE SUM, CAST"),
        (aten.add.Scalar, (FLOAT, 1, 3), "ELEMENTWISE SUM"),
        (aten.sub.Tensor, (2, FLOAT), "ELEMENTWISE SUB"),
        (aten.rsub.Scalar, (FLOAT, 1), "ELEMENTWISE SUB"),
        (aten.mul.Tensor, (BOOL, BOOL), "ELEMENTWISE AND"),
        (aten.remainder.Scalar, (INT, 3), "ELEMENTWISE FLOOR_DIV, ELEMENTWISE PROD, ELEMENTWISE SUB"),
        (aten.pow.Tensor_Scalar, (FLOAT, 2), "ELEMENTWISE PROD"),
        (aten.pow.Tensor_Scalar, (FLOAT, 0.5), "UNARY SQRT"),
        (aten.pow.Tensor_Scalar, (FLOAT, 1), ""),
        (aten.pow.Tensor_Scalar, (FLOAT, 2.5), "ELEMENTWISE POW"),
        (aten.pow.Tensor_Scalar, (INT, 5), "ELEMENTWISE PROD, ELEMENTWISE PROD, ELEMENTWISE PROD"),
    ],
)
def test_layers(layers: Any, op: Any, args: tuple[Any, ...], expected: str) -> None:
    assert layers(op, *args) == expected


def test_alpha_is_a_product(layers: Any) -> None:
    assert layers(aten.add.Tensor, FLOAT, FLOAT, alpha=2) == "ELEMENTWISE PROD, ELEMENTWISE SUM"


@pytest.mark.parametrize(
    ("op", "args", "words"),
    [
        (aten.add.Tensor, (FLOAT, HALF), "self, other of one dtype"),
        (aten.add.Tensor, (INT, 2.5), "leaves the tensor's dtype as it is"),
        (aten.mul.Scalar, (BOOL, 2), "leaves the tensor's dtype as it is"),
        (aten.div.Tensor, (INT, INT), "TensorRT's quotient of integers is an integer"),
        (aten.floor_divide.default, (FLOAT, FLOAT), "floors their rounded quotient where eager floors the exact one"),
        (aten.pow.Tensor_Tensor, (INT, INT), "go by way of float64 and saturate"),
        (aten.add.Tensor, (FLOAT.double(), FLOAT.double()), "float64[3], but needs float32"),
    ],
)
def test_refusals(refusal: Any, op: Any, args: tuple[Any, ...], words: str) -> None:
    assert words in refusal(op, *args)
