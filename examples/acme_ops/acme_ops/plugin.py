"""What acme-ops brings to trtplug."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch._ops import OpOverload

import acme_ops.ops  # noqa: F401  defines the ops
from trtplug_registry import (
    NUMBERS,
    Converter,
    Domain,
    Example,
    LoweringPass,
    Only,
    Tensor,
    converter,
    dims,
    rewrite_rule,
    rule_pass,
    same_dtype,
)

trtplug_contract = 1
aten, acme = torch.ops.aten, torch.ops.acme

RELU = "there is no ReLU of booleans"


@converter(
    acme.bias_relu.default,
    Domain(
        same_dtype("x", "bias"),
        dims(x="n", bias="n"),
        x=Tensor(NUMBERS, rank=(1, 8), because=RELU),
        bias=Tensor(NUMBERS, rank=(1, 1), because=RELU),
    ),
)
def bias_relu(ctx: Any, x: Any, bias: Any) -> Any:
    """bias_relu(Tensor x, Tensor bias) -> Tensor"""
    return ctx.activation("RELU", ctx.elementwise("SUM", x, bias))


@converter(
    aten.pow.Tensor_Scalar,
    Domain(
        self=Tensor(NUMBERS, because="TensorRT multiplies no booleans"),
        exponent=Only(2, because="other powers are left to the built-in converter"),
    ),
)
def square(ctx: Any, self: Any, exponent: Any) -> Any:
    """pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor"""
    return ctx.elementwise("PROD", self, self)


def is_bias(x: Any, bias: Any, match: Any) -> str | None:
    """Why an addition is none of a bias, or None."""
    one, two = match.val("x"), match.val("bias")
    if not isinstance(one, torch.Tensor) or not isinstance(two, torch.Tensor) or one.dtype != two.dtype:
        return "the operands are not two tensors of one dtype"
    if one.dtype not in NUMBERS:
        return RELU
    fits = two.dim() == 1 and one.dim() >= 1 and type(two.shape[0]) is int and one.shape[-1] == two.shape[0]
    return None if fits else "the second operand is no vector along the last axis"


@rewrite_rule("bias-relu", pattern=lambda x, bias: aten.relu.default(aten.add.Tensor(x, bias)), check=is_bias)
def use_bias_relu(x: Any, bias: Any) -> Any:
    """relu(add(x, bias)) → bias_relu(x, bias)"""
    return acme.bias_relu.default(x, bias)


fuse_bias = rule_pass("fuse-bias", [use_bias_relu])


def decomposed_hard_swish(x: torch.Tensor) -> torch.Tensor:
    return x * (x + 3).clamp(0, 6) / 6


def trtplug_converters() -> Iterable[Converter]:
    return [bias_relu, square]


def trtplug_lowering_passes() -> Iterable[LoweringPass]:
    return [fuse_bias]


def trtplug_decompositions() -> Mapping[OpOverload, Callable[..., Any]]:
    return {acme.hard_swish.default: decomposed_hard_swish}


def trtplug_examples() -> Iterable[Example]:
    return [
        Example("fuse-bias", lambda x, bias: torch.relu(x + bias) * 2, lambda: (torch.randn(2, 3), torch.randn(3))),
        Example("acme::hard_swish", acme.hard_swish.default, lambda: (torch.linspace(-5, 5, 12),)),
    ]
