from __future__ import annotations

from typing import Any

import pytest
import torch

aten = torch.ops.aten
FLOAT, HALF, INT, BOOL = (torch.ones(3, dtype=d) for d in (torch.float32, torch.float16, torch.int64, torch.bool))


@pytest.mark.parametrize(
    ("op", "tensor", "expected"),
    [
        (aten.exp.default, FLOAT, "UNARY EXP"),
        (aten.exp.default, HALF, "UNARY EXP"),
        (aten.exp.default, INT, "CAST, UNARY EXP"),
        (aten.sigmoid.default, FLOAT, "ACTIVATION SIGMOID"),
        (aten.rsqrt.default, FLOAT, "UNARY SQRT, UNARY RECIP"),
        (aten.rsqrt.default, HALF, "CAST, UNARY SQRT, UNARY RECIP, CAST"),
        (aten.abs.default, INT, "UNARY ABS"),
        (aten.floor.default, INT, ""),
        (aten.sign.default, BOOL, ""),
        (aten.isnan.default, FLOAT, "UNARY ISNAN"),
        (aten.bitwise_not.default, INT, "ELEMENTWISE SUB"),
        (aten.logical_not.default, BOOL, "UNARY NOT"),
    ],
)
def test_layers(layers: Any, op: Any, tensor: torch.Tensor, expected: str) -> None:
    assert layers(op, tensor) == expected
