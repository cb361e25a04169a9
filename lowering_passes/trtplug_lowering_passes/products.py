"""Batches that were made flat for a product are products of as many axes again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._nodes import (
    call_before,
    call_like,
    calls,
    erase_unused,
    only_user,
    replace,
    sizes_key,
    tensor_of,
)
from trtplug_lowering_passes.views import RESHAPES
from trtplug_registry import lowering_pass, reaches_output

aten = torch.ops.aten

_COPIES = frozenset({aten.clone.default, aten.contiguous.default})
_EXPANDS = frozenset({aten.expand.default})


@lowering_pass(
    "products",
    ops=[aten.bmm.default],
    phase="early",
    after=["no-ops-early", "views-early"],
    before=["attention", "dead-code-early"],
)
def canonical_products(graph_module: fx.GraphModule) -> bool:
    """Writes ``bmm`` between reshapes as the ``matmul`` that Torch makes it of.

        a: [2, 4, 8, 8] ─ reshape(8, 8, 8) ─┐
        b: [2, 4, 8, 6] ─ reshape(8, 8, 6) ─ bmm ─ reshape(2, 4, 8, 6) ─ y    →    a, b ─ matmul ─ y

    Copies and expansions to the same batch, which Torch inserts, go with the reshapes. An operand that was something
    else before it was flat (heads that are repeated, say) is reshaped to the batch instead. Declines where the product
    is read flat, or returned, and where no operand has the batch.
    """
    changed = False
    for node in calls(graph_module.graph):
        if node.target is aten.bmm.default:
            changed |= _unflatten(node)
    return changed


def _unflatten(node: fx.Node) -> bool:
    end, flat = only_user(node), tensor_of(node)
    if end is None or end.target not in RESHAPES or reaches_output(end):
        return False
    whole, sizes = tensor_of(end), end.args[1]
    if whole is None or flat is None or whole.dim() < 4 or not isinstance(sizes, list | tuple):
        return False
    if sizes_key(whole.shape[-2:]) != sizes_key(flat.shape[-2:]):
        return False
    operands = [_whole(operand, whole, sizes) for operand in node.args]
    if None in operands or not any(isinstance(operand, fx.Node) for operand in operands):
        return False
    made = [call_before(node, aten.reshape.default, *item) if isinstance(item, tuple) else item for item in operands]
    replace(end, call_like(end, aten.matmul.default, *made))
    erase_unused(node)
    return True


def _whole(node: Any, result: torch.Tensor, sizes: Sequence[Any]) -> fx.Node | tuple[fx.Node, list[Any]] | None:
    """What a batch of matrices was before it was made flat, or how to reshape that to the batch of the result."""
    flat = tensor_of(node)
    if flat is None or node.target not in RESHAPES or not isinstance(node.args[1], list | tuple):
        return None
    source = node.args[0]
    while isinstance(source, fx.Node) and source.target in _COPIES:
        source = source.args[0]
    tensor = tensor_of(source)
    if tensor is None:
        return None
    if sizes_key(tensor.shape) == (*sizes_key(result.shape[:-2]), *sizes_key(flat.shape[-2:])):
        return _without_expansion(source)
    shape = [*sizes[:-2], *node.args[1][-2:]]
    return None if shape.count(-1) > 1 else (source, shape)


def _without_expansion(node: Any) -> fx.Node:
    """Without an expansion that changes nothing."""
    source = node.args[0] if node.target in _EXPANDS else node
    one, two = tensor_of(source), tensor_of(node)
    same = one is not None and two is not None and sizes_key(one.shape) == sizes_key(two.shape)
    return source if same else node  # type: ignore[no-any-return]  # nodes
