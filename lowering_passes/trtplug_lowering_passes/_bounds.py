"""Between which numbers a tensor's elements lie, as far as the graph says."""

from __future__ import annotations

import functools
import math
from typing import Any, TypeAlias

import torch
from torch import fx

from trtplug_lowering_passes._nodes import argument, constant_of, positions, tensor_of

aten = torch.ops.aten

Bounds: TypeAlias = tuple[float, float]

_SAME = frozenset(
    {
        aten.alias,
        aten.cat,
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
        aten.split,
        aten.stack,
        aten.t,
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
"""Ops whose elements are those of their first argument (or of the tensors in it), perhaps in another dtype."""

_ARITHMETIC = frozenset({aten.add, aten.sub, aten.rsub, aten.mul})
_LIMITED = {
    aten.clamp: ("min", "max"),
    aten.clamp_min: ("min", ""),
    aten.clamp_max: ("", "max"),
    aten.minimum: ("", "other"),
    aten.maximum: ("other", ""),
}
"""For ops that keep elements within limits: the arguments that are the lower and the upper one."""


_READ = _SAME | _ARITHMETIC | _LIMITED.keys() | {aten.neg, aten.cumsum, aten.where, aten.masked_fill}


class BoundsBook:
    """Bounds of the values in a graph, each found once. A graph's inputs have none, unless they are bool."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.graph_module = graph_module
        self._known: dict[fx.Node, Bounds | None] = {}

    def of(self, value: Any) -> Bounds | None:
        """Lowest and highest element of a node or number, rounded to its dtype; None where nothing is known."""
        if isinstance(value, bool | int | float):
            return (float(value), float(value))
        if isinstance(value, list | tuple):
            return functools.reduce(_either, map(self.of, value)) if value else None
        if not isinstance(value, fx.Node):
            return None
        if isinstance(value.meta.get("val"), torch.SymInt):
            return _of_size(value.meta["val"])
        if value not in self._known:
            self._find_below(value)
        return self._known[value]

    def _find_below(self, node: fx.Node) -> None:
        """Finds what a node is computed from before the node, however deep that is."""
        waiting = [node]
        while waiting:
            last = waiting[-1]
            if last in self._known and self._known[last] is not None:
                waiting.pop()
                continue
            below = [] if last in self._known else [item for item in self._read(last) if item not in self._known]
            self._known[last] = None  # while it is being found
            waiting += below
            if not below:
                self._known[last] = self._rounded(last, self._find(last))
                waiting.pop()

    def _read(self, node: fx.Node) -> list[fx.Node]:
        """The calls that `_find` may ask about."""
        tensor = tensor_of(node)
        if getattr(node.target, "overloadpacket", None) not in _READ or (
            tensor is not None and tensor.dtype == torch.bool
        ):
            return []
        return [source for source in node.all_input_nodes if source.op == "call_function"]

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
        if packet is aten.arange:
            return self._counted(node)
        if packet in _LIMITED:
            return self._limited(node, *_LIMITED[packet])
        if packet is aten.cumsum and tensor is not None:
            return self._summed(node, tensor)
        if packet is aten.where and len(node.args) == 3:
            return _either(self.of(node.args[1]), self.of(node.args[2]))
        if packet is aten.masked_fill:
            return _either(self.of(node.args[0]), self.of(node.args[2]))
        return self._arithmetic(node, packet)

    def _arithmetic(self, node: fx.Node, packet: Any) -> Bounds | None:
        if packet is aten.neg:
            bounds = self.of(node.args[0])
            return None if bounds is None else (-bounds[1], -bounds[0])
        if packet not in _ARITHMETIC or len(node.args) < 2:
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

    def _counted(self, node: fx.Node) -> Bounds | None:
        """Of arange: from its start to before its end."""
        target: Any = node.target
        start = self.of(argument(node, "start")) if "start" in positions(target) else (0.0, 0.0)
        end = self.of(argument(node, "end"))
        return _either(start, end)

    def _limited(self, node: fx.Node, low: str, high: str) -> Bounds | None:
        """Between limits. Of integers, those that are known are enough; a float may be no number."""
        tensor = tensor_of(node)
        given = self.of(node.args[0])
        if given is None:
            if tensor is None or tensor.dtype.is_floating_point:
                return None
            given = (-math.inf, math.inf)
        lower, upper = (argument(node, name) if name else None for name in (low, high))
        if lower is not None:
            found = self.of(lower) or (-math.inf, math.inf)
            given = (max(given[0], found[0]), max(given[1], found[1]))
        if upper is not None:
            found = self.of(upper) or (-math.inf, math.inf)
            given = (min(given[0], found[0]), min(given[1], found[1]))
        return given

    def _summed(self, node: fx.Node, tensor: torch.Tensor) -> Bounds | None:
        """Of a cumulative sum: at most as many elements as there are on the axis."""
        bounds, size = self.of(node.args[0]), None
        if tensor.dim():
            length = tensor.shape[argument(node, "dim")]
            size = (float(length),) * 2 if type(length) is int else _of_size(length)
        if bounds is None or size is None:
            return None
        return min(bounds[0], size[1] * bounds[0]), max(bounds[1], size[1] * bounds[1])

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
    if not all(abs(bound) < 2**31 for bound in bounds):
        return None
    return float(math.floor(bounds[0])), float(math.ceil(bounds[1]))


def _of_size(size: torch.SymInt) -> Bounds | None:
    """Of a symbolic size, as the export's ranges of its symbols have it."""
    from torch.utils._sympy.value_ranges import bound_sympy

    found = bound_sympy(size.node.expr, size.node.shape_env.var_to_range)
    if not (found.lower > -(2**31) and found.upper < 2**31):
        return None
    return float(found.lower), float(found.upper)
