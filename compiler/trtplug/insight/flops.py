"""Floating-point operations by Torch's own counter (``torch.utils.flop_counter``); a multiply-add is two.

The counter knows matrix products, convolutions and attention; everything else counts as nothing, as it does there.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node
from torch.utils import _pytree as pytree

from trtplug.partition.value import size_hint

_WORDS = (
    "mm",
    "mv",
    "matmul",
    "linear",
    "conv",
    "attention",
    "einsum",
    "dot",
    "lstm",
    "gru",
    "rnn",
    "tensordot",
    "kron",
)
"""What an op's name holds if the counter may have something to say about it; counting costs a run on meta tensors."""


def flops_of(nodes: Iterable[Node]) -> dict[Node, int]:
    """The work of each node that has any, symbolic sizes at their hints."""
    known: dict[Any, int] = {}
    found: dict[Node, int] = {}
    counted: dict[Any, bool] = {}
    for node in nodes:
        target = node.target
        if target not in counted:
            counted[target] = isinstance(target, OpOverload) and any(word in target._schema.name for word in _WORDS)
        if not counted[target]:
            continue
        leaves, spec = pytree.tree_flatten((node.args, node.kwargs))
        described = [_describe(leaf) for leaf in leaves]
        key = (target, spec, tuple(map(str, described)))
        if key not in known:
            known[key] = _count(target, described, spec)
        if known[key]:
            found[node] = known[key]
    return found


def _describe(leaf: Any) -> Any:
    """A leaf with a shape and dtype for each tensor, and an int for each size."""
    value = leaf.meta.get("val") if isinstance(leaf, Node) else leaf
    if isinstance(value, torch.Tensor):
        return (tuple(size_hint(size) for size in value.shape), value.dtype)
    return size_hint(value) if isinstance(value, torch.SymInt) else value


def _count(target: Any, described: list[Any], spec: Any) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    leaves = [
        torch.empty(item[0], dtype=item[1], device="meta") if isinstance(item, tuple) else item for item in described
    ]
    args, kwargs = pytree.tree_unflatten(leaves, spec)
    try:
        with torch.no_grad(), warnings.catch_warnings(), FlopCounterMode(display=False) as counter:
            warnings.simplefilter("ignore")
            target(*args, **kwargs)
    except Exception:  # an op without a meta kernel has no count
        return 0
    return int(counter.get_total_flops())
