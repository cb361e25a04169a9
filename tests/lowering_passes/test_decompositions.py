"""Decompositions that the plugin brings, by definition."""

from __future__ import annotations

import pytest
import torch

import trtplug_lowering_passes


def test_decompositions():
    table = trtplug_lowering_passes.trtplug_decompositions()
    assert torch.ops.aten.scaled_dot_product_attention.default in table
    assert len(table) > 200
    for op in table:
        assert not op._schema.is_mutable


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": torch.tensor([[True, False, True], [False, False, False]])},
        {"attn_mask": torch.tensor([[0.0, -1.0, float("-inf")], [float("-inf")] * 3])},
        {"enable_gqa": True},
    ],
    ids=lambda options: ", ".join(options) or "plain",
)
def test_attention_by_definition(options, dtype):
    heads = 2 if options.get("enable_gqa") else 4
    query = torch.randn(2, 4, 2, 8, dtype=dtype)
    key, value = torch.randn(2, heads, 3, 8, dtype=dtype), torch.randn(2, heads, 3, 5, dtype=dtype)
    if "attn_mask" in options and options["attn_mask"].is_floating_point():
        options = {"attn_mask": options["attn_mask"].to(dtype)}
    op = torch.ops.aten.scaled_dot_product_attention.default
    table = trtplug_lowering_passes.trtplug_decompositions()
    found = table[op](query, key, value, **options)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        torch.testing.assert_close(found, op(query, key, value, **options), rtol=1e-5, atol=1e-5)
    with pytest.raises(NotImplementedError):
        table[op](query, key, value, dropout_p=0.5)
