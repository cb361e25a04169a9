from __future__ import annotations

from typing import Any

import pytest
import torch

aten = torch.ops.aten
FLOAT, INT = torch.ones(3), torch.ones(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("op", "args", "kwargs", "expected"),
    [
        (aten._to_copy.default, (FLOAT,), {"dtype": torch.float16}, "CAST"),
        (aten._to_copy.default, (FLOAT,), {}, ""),
        (aten.to.dtype, (FLOAT, torch.float32), {}, ""),
        (aten.to.dtype, (torch.ones(3, dtype=torch.uint8), torch.float32), {}, "CAST"),
        (aten.clone.default, (INT,), {}, ""),
    ],
)
def test_layers(layers: Any, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], expected: str) -> None:
    assert layers(op, *args, **kwargs) == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.int16, torch.complex64])
def test_refuses_what_is_no_type_of_tensorrt(refusal: Any, dtype: torch.dtype) -> None:
    assert "not a type that TensorRT computes with" in refusal(aten.to.dtype, FLOAT, dtype)
    assert "not a TensorRT type" in refusal(aten.to.dtype, FLOAT.to(dtype), torch.float32)
