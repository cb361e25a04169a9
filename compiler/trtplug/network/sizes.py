"""Sizes inside a network: ints where they are known, 0-d int64 tensors where they are not.

Sizes with one symbolic expression are one tensor, so that "the same size" can be seen by identity. What values a size
can have is kept too, so that arithmetic whose result they decide costs no layer.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sympy
import torch

from trtplug.network.builder import NetworkBuilder
from trtplug.ranges import Bounds, Range, size_bounds

_FOLD: Mapping[str, Callable[[Any, Any], Any]] = {
    "SUM": operator.add,
    "SUB": operator.sub,
    "PROD": operator.mul,
    "FLOOR_DIV": operator.floordiv,
    "MIN": min,
    "MAX": max,
    "POW": operator.pow,
}
_NEUTRAL: Mapping[str, int] = {"SUM": 0, "SUB": 0, "PROD": 1, "FLOOR_DIV": 1, "POW": 1}
"""What changes nothing on the right."""


def fold(op: str, left: int, right: int) -> int:
    """Arithmetic on known sizes, by the name of an ``ElementWiseOperation``."""
    return int(_FOLD[op](left, right))


def bounds_of(op: str, left: Bounds, right: Bounds) -> Bounds:
    """What a result lies between, from what its operands lie between."""
    if op in ("FLOOR_DIV", "POW"):  # monotone in each operand only among positive numbers
        if left[0] < 0 or right[0] < 1 or math.inf in (*left, *right):
            return (-math.inf, math.inf)
    elif op == "PROD" and math.inf in map(abs, (*left, *right)):
        return (0 if left[0] >= 0 and right[0] >= 0 else -math.inf, math.inf)
    corners = [_FOLD[op](one, two) for one, two in itertools.product(left, right)]
    return (min(corners), max(corners))


class SizeBook:
    """What is known of the sizes in one network.

    Args:
        network: where layers go.
        ranges: of the symbols; what is missing is taken from the graph's own constraints.
    """

    def __init__(self, network: NetworkBuilder, ranges: Mapping[sympy.Symbol, Range] | None = None) -> None:
        self._network = network
        self._ranges = ranges or {}
        self._bounds: dict[Any, Bounds] = {}
        self._by_expression: dict[sympy.Expr, Any] = {}
        self._shapes: dict[Any, Any] = {}
        self._expressions: dict[Any, tuple[Any, ...]] = {}
        self._sizes: dict[Any, tuple[Any, ...]] = {}

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """What is learnt within is forgotten at the end: the layers that it was learnt from lie in a branch or loop."""
        kept = dict(self._by_expression), dict(self._shapes), dict(self._sizes)
        try:
            yield
        finally:
            self._by_expression, self._shapes, self._sizes = kept

    def note(self, tensor: Any, value: torch.Tensor) -> None:
        """The metadata of a network tensor: its symbolic sizes."""
        self._expressions[tensor] = tuple(value.shape)

    def define(self, size: Any, tensor: Any) -> None:
        """A symbolic size's own tensor, unless there is one already."""
        if isinstance(size, torch.SymInt):
            self._by_expression.setdefault(size.node.expr, tensor)
            self._bounds.setdefault(tensor, size_bounds(size, self._ranges))

    def bounds(self, size: Any) -> Bounds:
        """What a size lies between, in every call that the network is for."""
        return (size, size) if isinstance(size, int) else self._bounds.get(size, (-math.inf, math.inf))

    def math(self, op: str, left: Any, right: Any) -> Any:
        """Arithmetic by the name of an ``ElementWiseOperation``; no layer where what is known decides the result."""
        if isinstance(left, int) and isinstance(right, int):
            return fold(op, left, right)
        simpler = self._simplified(op, left, right)
        if simpler is not None:
            return simpler
        operands = [self._network.constant(s, torch.int64) if isinstance(s, int) else s for s in (left, right)]
        operation = getattr(self._network.trt.ElementWiseOperation, op)
        made = self._network.add("elementwise", *operands, operation).get_output(0)
        self._bounds[made] = bounds_of(op, self.bounds(left), self.bounds(right))
        return made

    def _simplified(self, op: str, left: Any, right: Any) -> Any:
        if op in ("MIN", "MAX"):
            one, two = (left, right) if op == "MIN" else (right, left)
            if left is right or self.bounds(one)[1] <= self.bounds(two)[0]:
                return left
            return right if self.bounds(two)[1] <= self.bounds(one)[0] else None
        if op == "SUB" and left is right:
            return 0
        if op == "PROD" and 0 in (left, right):
            return 0
        if right == _NEUTRAL.get(op):
            return left
        return right if op in ("SUM", "PROD") and left == _NEUTRAL[op] else None

    def of(self, tensor: Any) -> tuple[Any, ...]:
        """Every size of a tensor."""
        known = self._sizes.get(tensor)
        if known is None:
            known = self._sizes[tensor] = tuple(
                size if size >= 0 else self._dynamic(tensor, axis) for axis, size in enumerate(tensor.shape)
            )
        return known

    def _dynamic(self, tensor: Any, axis: int) -> Any:
        expressions = self._expressions.get(tensor)
        size = expressions[axis] if expressions else None
        if isinstance(size, int):  # metadata knows more than TensorRT does
            return size
        expression = size.node.expr if isinstance(size, torch.SymInt) else None
        known = self._by_expression.get(expression) if expression is not None else None
        if known is None:
            place = self._network.constant(axis, torch.int64)
            known = self._network.add("gather", self.shape(tensor), place, 0).get_output(0)
            self.define(size, known)
            self._bounds.setdefault(known, (0, math.inf))
        return known

    def shape(self, tensor: Any) -> Any:
        """The shape as an int64 tensor of shape (rank,)."""
        known = self._shapes.get(tensor)
        if known is None:
            known = self._shapes[tensor] = self._network.add("shape", tensor).get_output(0)
        return known

    def tensor(self, sizes: Sequence[Any]) -> Any:
        """Sizes as one int64 tensor of shape (len(sizes),)."""
        if all(isinstance(size, int) for size in sizes):
            return self._network.constant(list(sizes), torch.int64) if sizes else self._empty()
        parts = [self._vector(size) for size in sizes]
        return parts[0] if len(parts) == 1 else self._network.add("concatenation", parts, axis=0).get_output(0)

    def _vector(self, size: Any) -> Any:
        if isinstance(size, int):
            return self._network.constant([size], torch.int64)
        return self._network.add("unsqueeze", size, self._network.constant([0], torch.int64)).get_output(0)

    def _empty(self) -> Any:
        return self._network.constant(torch.empty(0, dtype=torch.int64))

    def known(self, size: Any, tensor: Any) -> Any:
        """The one tensor that stands for a symbolic size; `tensor` where none does yet."""
        if isinstance(size, torch.SymInt):
            return self._by_expression.get(size.node.expr, tensor)
        return tensor
