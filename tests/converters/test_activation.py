from __future__ import annotations

from typing import Any

import pytest
import torch

aten = torch.ops.aten
FLOAT, HALF, INT = (torch.ones(3, dtype=d) for d in (torch.float32, torch.float16, torch.int64))
INF = float("inf")


@pytest.mark.parametrize(
    ("op", "args", "expected"),
    [
        (aten.relu.default, (INT,), "ACTIVATION RELU"),
        (aten.gelu.default, (HALF,), "ACTIVATION GELU_ERF"),
        (aten.silu.default, (FLOAT,), "ACTIVATION SIGMOID, ELEMENTWISE PROD"),
        (aten.silu.default, (HALF,), "CAST, ACTIVATION SIGMOID, ELEMENTWISE PROD, CAST"),
        (aten.elu.default, (FLOAT,), "ACTIVATION ELU"),
        (aten.elu.default, (FLOAT, 1.5, 2.0), "ACTIVATION ELU, ELEMENTWISE PROD, ELEMENTWISE LESS, SELECT"),
        (aten.relu6.default, (FLOAT,), "ACTIVATION CLIP"),
        (aten.relu6.default, (INT,), "ELEMENTWISE MAX, ELEMENTWISE MIN"),
        (aten.clamp.default, (FLOAT, 0, 1), "ACTIVATION CLIP"),
        (aten.clamp.default, (FLOAT, 0, INF), "ELEMENTWISE MAX, ELEMENTWISE MIN"),
        (aten.clamp.default, (FLOAT, None, 1), "ELEMENTWISE MIN"),
        (aten.dropout.default, (FLOAT, 0.5, False), ""),
    ],
)
def test_layers(layers: Any, op: Any, args: tuple[Any, ...], expected: str) -> None:
    assert layers(op, *args) == expected


@pytest.mark.parametrize(
    ("op", "args", "words"),
    [
        (aten.dropout.default, (FLOAT, 0.5, True), "argument: train: True, but needs False (dropout in training"),
        (aten.elu.default, (FLOAT, 1, 1, -1.0), "TensorRT's ELU takes the exponential of negative inputs alone"),
        (aten.leaky_relu.default, (FLOAT, INF), "finite parameters alone"),
        (aten.clamp.default, (INT, 0.5), "min and max of a kind that leaves the tensor's dtype as it is"),
    ],
)
def test_refusals(refusal: Any, op: Any, args: tuple[Any, ...], words: str) -> None:
    assert words in refusal(op, *args)
