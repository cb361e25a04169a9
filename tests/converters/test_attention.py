from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from trtplug.testing import run_op
from trtplug_registry import Registry

attention = torch.ops.aten.scaled_dot_product_attention.default
torch.manual_seed(0)
Q, K, V = torch.randn(2, 4, 3, 8), torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 6)
MASK = torch.tensor([[True] * 5, [False] * 5, [True, False, True, False, True]])
BIAS = torch.where(MASK, 0.0, -math.inf)
CORE = "MATRIX_MULTIPLY, SOFTMAX, MATRIX_MULTIPLY"


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((Q, K, V), {}, f"ELEMENTWISE PROD, {CORE}"),
        ((Q, K, V), {"scale": 1.0}, CORE),
        ((Q[..., :1], K[..., :1], V), {}, CORE),
        ((Q, K[:, :2], V[:, :2]), {"enable_gqa": True, "scale": 1.0}, None),
    ],
)
def test_layers(layers: Any, args: tuple[Any, ...], kwargs: dict[str, Any], expected: str | None) -> None:
    found = layers(attention, *args, **kwargs)
    assert expected is None or found == expected
    assert found.count("MATRIX_MULTIPLY") == 2


def test_a_mask_is_added_and_searched_for_blind_rows(layers: Any) -> None:
    found = layers(attention, Q, K, V, MASK[None, None])
    assert found == (
        "ELEMENTWISE PROD, MATRIX_MULTIPLY, SELECT, ELEMENTWISE SUM, SOFTMAX, MATRIX_MULTIPLY, "
        "REDUCE MAX, ELEMENTWISE EQUAL, SELECT"
    )


@pytest.mark.parametrize("mask", [MASK, BIAS, MASK[None, None], BIAS[None, None].expand(2, 4, 3, 5)])
@pytest.mark.parametrize("constant", [False, True])
def test_rows_without_a_key_are_zero(built_in: Registry, mask: torch.Tensor, constant: bool) -> None:
    constants = ["attn_mask"] if constant else []
    (result,) = run_op(built_in, attention, (Q, K, V, mask), constants=constants)
    assert (result[:, :, 1] == 0).all()
    torch.testing.assert_close(result, attention(Q, K, V, mask))


@pytest.mark.parametrize(
    ("mask", "blind"),
    [
        (MASK, True),
        (MASK[[0, 2, 2]], False),
        (BIAS, True),
        (BIAS[[0, 2, 2]], False),
        (torch.where(MASK[[0, 2, 2]], 0.0, math.inf), False),
        (MASK[[0, 2, 2]].mT.contiguous()[[0, 1, 2]][:, [0, 1, 2, 0, 0]], False),
        (torch.stack([MASK, MASK]).unsqueeze(1), True),
        (torch.stack([MASK[[0, 2, 2]], MASK[[2, 0, 0]]]).unsqueeze(1), False),
    ],
)
def test_a_known_mask_is_searched_for_blind_rows_once(layers: Any, mask: torch.Tensor, blind: bool) -> None:
    found = layers(attention, Q, K, V, mask, constants=["attn_mask"])
    assert ("REDUCE MAX, ELEMENTWISE EQUAL" in found) == blind
    assert found.count("SELECT") == blind


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_lowest_number_as_a_mask_does_not_overflow(built_in: Registry, dtype: torch.dtype) -> None:
    lowest = torch.where(MASK, 0.0, torch.finfo(dtype).min).to(dtype)
    q, k, v = (tensor.to(dtype) for tensor in (Q * 8, K, V))
    (result,) = run_op(built_in, attention, (q, k, v, lowest))
    torch.testing.assert_close(result, attention(q, k, v, lowest), rtol=5e-2, atol=5e-2)


def test_refuses_dropout(refusal: Any) -> None:
    assert "dropout draws random numbers" in refusal(attention, Q, K, V, None, 0.5)
