"""What a tensor picks is picked by that tensor, and not by its number."""

from __future__ import annotations

import torch
from torch import fx

from trtplug_lowering_passes._nodes import argument, call_before, calls, erase_unused, replace, tensor_of
from trtplug_registry import lowering_pass

aten = torch.ops.aten

_NUMBERS = frozenset({aten.item.default, aten._local_scalar_dense.default})
_INTS = frozenset({torch.int32, torch.int64})


@lowering_pass(
    "picks", ops=_NUMBERS, phase="early", after=["constant-folding-early"], before=["precision", "dead-code-early"]
)
def pick_by_tensor(graph_module: fx.GraphModule) -> bool:
    """Keeps ``x[n]`` in one piece, which is exported as a number that Torch has to read between two engines.

        n ─ item ─┐
        x ─ select(1, ·) ─ y    →    index(x, [:, n]) ─ y

    Stays: a number that something else than a select reads, too, and one of a tensor that holds no integers.
    """
    changed = False
    for node in calls(graph_module.graph):
        number = argument(node, "index") if node.target is aten.select.int else None
        if not isinstance(number, fx.Node) or number.target not in _NUMBERS:
            continue
        place, source = number.all_input_nodes[0], tensor_of(node.args[0])
        which = tensor_of(place)
        if source is None or which is None or which.dtype not in _INTS or which.device != source.device:
            continue
        if which.dim():
            place = call_before(node, aten.reshape.default, place, [])
        leading = [None] * (int(argument(node, "dim")) % source.dim())
        replace(node, call_before(node, aten.index.Tensor, node.args[0], [*leading, place]))
        erase_unused(number)
        changed = True
    return changed
