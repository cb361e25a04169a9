"""How the outputs of blocks lie in memory, where that counts: random ops draw their numbers in the order of memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from trtplug.partition.effects import is_random
from trtplug.partition.flow import Flow, Kind
from trtplug.partition.value import Partition

aten = torch.ops.aten


def permuted_outputs(flow: Flow, partition: Partition) -> dict[fx.Node, list[int]]:
    """The outputs of blocks that eager has not in row-major order, and that a random op in Torch depends on, by itself
    or through other ops in Torch; each with its axes from the outermost in memory to the innermost.

    Linear in nodes and edges, and free for a graph that draws no random numbers in Torch.
    """
    outputs = {node for block in partition.blocks for node in block.outputs}
    waiting = [node for node, kind in zip(flow.nodes, flow.kind, strict=True) if kind is Kind.TORCH and is_random(node)]
    found: dict[fx.Node, list[int]] = {}
    seen = set(waiting)
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source in seen:
                continue
            seen.add(source)
            if source not in outputs:
                waiting.append(source)
            elif (order := _order(source.meta.get("val"))) is not None:
                found[source] = order
    return found


def as_in_eager(graph: fx.Graph, tensor: fx.Node, order: list[int]) -> fx.Node:
    """An engine's output, which is row-major, laid out as eager's.

    output            →   output ─ permute ─ contiguous ─ permute
    """
    value = tensor.meta["val"]
    back = [order.index(axis) for axis in range(len(order))]
    for target, arguments, result in (
        (aten.permute.default, (order,), value.permute(order)),
        (aten.contiguous.default, (), value.permute(order)),
        (aten.permute.default, (back,), value),
    ):
        meta = {**tensor.meta, "val": result}
        tensor = graph.call_function(target, (tensor, *arguments))
        tensor.meta = meta
    return tensor


def _order(value: object) -> list[int] | None:
    """The axes of what eager makes of such a tensor, by their strides; None where they are in order as they are, or
    nobody can say.
    """
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return None
    sizes, strides = _known(value.shape), _known(value.stride())
    if sizes is None or strides is None:
        return None
    made = torch.empty_like(torch.empty_strided(sizes, strides, device="meta")).stride()  # dense, also of an expansion
    order = sorted(range(len(made)), key=lambda axis: -made[axis])
    return None if order == list(range(len(made))) else order


def _known(numbers: Sequence[int | torch.SymInt]) -> list[int] | None:
    """The numbers as they are in the example; None where data decides one."""
    found = [number.node.hint if isinstance(number, torch.SymInt) else number for number in numbers]
    return None if None in found else found
