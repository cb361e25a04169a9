"""Quantization with a scale that each call finds for itself, as the arithmetic that it stands for."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from trtplug_lowering_passes._nodes import argument, call_before, calls, erase_unused, replace, tensor_of
from trtplug_registry import applied, decline, lowering_pass

aten = torch.ops.aten

_CHOOSE = ("quantized_decomposed::choose_qparams", "quantized_decomposed::choose_qparams_symmetric")
_QUANTIZE, _DEQUANTIZE = "quantized_decomposed::quantize_per_tensor", "quantized_decomposed::dequantize_per_tensor"


@lowering_pass(
    "dynamic-quantization",
    ops=_CHOOSE,
    phase="early",
    after=["quantization", "precision"],
    before=["dead-code-early"],
)
def spell_out_dynamic_quantization(graph_module: fx.GraphModule) -> bool:
    """Writes a chosen scale, quantize and dequantize in float32.

        x ─┬─ choose_qparams(0, 255, eps) ─ s, z ─┐                 x ─┬─ amin, amax ─ s, z ─┐
           └────────── quantize_per_tensor.tensor ─ q ─┐     →         └─ x / s ─ round ─ clamp(z) ─ q ─┐
                              dequantize_per_tensor.tensor ─ y                       (q - z) s ─ y

    To the last bit: steps are whole numbers below 2²⁴. Torch's ops give the scale as float64 and the steps as bytes,
    which TensorRT does not have. Declines where scale or steps are read by anything else, and for halves.
    """
    changed = False
    for node in calls(graph_module.graph):
        if _name(node) in _CHOOSE:
            reason = _spell_out(node)
            if reason:
                decline(graph_module, "dynamic-quantization", reason)
            else:
                applied(graph_module, "dynamic-quantization")
                changed = True
    return changed


def _spell_out(choose: fx.Node) -> str:
    """Rewrites one choice and all that read it. Returns why it does not, or ""."""
    source = tensor_of(choose.args[0])
    if source is None or source.dtype != torch.float32:
        return "it is not of float32"
    parts = {user.args[1]: user for user in choose.users if user.target is operator.getitem}
    readers = [reader for part in parts.values() for reader in part.users]
    if len(parts) != len(choose.users) or not all(_name(item) in (_QUANTIZE, _DEQUANTIZE) for item in readers):
        return "scale or zero point are read elsewhere"
    pairs = {reader for reader in readers if (reader.args[1], reader.args[2]) == (parts.get(0), parts.get(1))}
    quantizes = [node for node in dict.fromkeys(readers) if _name(node) == _QUANTIZE]
    dequantizes = [user for node in quantizes for user in node.users]
    if pairs != {*quantizes, *dequantizes} or pairs != {*readers}:
        return "the steps are read elsewhere"
    scale, zero = _parameters(choose)
    for node in quantizes:
        steps = _steps(node, scale, zero)
        for user in list(node.users):
            value = _times(user, _times(user, steps, zero, aten.sub.Tensor), scale, aten.mul.Tensor)
            result = tensor_of(user)
            if result is not None and result.dtype != torch.float32:
                value = call_before(user, aten._to_copy.default, value, dtype=result.dtype)
            replace(user, value)
        erase_unused(node)
    for part in parts.values():
        part.graph.erase_node(part)
    erase_unused(choose)
    return ""


def _parameters(choose: fx.Node) -> tuple[fx.Node, fx.Node | float]:
    """Scale and zero point, as observers choose them: the range always holds 0."""

    def call(target: Any, *args: Any) -> fx.Node:
        return call_before(choose, target, *args)

    low, high = float(argument(choose, "quant_min")), float(argument(choose, "quant_max"))
    least = call(aten.clamp_max.default, call(aten.amin.default, choose.args[0]), 0.0)
    most = call(aten.clamp_min.default, call(aten.amax.default, choose.args[0]), 0.0)
    if _name(choose) == _CHOOSE[1]:
        most = call(aten.maximum.default, call(aten.neg.default, least), most)
        scale = call(aten.div.Tensor, most, (high - low) / 2)
        return call(aten.clamp_min.default, scale, argument(choose, "eps")), _middle(choose)
    scale = call(aten.div.Tensor, call(aten.sub.Tensor, most, least), high - low)
    scale = call(aten.clamp_min.default, scale, argument(choose, "eps"))
    zero = call(aten.rsub.Scalar, call(aten.round.default, call(aten.div.Tensor, least, scale)), low)
    return scale, call(aten.clamp.default, zero, low, high)


def _middle(choose: fx.Node) -> float:
    return 128.0 if argument(choose, "dtype") == torch.uint8 else 0.0


def _steps(node: fx.Node, scale: fx.Node, zero: fx.Node | float) -> fx.Node:
    """clamp(round(x / scale) + zero), by the inverse as eager has it."""
    source: Any = node.args[0]
    if (tensor := tensor_of(source)) is not None and tensor.dtype != torch.float32:
        source = call_before(node, aten._to_copy.default, source, dtype=torch.float32)
    inverse = call_before(node, aten.reciprocal.default, scale)
    rounded = call_before(node, aten.round.default, call_before(node, aten.mul.Tensor, source, inverse))
    limits = float(argument(node, "quant_min")), float(argument(node, "quant_max"))
    return call_before(node, aten.clamp.default, _times(node, rounded, zero, aten.add.Tensor), *limits)


def _times(place: fx.Node, one: fx.Node, other: fx.Node | float, target: Callable[..., Any]) -> fx.Node:
    """One op of two, or nothing where the other is 0 and leaves the first as it is."""
    return one if other == 0.0 else call_before(place, target, one, other)


def _name(node: Any) -> str:
    return node.target._schema.name if isinstance(node, fx.Node) and isinstance(node.target, OpOverload) else ""
