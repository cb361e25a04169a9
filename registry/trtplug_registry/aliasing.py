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
    """Whether the node's memory, itself or through views, is what the graph returns: then it must be as fresh."""
    waiting, seen = [node], {node}
    while waiting:
        for user in waiting.pop().users:
            if user.op == "output":
                return True
            if user not in seen and user.op == "call_function" and may_be_view(user.target):
                seen.add(user)
                waiting.append(user)
    return False
