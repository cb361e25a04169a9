"""What a partition is, and what a node's metadata says about its value."""

from __future__ import annotations

import enum
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import fx

if TYPE_CHECKING:
    from trtplug.partition.flow import Flow

UNKNOWN_SIZE = 64  # stands for a size without a hint (data-dependent) where bytes are estimated


@dataclass(frozen=True)
class Block:
    """One TensorRT block. Every tuple is in graph order."""

    index: int  # position in a topological order of the graph of blocks
    nodes: tuple[fx.Node, ...]  # its compute nodes with their getitems
    copies: tuple[fx.Node, ...]  # its own copies of nodes without rank: weights, functions of weights, size arithmetic
    inputs: tuple[fx.Node, ...]  # tensors from outside: placeholders, Torch nodes, other blocks
    outputs: tuple[fx.Node, ...]  # tensors used outside
    sizes: tuple[fx.Node, ...] = ()  # sizes that the inputs' shapes do not give: int64 inputs after the tensors

    @property
    def compute_nodes(self) -> tuple[fx.Node, ...]:
        """The block's nodes without getitems, which are what `min_block_size` counts."""
        return tuple(node for node in self.nodes if not is_getitem(node))


@dataclass(frozen=True)
class Partition:
    """Blocks and the rest. `torch_nodes` are the compute nodes left to Torch: no placeholders, getitems or sizes."""

    blocks: tuple[Block, ...]
    torch_nodes: tuple[fx.Node, ...]
    too_small: Mapping[fx.Node, int]  # node of a block under min_block_size: how many compute nodes that block had
    flow: Flow = field(repr=False, compare=False)  # the analysis of the graph that `link` goes on with

    @property
    def crossing_bytes(self) -> int:
        """Bytes of all blocks' inputs and outputs, sizes at their hints."""
        return sum(tensor_bytes(node) for block in self.blocks for node in (*block.inputs, *block.outputs))


class Value(enum.Enum):
    """What a node's metadata says its value is."""

    TENSOR = enum.auto()
    SIZE = enum.auto()  # a SymInt
    NUMBER = enum.auto()  # a Python number: the graph is specialized on it
    SCALAR = enum.auto()  # a SymFloat or SymBool
    OTHER = enum.auto()  # several values, None, an object


_MISSING = object()


def value_of(node: fx.Node) -> Value:
    """The kind of the node's value; a node without metadata is taken for a tensor."""
    val = node.meta.get("val", _MISSING)
    if isinstance(val, torch.Tensor) or val is _MISSING:
        return Value.TENSOR
    if isinstance(val, torch.SymInt):
        return Value.SIZE
    if isinstance(val, int | float | complex):
        return Value.NUMBER
    if isinstance(val, torch.SymFloat | torch.SymBool):
        return Value.SCALAR
    return Value.OTHER


def is_getitem(node: fx.Node) -> bool:
    return node.target is operator.getitem


def tensor_bytes(node: fx.Node) -> int:
    """Bytes of a tensor node: symbols at their hints, `UNKNOWN_SIZE` where there is none, 0 without metadata."""
    val = node.meta.get("val")
    if not isinstance(val, torch.Tensor):
        return 0
    return math.prod(map(size_hint, val.shape)) * val.dtype.itemsize


def size_hint(size: int | torch.SymInt) -> int:
    """A size, at its hint where it is symbolic, `UNKNOWN_SIZE` where it has none."""
    if isinstance(size, int):
        return size
    hint = getattr(size.node, "hint", None)
    return hint if isinstance(hint, int) else UNKNOWN_SIZE
