from __future__ import annotations

from typing import Any

import pytest
import torch

from trtplug.testing import run_op
from trtplug_registry import Registry

aten = torch.ops.aten
FLOAT, HALF, INT = (torch.ones(3, dtype=d) for d in (torch.float32, torch.float16, torch.int64))
INF = float("inf")


@pytest.mark.parametrize(
    ("op", "args", "expected"),
    [
        (aten.relu.default, (INT,), "ACTIVATION RELU"),
        (aten.gelu.default, (FLOAT,), "ACTIVATION GELU_ERF"),
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("form", "sigmoid"), [("none", "UNARY ERF"), ("tanh", "ACTIVATION TANH")])
def test_gelu_of_halves_is_rounded_once(
    built_in: Registry, layers: Any, dtype: torch.dtype, form: str, sigmoid: str
) -> None:
    x = torch.linspace(-9, 9, 997).to(dtype)
    assert sigmoid in layers(aten.gelu.default, x, approximate=form)
    assert layers(aten.gelu.default, FLOAT, approximate=form).startswith("ACTIVATION GELU")
    (result,) = run_op(built_in, aten.gelu.default, (x,), {"approximate": form})
    exact = torch.nn.functional.gelu(x.double(), approximate=form)
    unit = torch.finfo(dtype).eps / 2
    assert ((result.double() - exact).abs() <= 1.001 * unit * exact.abs() + 5e-7).all()  # where 1 + sigmoid cancels
