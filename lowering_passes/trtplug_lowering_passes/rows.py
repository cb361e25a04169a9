"""Rows are put in another order on that side of a linear map where other views follow."""

from __future__ import annotations

import torch
from torch import fx

from trtplug_lowering_passes._nodes import argument, call_before, calls, erase_unused, only_user, replace, tensor_of
from trtplug_lowering_passes.views import RESHAPES, is_mover, order_of
from trtplug_registry import lowering_pass, reaches_output

aten = torch.ops.aten


@lowering_pass(
    "rows",
    ops=[aten.linear.default],
    phase="early",
    after=["views-early", "linear-bias"],
    before=["scale-folding", "precision", "dead-code-early"],
)
def order_rows_outside(graph_module: fx.GraphModule) -> bool:
    """Moves permutations of rows away from what computes, to other views, with which they are one copy.

        x ─ permute(1, 0, 2) ─ linear ─ reshape ─ permute(b)
            →    x ─ linear ─ permute(1, 0, 2) ─ reshape ─ permute(b)
        x ─ permute(a) ─ reshape(6, 8) ─ linear ─ reshape(2, 3, 8) ─ permute(1, 0, 2) ─ y
            →    x ─ permute(a) ─ reshape(2, 3, 8) ─ permute(1, 0, 2) ─ linear ─ y

    ``nn.MultiheadAttention`` with ``batch_first`` has both: without them, the normalization before it is one kernel.
    The products are the same ones. Stays: what has no other view beside it, or is read elsewhere, and results that the
    graph returns, whose strides the caller sees.
    """
    changed = False
    for node in calls(graph_module.graph):
        if node.target is aten.linear.default:
            changed |= _behind(node) or _before(node)
    return changed


def _behind(linear: fx.Node) -> bool:
    """A permutation of the input becomes one of the result."""
    permuted, user = argument(linear, "input"), only_user(linear)
    order = order_of(permuted)
    if order is None or not _of_rows(order) or only_user(permuted) is not linear or reaches_output(linear):
        return False
    while user is not None and order_of(user) is None and is_mover(user):
        user = only_user(user)
    if user is None or order_of(user) is None:
        return False
    weight, bias = argument(linear, "weight"), argument(linear, "bias")
    product = call_before(linear, aten.linear.default, permuted.args[0], weight, bias)
    replace(linear, call_before(linear, aten.permute.default, product, order))
    erase_unused(permuted)
    return True


def _before(linear: fx.Node) -> bool:
    """A permutation of the result, whose rows were made flat, becomes one of the input."""
    flat, split = argument(linear, "input"), only_user(linear)
    end = None if split is None else only_user(split)
    order = order_of(end)
    if split is None or end is None or order is None or not _of_rows(order) or reaches_output(end):
        return False
    if flat.target not in RESHAPES or split.target not in RESHAPES or only_user(flat) is not linear:
        return False
    given, features, sizes = tensor_of(flat), tensor_of(linear), argument(split, _sizes_of(split))
    if given is None or features is None or order_of(flat.args[0]) is None:
        return False
    width, made = given.shape[-1], features.shape[-1]
    if type(width) is not int or type(made) is not int or sizes[-1] != made or type(sizes[-1]) is not int:
        return False
    rows = call_before(end, aten.reshape.default, flat.args[0], [*sizes[:-1], width])
    rows = call_before(end, aten.permute.default, rows, order)
    weight, bias = argument(linear, "weight"), argument(linear, "bias")
    replace(end, call_before(end, aten.linear.default, rows, weight, bias))
    erase_unused(split)
    return True


def _of_rows(order: list[int]) -> bool:
    """Whether the last axis stays where it is, and others do not."""
    return order[-1] == len(order) - 1 and order != sorted(order)


def _sizes_of(reshape: fx.Node) -> str:
    return "shape" if reshape.target is aten.reshape.default else "size"
