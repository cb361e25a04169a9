"""Which results share memory with what they were made of, and what of that the caller of a graph gets to see."""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

_AT_TIMES = frozenset(
    f"aten::{name}"
    for name in (
        *("reshape", "contiguous", "to", "flatten", "expand_as", "view_as", "type_as", "reshape_as", "sum_to_size"),
        *("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "conj_physical", "einsum"),
        *("atleast_1d", "atleast_2d", "atleast_3d", "broadcast_tensors", "meshgrid", "cartesian_prod", "unsafe_chunk"),
    )
)
"""Composite ops that return their argument, or a view of it, where there is nothing to do; no schema tells."""


def may_be_view(target: Any) -> bool:
    """Whether a call's result may share memory with its arguments: always by its schema, or at times."""
    return _op_may_be_view(target) if isinstance(target, OpOverload) else True


@functools.cache
def _op_may_be_view(op: OpOverload) -> bool:
    schema = op._schema
    return any(item.alias_info is not None for item in schema.returns) or schema.name in _AT_TIMES


def is_view(target: Any) -> bool:
    """Whether a call's result always shares memory with its first argument."""
    if not isinstance(target, OpOverload):
        return target is operator.getitem
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), "CompositeImplicitAutograd")
    return any(item.alias_info is not None for item in target._schema.returns) and not composite


def reaches_output(node: fx.Node) -> bool:
    """Whether the node's memory, itself or through views, is what the graph returns: then it must be as fresh.

    Follows every view of it; who asks about many nodes makes `Returned` of the graph, once.
    """
    waiting, seen = [node], {node}
    while waiting:
        for user in waiting.pop().users:
            if user.op == "output":
                return True
            if user not in seen and user.op == "call_function" and may_be_view(user.target):
                seen.add(user)
                waiting.append(user)
    return False


class Returned:
    """The nodes of which `reaches_output` is true, found at once: ``node in returned``.

    It stays true of the nodes that were there while others are put in the place of nodes that are not in it; where one
    is put in the place of a node that is, say so: `add`.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self._nodes: set[fx.Node] = set()
        for output in graph.find_nodes(op="output"):
            for node in output.all_input_nodes:
                self.add(node)

    def add(self, node: fx.Node) -> None:
        """From now on the graph returns the memory of this node, and of what it is a view of."""
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if node not in self._nodes:
                self._nodes.add(node)
                if node.op == "call_function" and may_be_view(node.target):
                    waiting += node.all_input_nodes

    def __contains__(self, node: fx.Node) -> bool:
        return node in self._nodes
