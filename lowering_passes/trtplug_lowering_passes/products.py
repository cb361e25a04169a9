"""Batches that were made flat for a product are products of as many axes again."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._nodes import (
    call_like,
    calls,
    erase_unused,
    only_user,
    reaches_output,
    replace,
    sizes_key,
    tensor_of,
)
from trtplug_lowering_passes.views import RESHAPES
from trtplug_registry import lowering_pass

aten = torch.ops.aten

_COPIES = frozenset({aten.clone.default, aten.contiguous.default})
_EXPANDS = frozenset({aten.expand.default})


@lowering_pass(
    "products", phase="early", after=["no-ops-early", "views-early"], before=["attention", "dead-code-early"]
)
def canonical_products(graph_module: fx.GraphModule) -> bool:
    """Writes ``bmm`` between reshapes as the ``matmul`` that Torch makes it of.

        a: [2, 4, 8, 8] ─ reshape(8, 8, 8) ─┐
        b: [2, 4, 8, 6] ─ reshape(8, 8, 6) ─ bmm ─ reshape(2, 4, 8, 6) ─ y    →    a, b ─ matmul ─ y

    Copies and expansions to the same batch, which Torch inserts, go with the reshapes. Declines where the product is
    read flat, or returned, and where the reshapes change the matrices.
    """
    changed = False
    for node in calls(graph_module.graph):
        if node.target is aten.bmm.default:
            changed |= _unflatten(node)
    return changed


def _unflatten(node: fx.Node) -> bool:
    end = only_user(node)
    if end is None or end.target not in RESHAPES or reaches_output(end):
        return False
    whole = tensor_of(end)
    operands = [_whole(operand) for operand in node.args]
    if whole is None or whole.dim() < 4 or any(operand is None for operand in operands):
        return False
    left, right = (tensor_of(operand) for operand in operands)
    if left is None or right is None or left.dim() != whole.dim() or right.dim() != whole.dim():
        return False
    batch = sizes_key(whole.shape[:-2])
    if not sizes_key(left.shape[:-2]) == sizes_key(right.shape[:-2]) == batch:
        return False
    flat_left, flat_right, flat = (tensor_of(item) for item in (*node.args, node))
    pairs = ((left, flat_left), (right, flat_right), (whole, flat))
    if any(two is None or sizes_key(one.shape[-2:]) != sizes_key(two.shape[-2:]) for one, two in pairs):
        return False
    replace(end, call_like(end, aten.matmul.default, *map(_without_expansion, operands)))
    erase_unused(node)
    return True


def _whole(node: Any) -> fx.Node | None:
    """What a batch of matrices was before it was made flat."""
    if not isinstance(node, fx.Node) or node.target not in RESHAPES:
        return None
    source = node.args[0]
    while isinstance(source, fx.Node) and source.target in _COPIES:
        source = source.args[0]
    return source if isinstance(source, fx.Node) else None


def _without_expansion(node: Any) -> fx.Node:
    """Without an expansion that changes nothing."""
    source = node.args[0] if node.target in _EXPANDS else node
    one, two = tensor_of(source), tensor_of(node)
    same = one is not None and two is not None and sizes_key(one.shape) == sizes_key(two.shape)
    return source if same else node  # type: ignore[no-any-return]  # nodes
