"""Sizes inside a network: ints where they are known, 0-d int64 tensors where they are not.

Sizes with one symbolic expression are one tensor, so that "the same size" can be seen by identity.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch

from trtplug.network.builder import NetworkBuilder

_FOLD: Mapping[str, Callable[[int, int], int]] = {
    "SUM": operator.add,
    "SUB": operator.sub,
    "PROD": operator.mul,
    "FLOOR_DIV": operator.floordiv,
    "MIN": min,
    "MAX": max,
    "POW": operator.pow,
}


def fold(op: str, left: int, right: int) -> int:
    """Arithmetic on known sizes, by the name of an ``ElementWiseOperation``."""
    return int(_FOLD[op](left, right))


class SizeBook:
    """What is known of the sizes in one network."""

    def __init__(self, network: NetworkBuilder) -> None:
        self._network = network
        self._by_expression: dict[sympy.Expr, Any] = {}
        self._shapes: dict[Any, Any] = {}
        self._expressions: dict[Any, tuple[Any, ...]] = {}
        self._sizes: dict[Any, tuple[Any, ...]] = {}

    def note(self, tensor: Any, value: torch.Tensor) -> None:
        """The metadata of a network tensor: its symbolic sizes."""
        self._expressions[tensor] = tuple(value.shape)

    def define(self, size: Any, tensor: Any) -> None:
        """A symbolic size's own tensor, unless there is one already."""
        if isinstance(size, torch.SymInt):
            self._by_expression.setdefault(size.node.expr, tensor)

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
            if expression is not None:
                self._by_expression[expression] = known
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
