"""Zeros around an image become a convolution's padding."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._nodes import argument, calls, number, tensor_of
from trtplug_lowering_passes._weights import CONVOLUTIONS, set_arguments
from trtplug_registry import applied, decline, lowering_pass

aten = torch.ops.aten


_PADS = frozenset({aten.constant_pad_nd.default, aten.pad.default})


@lowering_pass(
    "pad-folding",
    ops=_PADS,
    phase="early",
    after=["constant-folding-early"],
    before=["precision", "dead-code-early"],
)
def fold_pad(graph_module: fx.GraphModule) -> bool:
    """Lets a convolution pad, instead of an op before it.

        x ─ constant_pad_nd([1, 1, 1, 1], 0) ─ conv(padding=[0, 0]) ─ y    →    x ─ conv(padding=[1, 1]) ─ y

    Exact: the same products are summed. Declines where the two sides of an axis differ (a convolution's do not), where
    something else than 0 is added or elements are taken away, and where batch or channels are padded.
    """
    changed = False
    for node in calls(graph_module.graph):
        pad = node.args[0] if node.target in CONVOLUTIONS else None
        if not isinstance(pad, fx.Node) or pad.target not in _PADS:
            continue
        reason = _fold(node, pad)
        if reason:
            decline(graph_module, "pad-folding", reason)
        else:
            applied(graph_module, "pad-folding")
            changed = True
    return changed


def _fold(node: fx.Node, pad: fx.Node) -> str:
    """Why not, or ""."""
    source = tensor_of(pad.args[0])
    weight = tensor_of(argument(node, "weight"))
    if source is None or weight is None:
        return "no tensor"
    axes = weight.dim() - 2
    sides: Any = list(argument(pad, "pad"))
    if not all(type(side) is int for side in sides):
        return "the padding depends on sizes"
    if pad.target is aten.pad.default and argument(pad, "mode") != "constant":
        return "it does not pad with zeros"
    fill = argument(pad, "value")
    if fill is not None and number(fill) != 0:
        return "it does not pad with zeros"
    before, after = sides[::2], sides[1::2]
    if before != after or any(side < 0 for side in sides):
        return "it pads unevenly"
    if any(before[axes:]):
        return "it pads batch or channels"
    if node.target is aten.convolution.default and argument(node, "transposed"):
        return "a transposed convolution's padding is another thing"
    own: Any = argument(node, "padding")
    if isinstance(own, str):
        if own != "valid":
            return 'padding="same" depends on the size'
        return 'padding="valid" takes no numbers'
    own = list(own) * axes if len(own) == 1 else list(own)
    more = [*before[:axes], *[0] * (axes - len(before))][::-1]  # the last axis comes first in a pad
    set_arguments(node, padding=[one + two for one, two in zip(own, more)])
    node.replace_input_with(pad, pad.args[0])  # type: ignore[arg-type]  # it has a tensor
    if not pad.users:
        pad.graph.erase_node(pad)
    return ""
