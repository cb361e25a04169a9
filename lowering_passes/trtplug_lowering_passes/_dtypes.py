"""Questions about dtypes and numbers in a graph, for the precision pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch._subclasses import FakeTensor

from trtplug_lowering_passes._nodes import argument, cast_value, positions, size_key, tensor_of

aten = torch.ops.aten

FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def float_tensors(value: Any) -> list[torch.Tensor]:
    """The tensors of floats in a node's value."""
    if isinstance(value, torch.Tensor):
        return [value] if value.dtype in FLOATS else []
    return [tensor for item in value for tensor in float_tensors(item)] if isinstance(value, list | tuple) else []


def value_as(value: Any, dtype: torch.dtype) -> Any:
    """A fake value with its floats in a dtype."""
    if isinstance(value, list | tuple):
        return type(value)([value_as(item, dtype) for item in value])
    floats = isinstance(value, torch.Tensor) and value.dtype in FLOATS
    return cast_value(value, dtype) if floats and value.dtype != dtype else value


def same_but_for_dtype(before: Any, after: Any, dtype: torch.dtype) -> bool:
    """Whether every float has become this dtype, and nothing else has changed."""
    if isinstance(before, list | tuple):
        return (
            isinstance(after, list | tuple)
            and len(before) == len(after)
            and all(same_but_for_dtype(one, two, dtype) for one, two in zip(before, after))
        )
    if not isinstance(before, torch.Tensor):
        return before is None or not isinstance(after, torch.Tensor)
    return isinstance(after, torch.Tensor) and after.dtype == (dtype if before.dtype in FLOATS else before.dtype)


def stated_dtype(node: fx.Node) -> torch.dtype | None:
    """The dtype of floats that a call states for its result."""
    stated = argument_or_none(node, "dtype")
    return stated if isinstance(stated, torch.dtype) and stated in FLOATS else None


def peak(value: torch.Tensor) -> float:
    """The largest finite magnitude."""
    if value.dtype not in FLOATS or isinstance(value, FakeTensor) or value.numel() == 0:
        return 0.0
    low, high = map(float, value.detach().aminmax())
    if math.isfinite(low) and math.isfinite(high):
        return max(-low, high)
    return float(value.detach().nan_to_num(0.0, 0.0, 0.0).abs().max())


def argument_or_none(node: fx.Node, name: str) -> Any:
    names = positions(node.target)
    return argument(node, name) if name in names else None


def numbers(node: fx.Node) -> list[tuple[str, float]]:
    """Names and values of the numbers that take part in a call's arithmetic."""
    formals = node.target._schema.arguments  # type: ignore[union-attr]  # an OpOverload
    found = []
    for place, formal in enumerate(formals):
        value = node.args[place] if place < len(node.args) else node.kwargs.get(formal.name)
        counts = "number" in str(formal.type) or "Scalar" in str(formal.type)
        if type(value) is float or (type(value) is int and counts):
            found.append((formal.name, float(value)))
    return found


def is_outer_product(node: fx.Node) -> bool:
    """Whether a matrix product sums one product each: a multiplication in other words."""
    if node.target.overloadpacket not in (aten.matmul, aten.mm, aten.bmm):  # type: ignore[union-attr]  # an OpOverload
        return False
    tensor = tensor_of(node.args[0])
    return tensor is not None and tensor.dim() > 1 and size_key(tensor.shape[-1]) == 1


def is_quantization(node: fx.Node) -> bool:
    """Whether a node quantizes or dequantizes in a way that TensorRT has layers for."""
    target = node.target
    return (
        isinstance(target, OpOverload) and target.namespace == "quantized_decomposed" and "quantize_per" in str(target)
    )
