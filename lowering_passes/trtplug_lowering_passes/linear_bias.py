"""Products with a constant matrix, and what is added to them, become one linear map."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._nodes import (
    argument,
    call_like,
    calls,
    constant_made_of,
    constant_of,
    erase_unused,
    only_user,
    replace,
    sizes_key,
    tensor_of,
)
from trtplug_lowering_passes._weights import CONVOLUTIONS, set_arguments
from trtplug_lowering_passes.views import RESHAPES
from trtplug_registry import lowering_pass, reaches_output

aten = torch.ops.aten


_MATRIX_PRODUCTS = frozenset({aten.addmm.default, aten.mm.default})
_LACK_BIAS = CONVOLUTIONS | {aten.linear.default}


@lowering_pass(
    "linear-bias",
    ops=_MATRIX_PRODUCTS | _LACK_BIAS,
    phase="early",
    after=["constant-folding-early"],
    before=["precision", "dead-code-early"],
)
def fuse_bias(graph_module: fx.GraphModule) -> bool:
    """Writes a matrix product and a sum as ``linear``, without the matrix that Torch's kernel wants flat.

        x: [2, 8, 32] ─ reshape(16, 32) ─ addmm(b, ·, w) ─ reshape(2, 8, 96) ─ y    →    x ─ linear(wᵀ, b) ─ y
        x ─ linear(w) or conv(w) ─ add(b) ─ y                                       →    x ─ linear(w, b) ─ y

    The transposed weight is a view: no memory is taken. Results differ by rounding: of halves, the product is no longer
    rounded before the sum. Declines where a step is read elsewhere, where w is no constant matrix, where b is not one
    number for each column, and where the reshapes change more than the leading axes.
    """
    changed = False
    for node in calls(graph_module.graph):
        if node.target in _MATRIX_PRODUCTS:
            changed |= _unflatten(graph_module, node)
        elif node.target is aten.add.Tensor:
            changed |= _add_bias(graph_module, node)
    return changed


def _unflatten(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """A product of matrices between two reshapes of the leading axes."""
    if node.target is aten.addmm.default:
        bias, flat, weight = node.args
        if argument(node, "alpha") != 1 or argument(node, "beta") != 1:
            return False
    else:
        bias, (flat, weight) = None, node.args
    end = only_user(node)
    matrix = constant_of(graph_module, weight)
    if matrix is None or matrix.dim() != 2 or not isinstance(flat, fx.Node) or flat.target not in RESHAPES:
        return False
    if end is None or end.target not in RESHAPES or reaches_output(end):
        return False
    start, result = tensor_of(flat.args[0]), tensor_of(end)
    if start is None or result is None or start.dim() < 2:
        return False
    if sizes_key(result.shape) != (*sizes_key(start.shape[:-1]), matrix.shape[1]) or start.shape[-1] != matrix.shape[0]:
        return False
    offset = tensor_of(bias) if bias is not None else None
    if bias is not None and (offset is None or tuple(offset.shape) != (matrix.shape[1],)):
        return False
    assert isinstance(weight, fx.Node)
    turned = constant_made_of(graph_module, node, weight, "_t", matrix.t())
    replace(end, call_like(end, aten.linear.default, flat.args[0], turned, bias))
    erase_unused(node)
    return True


def _add_bias(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """A sum with one number for each output channel of a map without bias."""
    if argument(node, "alpha") != 1:
        return False
    pairs: Any = (node.args[:2], node.args[1::-1])
    for source, bias in pairs:
        if _lacks_bias(source) and only_user(source) is not None and constant_of(graph_module, bias) is not None:
            vector = _vector(graph_module, source, bias, node)
            if vector is not None:
                set_arguments(source, bias=vector)
                replace(node, source)
                return True
    return False


def _lacks_bias(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.target in _LACK_BIAS and argument(node, "bias") is None


def _vector(graph_module: fx.GraphModule, source: fx.Node, bias: fx.Node, place: fx.Node) -> fx.Node | None:
    """The addend as a bias, a view of it if need be."""
    result, total, weight = tensor_of(source), tensor_of(place), tensor_of(argument(source, "weight"))
    value = constant_of(graph_module, bias)
    if result is None or total is None or weight is None or value is None or weight.dim() < 2:
        return None
    if value.dtype != result.dtype or total.dtype != result.dtype or value.dim() > result.dim():
        return None
    channels, behind = weight.shape[0], weight.dim() - 2
    if source.target is aten.convolution.default and argument(source, "transposed"):
        return None
    shape = (1,) * (value.dim() - behind - 1) + (channels,) + (1,) * behind
    if value.dim() <= behind or tuple(value.shape) != shape or result.dim() < weight.dim():
        return None
    vector = bias if value.dim() == 1 else constant_made_of(graph_module, source, bias, "", value.reshape(-1))
    if not vector < source:  # the addend may stand behind the map
        source.prepend(vector)
    return vector
