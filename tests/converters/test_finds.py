"""Calls that the laws once found wrong, nightly or on a GPU: kept, since another run need not draw them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from trtplug.testing import run_op
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
            aten.scaled_dot_product_attention.default,
            (torch.ones(0, 2), torch.ones(2, 2), torch.ones(2, 4), None, 0.0, False),
            id="heads to share, and none there",
        ),
    ],
)
def test_equals_eager(built_in: Registry, op: Any, args: tuple[Any, ...]) -> None:
    kwargs = {"enable_gqa": True} if op is aten.scaled_dot_product_attention.default else {}
    (result,) = run_op(built_in, op, args, kwargs)
    torch.testing.assert_close(result, op(*args, **kwargs), equal_nan=True)
