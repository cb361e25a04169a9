"""Ops that do nothing in inference are removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._nodes import argument, calls, layout, tensor_of
from trtplug_registry import Returned, lowering_pass

aten = torch.ops.aten

_VIEWS = frozenset(
    {
        aten.alias,
        aten.broadcast_to,
        aten.contiguous,
        aten.detach,
        aten.expand,
        aten.expand_as,
        aten.flatten,
        aten.lift_fresh,
        aten.movedim,
        aten.narrow,
        aten.permute,
        aten.reshape,
        aten.reshape_as,
        aten.slice,
        aten.squeeze,
        aten.swapaxes,
        aten.swapdims,
        aten.t,
        aten.to,
        aten.transpose,
        aten.type_as,
        aten.unflatten,
        aten.view,
        aten.view_as,
    }
)
"""Ops that at most rearrange: one whose result has its argument's dtype, device and layout does nothing.

``_conj`` and ``_neg_view`` are not among them: they keep the layout and change the values.
"""

_COPIES = frozenset({aten.clone, aten._to_copy, aten.lift_fresh_copy, aten._unsafe_view})
"""The same, in fresh memory."""

_DROPOUTS = frozenset(
    {aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout, aten.native_dropout}
)

_CANDIDATES = _VIEWS | _COPIES | _DROPOUTS

_NEUTRAL: Mapping[Any, tuple[str, int]] = {
    aten.mul.Tensor: ("other", 1),
    aten.mul.Scalar: ("other", 1),
    aten.div.Tensor: ("other", 1),
    aten.div.Scalar: ("other", 1),
    aten.sub.Tensor: ("other", 0),
    aten.sub.Scalar: ("other", 0),
    aten.pow.Tensor_Scalar: ("exponent", 1),
}
"""Arithmetic that gives its first argument, bit for bit, where the other is this number. (No sum: -0.0 + 0 is 0.0.)"""

_ASSERTIONS = frozenset({aten._assert_tensor_metadata})
"""Assertions about what metadata already says. Those about values stay."""


def no_ops(graph_module: fx.GraphModule) -> bool:
    """Removes calls that return their argument unchanged.

        x ─ dropout(p, train=False) ─ clone ─ view(same shape) ─ mul(1.0) ─ y    →    x ─ y

    Stays: a copy that the graph returns (the caller may write to it, and the original may be an input); a copy with
    another memory layout (a later ``view`` in Torch needs it).
    """
    returned, changed = Returned(graph_module.graph), False
    for node in calls(graph_module.graph):
        packet = node.target.overloadpacket  # type: ignore[union-attr]  # calls() yields overloads
        if packet in _ASSERTIONS:
            graph_module.graph.erase_node(node)
            changed = True
        elif _does_nothing(node, packet, returned):
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]  # its tensor
            graph_module.graph.erase_node(node)
            changed = True
    return changed


def _does_nothing(node: fx.Node, packet: object, returned: Returned) -> bool:
    neutral = _is_neutral(node)
    if packet not in _CANDIDATES and not neutral:
        return False
    if not node.args or not isinstance(node.args[0], fx.Node):
        return False
    before, after = tensor_of(node.args[0]), tensor_of(node)
    if before is None or after is None:
        return False
    if packet in _DROPOUTS:
        # with p = 0 a training dropout still draws random numbers, which shifts the ones drawn later
        return packet is not aten.native_dropout and argument(node, "train") is False
    if before.dtype != after.dtype or before.device != after.device or layout(before)[:2] != layout(after)[:2]:
        return False
    if neutral or packet in _COPIES or (packet is aten.to and _to_copies(node)):
        return node not in returned
    return layout(before) == layout(after)


def _is_neutral(node: fx.Node) -> bool:
    name, number = _NEUTRAL.get(node.target, ("", 0))
    return bool(name) and type(argument(node, name)) in (int, float) and argument(node, name) == number


def _to_copies(node: fx.Node) -> bool:
    return argument(node, "copy") is True


_OPS = _CANDIDATES | _ASSERTIONS | _NEUTRAL.keys()

remove_no_ops_early = lowering_pass("no-ops-early", ops=_OPS, phase="early")(no_ops)
remove_no_ops = lowering_pass("no-ops", ops=_OPS)(no_ops)
