"""Fake quantization, as training for quantization leaves it, becomes quantize and dequantize."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch._subclasses import FakeTensor

from trtplug_lowering_passes._nodes import (
    argument,
    call_before,
    calls,
    constant_made_of,
    constant_of,
    drop_unread,
    erase_unused,
    folded_from,
    new_constant,
    positions,
    replace,
    tensor_of,
)
from trtplug_registry import applied, decline, lowering_pass

aten = torch.ops.aten

_PER_TENSOR = frozenset(
    {
        aten.fake_quantize_per_tensor_affine.default,
        aten.fake_quantize_per_tensor_affine.tensor_qparams,
        aten.fake_quantize_per_tensor_affine_cachemask.default,
        aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default,
    }
)
_PER_CHANNEL = frozenset(
    {aten.fake_quantize_per_channel_affine.default, aten.fake_quantize_per_channel_affine_cachemask.default}
)
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@lowering_pass(
    "fake-quantization",
    ops=_PER_TENSOR | _PER_CHANNEL,
    phase="early",
    after=["no-ops-early"],
    before=["quantization"],
)
def spell_out_fake_quantization(graph_module: fx.GraphModule) -> bool:
    """Writes rounding to a grid as a pair of ops that TensorRT has layers for; constants are stored as int8.

        x ─ fake_quantize_per_tensor_affine(0.1, 3, 0, 255) ─ y
        →
        x ─ quantize_per_tensor(0.1, 3 - 128, 0 - 128, 255 - 128, int8) ─ dequantize_per_tensor(…) ─ y

        w ─ fake_quantize_per_channel_affine(scale, zero, 0, -127, 127) ─ y
        →
        w, rounded: int8 ─ dequantize_per_channel(scale, zero, 0, …) ─ y

    The same arithmetic, for unsigned grids 128 lower. Stays: grids of more than 8 bits, parameters that are computed,
    zero points that are no integers, and what the mask for gradients is read of.
    """
    found = [node for node in calls(graph_module.graph) if node.target in _PER_TENSOR | _PER_CHANNEL]
    unread: list[fx.Node] = []
    for node in found:
        inputs = node.all_input_nodes
        reason = _spell_out(graph_module, node)
        if reason:
            decline(graph_module, "fake-quantization", reason)
        else:
            applied(graph_module, "fake-quantization")
            unread += inputs
    if unread:
        drop_unread(graph_module, unread)
    return bool(unread)


def _spell_out(graph_module: fx.GraphModule, node: fx.Node) -> str:
    """Rewrites one call. Returns why it does not, or ""."""
    end, source = _end(node), node.args[0]
    result = tensor_of(end)
    if end is None:
        return "its mask is read"
    if not isinstance(source, fx.Node) or result is None or result.dtype not in _FLOATS:
        return "TensorRT has no float64"
    limits = argument(node, "quant_min"), argument(node, "quant_max")
    offset = 0 if limits[0] >= -128 and limits[1] <= 127 else 128
    low, high = (limit - offset for limit in limits)
    if low < -128 or high > 127:
        return "the grid has more than 8 bits"
    parameters = _parameters(graph_module, node, offset)
    if isinstance(parameters, str):
        return parameters
    quantize, dequantize = _pair("channel" if node.target in _PER_CHANNEL else "tensor")
    rest = (*parameters, low, high, torch.int8)
    steps = _steps(graph_module, end, quantize, source, rest)
    replace(end, call_before(end, dequantize, steps, *rest, out_dtype=result.dtype))
    for user in list(node.users):
        node.graph.erase_node(user)  # the mask, which nobody reads
    erase_unused(node)
    return ""


def _end(node: fx.Node) -> fx.Node | None:
    """The node of the result, which may be one of two: the other is the mask of what was not clamped."""
    if isinstance(node.meta.get("val"), torch.Tensor):
        return node
    readers = [user for user in node.users if user.users]
    only = readers[0] if len(readers) == 1 else None
    return only if only is not None and only.target is operator.getitem and only.args[1] == 0 else None


def _pair(kind: str) -> tuple[Any, Any]:
    import torch.ao.quantization.fx._decomposed  # defines the ops

    ops: Any = torch.ops.quantized_decomposed
    return getattr(ops, f"quantize_per_{kind}").default, getattr(ops, f"dequantize_per_{kind}").default


def _steps(graph_module: fx.GraphModule, place: fx.Node, quantize: Any, source: fx.Node, rest: Any) -> fx.Node:
    """What is dequantized: a call, or of a constant what that gives."""
    known = constant_of(graph_module, source)
    if known is None or isinstance(known, FakeTensor):
        return call_before(place, quantize, source, *rest)
    values = [constant_of(graph_module, item) if isinstance(item, fx.Node) else item for item in rest]
    return constant_made_of(graph_module, place, source, "_int8", quantize(known, *values), *rest)


def _parameters(graph_module: fx.GraphModule, node: fx.Node, offset: int) -> tuple[Any, ...] | str:
    """Scale and zero point (and the axis) as the pair takes them, the zero point lowered; or why there are none."""
    scale, zero = argument(node, "scale"), argument(node, "zero_point")
    switch = (argument(node, "fake_quant_enabled"),) if "fake_quant_enabled" in positions(node.target) else ()
    values = []
    for value in (scale, zero, *switch):
        tensor = constant_of(graph_module, value) if isinstance(value, fx.Node) else torch.tensor(value)
        if tensor is None or isinstance(tensor, FakeTensor):
            return "its parameters are computed"
        values.append(tensor)
    if values[1].dtype.is_floating_point:
        return "its zero point is no integer"
    if node.target in _PER_TENSOR:
        if any(value.numel() != 1 for value in values):
            return "its parameters are no numbers"
        if switch and not values[2]:
            return "it is switched off"
        return float(values[0].float()), int(values[1]) - offset  # the kernels' scale is float32
    if offset:
        name = f"{node.name}_zero"
        zero = new_constant(graph_module, node, name, values[1] - offset, folded_from(zero))
    return scale, zero, argument(node, "axis")
