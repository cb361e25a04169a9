"""Bytes that are made only to be widened again are integers that TensorRT has."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._nodes import CASTS, argument, calls, cast_value, is_cast, tensor_of
from trtplug_registry import applied, decline, lowering_pass

aten = torch.ops.aten

_LIMITS = {torch.int8: (-128, 127), torch.uint8: (0, 255)}
_MOVES = frozenset(
    {
        *(aten.view, aten.reshape, aten.flatten, aten.unsqueeze, aten.squeeze, aten.permute, aten.transpose, aten.t),
        *(aten.expand, aten.repeat, aten.slice, aten.select, aten.clone, aten.contiguous),
    }
)


@lowering_pass("widen-bytes", ops=CASTS, after=["type-promotion", "views"], before=["dead-code"])
def widen_bytes(graph_module: fx.GraphModule) -> bool:
    """Casts to int32 what was cast to a byte.

        x ─ clamp(-128, 127) ─ to(int8) ─ reshape ─ to(float32) ─ y
        →
        x ─ clamp(-128, 127) ─ to(int32) ─ reshape ─ to(float32) ─ y

    Every number within the limits of a byte is the same in either. So dynamic quantization that was decomposed stays
    in TensorRT, whose bytes are for quantize layers only. Declines where the numbers are not limited right before,
    and where bytes are returned or read by anything that computes.
    """
    changed = False
    for node in calls(graph_module.graph):
        tensor = tensor_of(node)
        if tensor is None or tensor.dtype not in _LIMITS or not is_cast(node) or not _is_float(node.args[0]):
            continue
        bytes_ = _moved(node, tensor.dtype)
        if not _is_limited(node.args[0], *_LIMITS[tensor.dtype]):
            decline(graph_module, "widen-bytes", "the numbers may be none of a byte's")
        elif bytes_ is None:
            decline(graph_module, "widen-bytes", "bytes are read as such")
        else:
            node.target, node.args, node.kwargs = aten._to_copy.default, (node.args[0],), {"dtype": torch.int32}
            for item in bytes_:
                item.meta["val"] = cast_value(item.meta["val"], torch.int32)
            applied(graph_module, "widen-bytes")
            changed = True
    return changed


def _is_float(node: Any) -> bool:
    tensor = tensor_of(node)
    return tensor is not None and tensor.dtype.is_floating_point


def _is_limited(node: Any, low: int, high: int) -> bool:
    """Whether a node is what numbers are clamped to. (What a cast makes of those that are none, no dtype says.)"""
    if node.target is not aten.clamp.default:
        return False
    limits = argument(node, "min"), argument(node, "max")
    return all(type(limit) in (int, float) for limit in limits) and low <= limits[0] and limits[1] <= high


def _moved(node: fx.Node, dtype: torch.dtype) -> list[fx.Node] | None:
    """A node and what its elements are moved to, if all else that reads them makes them wider."""
    found, seen = [node], {node}
    for item in found:
        for user in item.users:
            tensor = tensor_of(user)
            if is_cast(user) and user.args[0] is item and tensor is not None and tensor.dtype != dtype:
                continue
            if getattr(user.target, "overloadpacket", None) not in _MOVES or tensor is None:
                return None
            if user not in seen:
                seen.add(user)
                found.append(user)
    return found
