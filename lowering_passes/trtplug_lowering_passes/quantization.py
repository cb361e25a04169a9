"""Quantization in the form that TensorRT has: parameters as numbers, and signed bytes."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch._subclasses import FakeTensor

from trtplug_lowering_passes._nodes import argument, calls, cast_value, constant_of, with_arguments
from trtplug_registry import lowering_pass

_OPS = ("quantized_decomposed::quantize_per_tensor", "quantized_decomposed::dequantize_per_tensor")
_PARAMETERS = ("scale", "zero_point", "quant_min", "quant_max")
_OFFSET = 128


@lowering_pass("quantization", ops=_OPS, phase="early", after=["no-ops-early"], before=["precision"])
def canonical_quantization(graph_module: fx.GraphModule) -> bool:
    """Reads constant quantization parameters, and moves unsigned bytes between a pair of ops into the range of int8.

        x ─ quantize_per_tensor.tensor(scale, zero_point, 0, 255, uint8) ─ dequantize_per_tensor.tensor(…, uint8) ─ y
        →
        x ─ quantize_per_tensor(0.02, 3 - 128, 0 - 128, 255 - 128, int8) ─ dequantize_per_tensor(…, int8) ─ y

    The same arithmetic, 128 lower. Stays: parameters that are computed; bytes that anything but a dequantize reads.
    """
    changed = False
    for node in calls(graph_module.graph):
        if _is(node, _OPS):
            changed |= _read_parameters(graph_module, node)
    for node in calls(graph_module.graph):
        if _is(node, _OPS[:1]) and _is_unsigned(node) and _dequantized(node):
            for each in (node, *node.users):
                _lower_by_offset(each)
            node.meta["val"] = cast_value(node.meta["val"], torch.int8)
            changed = True
    return changed


def _is(node: fx.Node, names: tuple[str, ...]) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.name in names


def _read_parameters(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Puts numbers in place of constant tensors; False where there are none, or not all are known."""
    target: Any = node.target
    if target._overloadname not in ("tensor", "tensor2"):
        return False
    numbers = {name: _number(graph_module, argument(node, name)) for name in _PARAMETERS}
    if any(number is None for number in numbers.values()):
        return False
    with_arguments(node, lambda name, value: numbers.get(name, value))
    node.target = target.overloadpacket.default
    return True


def _number(graph_module: fx.GraphModule, value: Any) -> float | int | None:
    """The number that an argument is known to be."""
    if not isinstance(value, fx.Node):
        return value  # type: ignore[no-any-return]  # a number, by the schema
    tensor = constant_of(graph_module, value)
    if tensor is None or isinstance(tensor, FakeTensor) or tensor.numel() != 1:
        return None
    return tensor.reshape(()).item()


def _is_unsigned(node: fx.Node) -> bool:
    target: Any = node.target
    return target._overloadname == "default" and bool(argument(node, "dtype") == torch.uint8)


def _dequantized(node: fx.Node) -> bool:
    """Whether all that reads a node dequantizes it."""
    return bool(node.users) and all(_is(user, _OPS[1:]) and _is_unsigned(user) for user in node.users)


def _lower_by_offset(node: fx.Node) -> None:
    lowered = {name: argument(node, name) - _OFFSET for name in _PARAMETERS[1:]} | {"dtype": torch.int8}
    with_arguments(node, lambda name, value: lowered.get(name, value))
