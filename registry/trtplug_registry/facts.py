"""What the registry knows of a node's arguments: shapes and dtypes out of FX metadata, never data.

Nothing here evaluates a symbolic size, so that asking about a node leaves no guard behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.fx import Node


class SymbolicSize:
    """A size that is not known until run time, such as ``s0`` or ``2*s0 + 1``.

    Equal where the expressions are the same. It has no arithmetic: what a domain decides must not depend on a hint.
    """

    __slots__ = ("_node", "expr")

    def __init__(self, size: torch.SymInt) -> None:
        self._node = size.node
        self.expr = self._node.expr

    def bounds(self) -> tuple[float, float]:
        """The smallest and largest value that the graph's own constraints admit."""
        found = self._node.shape_env.bound_sympy(self.expr)
        return float(found.lower), float(found.upper)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SymbolicSize) and bool(self.expr == other.expr)

    def __hash__(self) -> int:
        return hash(self.expr)

    def __repr__(self) -> str:
        return str(self.expr)


Size = int | SymbolicSize


class TensorFacts(NamedTuple):
    """What metadata says of one tensor.

    Attributes:
        shape: one entry per dimension, an int or a `SymbolicSize`.
        dtype: the Torch dtype.
        constant: whether its value is known at compile time (a parameter, a folded constant).
        values: for drawn calls only: the (smallest, largest) element that makes sense, as for an index.
    """

    shape: tuple[Size, ...]
    dtype: torch.dtype
    constant: bool = False
    values: tuple[float, float] | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def numel(self) -> int:
        """The number of elements; only for tensors without symbolic sizes."""
        count = 1
        for size in self.shape:
            assert isinstance(size, int)
            count *= size
        return count

    def __repr__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}[{', '.join(map(str, self.shape))}]"


class Symbolic(NamedTuple):
    """An argument that is a symbolic number other than a size: a SymFloat or SymBool."""

    kind: str


class Opaque(NamedTuple):
    """An argument that metadata says nothing usable about."""

    why: str


Call = Mapping[str, Any]
"""A call's arguments by the schema's names: tensors as `TensorFacts`, symbolic ints as `SymbolicSize`."""


def describe_tensor(value: torch.Tensor, constant: bool = False) -> TensorFacts:
    sizes = [size if type(size) is int else describe_size(size) for size in value.shape]
    return TensorFacts(tuple(sizes), value.dtype, constant)


def describe_size(size: Any) -> Size:
    """An int, or the `SymbolicSize` of a SymInt; a SymInt that stands for a constant is that constant."""
    if isinstance(size, torch.SymInt):
        expr = size.node.expr
        return int(expr) if expr.is_number else SymbolicSize(size)
    return int(size)


def describe_value(value: Any, constant: bool = False) -> Any:
    """Facts of a ``node.meta["val"]``, or of a literal argument."""
    if isinstance(value, torch.Tensor):
        return describe_tensor(value, constant)
    if isinstance(value, torch.SymInt):
        return describe_size(value)
    if isinstance(value, _SYMBOLIC):
        return Symbolic(type(value).__name__)
    if isinstance(value, _SEQUENCES):
        return [describe_value(item, constant) for item in value]
    return value


_SYMBOLIC = (torch.SymFloat, torch.SymBool)  # a union would be made anew at each of many calls
_SEQUENCES = (list, tuple)


def describe_node(node: Node) -> Any:
    """Facts of what a node computes, from ``node.meta["val"]``."""
    try:
        value = node.meta["val"]
    except KeyError:
        return Opaque(f"{node.name} has no metadata")
    return describe_value(value, node.op == "get_attr" or bool(node.meta.get("constant")))
