"""What torchao writes in ways of its own, in the words of ``quantized_decomposed``."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._subclasses import FakeTensor

from trtplug_lowering_passes._dtypes import FLOATS
from trtplug_lowering_passes._nodes import (
    argument,
    call_before,
    call_like,
    calls,
    constant_made_of,
    constant_of,
    folded_from,
    new_constant,
    positions,
    replace,
    tensor_of,
)
from trtplug_registry import lowering_pass

_STORED = {torch.int8: (-128, 127, torch.int8), torch.float8_e4m3fn: (-448, 448, torch.float8_e4m3fn)}
"""What TensorRT holds constants of, and only dequantizes; with its limits."""


_INNER = "export::access_subclass_inner_tensor"
_AFFINE = frozenset({"torchao::quantize_affine", "torchao::dequantize_affine"})
_CASTS = frozenset({"aten::to", "aten::_to_copy"})


@lowering_pass(
    "torchao", ops={_INNER, *_AFFINE, *_CASTS}, phase="early", after=["no-ops-early"], before=["quantization"]
)
def spell_out_torchao(graph_module: fx.GraphModule) -> bool:
    """Rewrites torchao's affine ops, the inner tensors of its weights, and casts of int8 to floats.

        weight ─ access_subclass_inner_tensor("qdata")           →   weight_qdata: int8[8, 4]
        x ─ torchao.dequantize_affine([1, 4], scale, zero)       →   x ─ dequantize_per_channel(scales, zeros, axis=0)
        w: int8[8, 64] ─ torchao.dequantize_affine([1, 32], …)   →   w: int8[16, 32] ─ dequantize_per_channel(axis=0) ─
                                                                     reshape(8, 64)
        x: int8 ─ to(float32)                                    →   x ─ dequantize_per_tensor(scale=1.0, zero_point=0)

    Casts of float8_e4m3fn as those of int8. Stays: parameters that are computed; groups on any axis but the last, and
    of what is no constant.
    """
    changed = False
    for node in calls(graph_module.graph):
        name = node.target._schema.name  # type: ignore[union-attr]  # calls() yields overloads
        if name == _INNER:
            changed |= _inner_tensor(graph_module, node)
        elif name in _AFFINE:
            changed |= _affine(graph_module, node)
        elif name in _CASTS:
            changed |= _widening(node)
    return changed


def _decomposed() -> Any:
    """The ops of ``quantized_decomposed``, which are there once this module of Torch's is imported."""
    import torch.ao.quantization.fx._decomposed

    return torch.ops.quantized_decomposed


def _inner_tensor(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    source, name = node.args
    inner = getattr(constant_of(graph_module, source), str(name), None)
    if not isinstance(inner, torch.Tensor) or isinstance(inner, FakeTensor):
        return False
    attribute = f"{source.target}_{name}".replace(".", "_")  # type: ignore[union-attr]  # a node, as it has a constant
    constant = new_constant(graph_module, node, attribute, inner.detach(), folded_from(source))
    constant.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(constant)
    graph_module.graph.erase_node(node)
    return True


def _widening(node: fx.Node) -> bool:
    """A constant of int8 or float8 can only be dequantized; by 1, that is a cast."""
    source, result = tensor_of(node.args[0]), tensor_of(node)
    if source is None or result is None or source.dtype not in _STORED or result.dtype not in FLOATS - {torch.float64}:
        return False
    node.target = _decomposed().dequantize_per_tensor.default
    node.args, node.kwargs = (node.args[0], 1.0, 0, *_STORED[source.dtype]), {"out_dtype": result.dtype}
    return True


def _affine(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """One scale for the tensor, or for each place on one axis; False for any other, or where it is not known."""
    quantizes = "input_dtype" not in positions(node.target)
    tensor, result = tensor_of(node.args[0]), tensor_of(node)
    scale = _known(graph_module, argument(node, "scale"))
    zero = argument(node, "zero_point")
    zeros = _known(graph_module, zero) if zero is not None else None
    dtype = argument(node, "output_dtype" if quantizes else "input_dtype")
    if tensor is None or result is None or scale is None or (zero is not None and zeros is None) or dtype != torch.int8:
        return False
    if zeros is None:
        zeros = torch.zeros(scale.shape, dtype=torch.int64)
    blocks = argument(node, "block_size")
    axis = _axis(blocks, tensor.shape)
    if axis is None and not quantizes and scale.dtype == torch.float32:
        return _grouped(graph_module, node, blocks, scale, zeros)
    if axis is None or scale.dtype != torch.float32 or scale.numel() != (1 if axis < 0 else tensor.shape[axis]):
        return False
    limits = _limits(node, dtype)
    kwargs: dict[str, Any] = {} if quantizes else {"out_dtype": result.dtype}
    kind = "quantize" if quantizes else "dequantize"
    if axis < 0:
        parameters: tuple[Any, ...] = (scale.reshape(()).item(), int(zeros.reshape(()).item()))
        node.target = getattr(_decomposed(), f"{kind}_per_tensor").default
    else:
        parameters = (*_vectors(graph_module, node, scale, zeros), axis)
        node.target = getattr(_decomposed(), f"{kind}_per_channel").default
    node.args, node.kwargs = (node.args[0], *parameters, *limits), kwargs
    return True


def _grouped(
    graph_module: fx.GraphModule, node: fx.Node, blocks: Any, scale: torch.Tensor, zeros: torch.Tensor
) -> bool:
    """A constant with a scale for each group on its last axis: rows of one group each have one for each row."""
    source: Any = node.args[0]
    value, result = _known(graph_module, source), tensor_of(node)
    if value is None or result is None or any(block != 1 for block in blocks[:-1]) or blocks[-1] < 1:
        return False
    rows = value.reshape(-1, blocks[-1])
    if scale.numel() != rows.shape[0] or zeros.numel() != rows.shape[0]:
        return False
    groups = constant_made_of(graph_module, node, source, "_groups", rows)
    target = _decomposed().dequantize_per_channel.default
    parameters = (*_vectors(graph_module, node, scale, zeros), 0, *_limits(node, torch.int8))
    floats = call_before(node, target, groups, *parameters, out_dtype=result.dtype)
    replace(node, call_like(node, torch.ops.aten.reshape.default, floats, list(value.shape)))
    return True


def _vectors(graph_module: fx.GraphModule, node: fx.Node, scale: torch.Tensor, zeros: torch.Tensor) -> list[fx.Node]:
    """Scales and zero points as new constants of one axis."""
    sources = folded_from(argument(node, "scale"), argument(node, "zero_point"))
    values = {"scales": scale.reshape(-1), "zeros": zeros.reshape(-1).long()}
    return [new_constant(graph_module, node, f"{node.name}_{name}", value, sources) for name, value in values.items()]


def _limits(node: fx.Node, dtype: torch.dtype) -> tuple[Any, ...]:
    low, high = argument(node, "quant_min"), argument(node, "quant_max")
    return (-128 if low is None else low, 127 if high is None else high, dtype)


def _axis(blocks: Any, shape: Any) -> int | None:
    """The axis of which each place has a block; -1 for one block in all; None where blocks lie otherwise."""
    if not all(type(size) is int for size in (*blocks, *shape)):
        return None
    split = [axis for axis, (block, size) in enumerate(zip(blocks, shape)) if block not in (size, -1)]
    if not split:
        return -1
    return split[0] if len(split) == 1 and blocks[split[0]] == 1 else None


def _known(graph_module: fx.GraphModule, value: Any) -> torch.Tensor | None:
    tensor = constant_of(graph_module, value)
    return None if isinstance(tensor, FakeTensor) else tensor
