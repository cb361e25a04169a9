"""Between which numbers a tensor's elements lie, as far as the graph says."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch import fx

from trtplug_lowering_passes._nodes import argument, constant_of, tensor_of

aten = torch.ops.aten

Bounds: TypeAlias = tuple[float, float]

_SAME = frozenset(
    {
        aten.alias,
        aten.clone,
        aten.contiguous,
        aten.detach,
        aten.expand,
        aten.flatten,
        aten.index,
        aten.index_select,
        aten.permute,
        aten.repeat,
        aten.reshape,
        aten.select,
        aten.slice,
        aten.squeeze,
        aten.to,
        aten._to_copy,
        aten.transpose,
        aten.type_as,
        aten.unsqueeze,
        aten.view,
        aten.embedding,
    }
)
"""Ops whose elements are those of their first argument, perhaps in another dtype."""


class BoundsBook:
    """Bounds of the values in a graph, each found once. A graph's inputs have none, unless they are bool."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.graph_module = graph_module
        self._known: dict[fx.Node, Bounds | None] = {}

    def of(self, value: Any) -> Bounds | None:
        """Lowest and highest element of a node or number, rounded to its dtype; None where nothing is known."""
        if isinstance(value, bool | int | float):
            return (float(value), float(value))
        if not isinstance(value, fx.Node):
            return None
        if value not in self._known:
            self._known[value] = None  # while it is being found
            self._known[value] = self._rounded(value, self._find(value))
        return self._known[value]

    def _find(self, node: fx.Node) -> Bounds | None:
        tensor = tensor_of(node)
        constant = constant_of(self.graph_module, node)
        if constant is not None:
            return _of_tensor(constant)
        if tensor is not None and tensor.dtype == torch.bool:
            return (0.0, 1.0)
        packet = getattr(node.target, "overloadpacket", None)
        if packet in _SAME:
            return self.of(node.args[0])
        if packet is aten.zeros or packet is aten.zeros_like or packet is aten.new_zeros:
            return (0.0, 0.0)
        if packet is aten.ones or packet is aten.ones_like or packet is aten.new_ones:
            return (1.0, 1.0)
        if packet in (aten.full, aten.full_like, aten.new_full):
            return self.of(argument(node, "fill_value"))
        if packet is aten.scalar_tensor:
            return self.of(node.args[0])
        if packet is aten.where and len(node.args) == 3:
            return _either(self.of(node.args[1]), self.of(node.args[2]))
        if packet is aten.masked_fill:
            return _either(self.of(node.args[0]), self.of(node.args[2]))
        return self._arithmetic(node, packet)

    def _arithmetic(self, node: fx.Node, packet: Any) -> Bounds | None:
        if packet not in (aten.add, aten.sub, aten.rsub, aten.mul) or len(node.args) < 2:
            return None
        one, other = self.of(node.args[0]), self.of(node.args[1])
        if one is None or other is None:
            return None
        if packet is aten.mul:
            products = [a * b for a in one for b in other]
            return None if any(map(math.isnan, products)) else (min(products), max(products))
        alpha = argument(node, "alpha")
        if type(alpha) not in (int, float) or alpha != 1:
            return None
        if packet is aten.add:
            return (one[0] + other[0], one[1] + other[1])
        left, right = (one, other) if packet is aten.sub else (other, one)
        return (left[0] - right[1], left[1] - right[0])

    def _rounded(self, node: fx.Node, bounds: Bounds | None) -> Bounds | None:
        tensor = tensor_of(node)
        if bounds is None or tensor is None or not tensor.dtype.is_floating_point:
            return bounds if tensor is None or bounds is None or tensor.dtype == torch.bool else _whole(bounds)
        low, high = torch.tensor(bounds, dtype=torch.float64).to(tensor.dtype).tolist()
        return None if math.isnan(low) or math.isnan(high) else (low, high)


def _of_tensor(tensor: torch.Tensor) -> Bounds | None:
    if tensor.dtype.is_complex or tensor.is_quantized:
        return None
    if not tensor.numel():
        return (0.0, 0.0)
    if tensor.dtype == torch.bool:
        return (0.0, 1.0)
    low, high = (float(item) for item in tensor.aminmax())
    return None if math.isnan(low) or math.isnan(high) else (low, high)


def _either(one: Bounds | None, other: Bounds | None) -> Bounds | None:
    return None if one is None or other is None else (min(one[0], other[0]), max(one[1], other[1]))


def _whole(bounds: Bounds) -> Bounds | None:
    """Of integers: nothing is known once they may have wrapped around."""
    return bounds if all(abs(bound) < 2**31 for bound in bounds) else None
