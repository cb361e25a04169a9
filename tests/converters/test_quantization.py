"""Quantization: which layers, and what is left to Torch."""

from __future__ import annotations

import pytest
import torch
import torch.ao.quantization.fx._decomposed

import trtplug
from trtplug.testing import run_op

q = torch.ops.quantized_decomposed
X = torch.randn(3, 4)
STEPS = torch.randint(-128, 128, (3, 4), dtype=torch.int8)
SCALES, ZEROS = torch.tensor([0.5, 0.25, 0.125]), torch.zeros(3, dtype=torch.int64)
INT8 = (-128, 127, torch.int8)
STEPWISE = "ELEMENTWISE PROD, UNARY ROUND, ELEMENTWISE SUM, ELEMENTWISE MAX, ELEMENTWISE MIN, CAST"


def test_symmetric_int8_is_a_layer(layers):
    assert layers(q.quantize_per_tensor.default, X, 0.1, 0, *INT8) == "QUANTIZE"
    assert layers(q.dequantize_per_tensor.default, STEPS, 0.1, 0, *INT8) == "DEQUANTIZE"
    assert layers(q.dequantize_per_tensor.default, STEPS, 0.1, 0, *INT8, out_dtype=torch.float16) == "DEQUANTIZE"
    of_channels = (q.dequantize_per_channel.default, STEPS, SCALES, None, 0, *INT8)
    assert layers(*of_channels, constants=["scales"]) == "DEQUANTIZE"
    assert layers(*of_channels) == "DEQUANTIZE, UNSQUEEZE, ELEMENTWISE PROD"


def test_asymmetric_int8_is_arithmetic(layers):
    assert layers(q.quantize_per_tensor.default, X, 0.1, 3, *INT8) == STEPWISE
    assert layers(q.quantize_per_tensor.default, X, 0.1, 0, -127, 127, torch.int8) == STEPWISE.replace(
        "ELEMENTWISE SUM, ", ""
    )
    assert layers(q.dequantize_per_tensor.default, STEPS, 0.1, 3, *INT8) == (
        "DEQUANTIZE, ELEMENTWISE SUB, ELEMENTWISE PROD"
    )


def test_unsigned_bytes_enter_and_do_not_leave(layers, refusal):
    bytes_ = torch.randint(0, 256, (3, 4), dtype=torch.uint8)
    parameters = (0.1, 3, 0, 255, torch.uint8)
    assert layers(q.dequantize_per_tensor.default, bytes_, *parameters) == "CAST, ELEMENTWISE SUB, ELEMENTWISE PROD"
    assert "an engine takes unsigned bytes in but makes none" in refusal(q.quantize_per_tensor.default, X, *parameters)


@pytest.mark.parametrize("symbolic", [{"scales": [0]}, {"input": [0]}, {"input": [0], "scales": [0]}], ids=str)
def test_a_layer_knows_how_many_scales_there_are(symbolic):
    args = (STEPS, SCALES, None, 0, *INT8)
    shapes = {"scales": [3], "input": [3, 4]}
    example, ranges = {name: shapes[name] for name in symbolic}, {name: [(1, 3)] for name in symbolic}
    ours = run_op(
        trtplug.registry(),
        q.dequantize_per_channel.default,
        args,
        {},
        symbolic=symbolic,
        example=example,
        ranges=ranges,
    )
    ours = ours[0] if isinstance(ours, list | tuple) else ours
    torch.testing.assert_close(ours, q.dequantize_per_channel(*args), rtol=0, atol=0)
