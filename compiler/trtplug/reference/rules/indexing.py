"""Gather, scatter, one-hot, top-k, non-zero, non-maximum suppression."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import Node

from trtplug.reference.semantics import boxes, indexing
from trtplug.reference.site import Rule, Site


def gather(site: Site) -> Node:
    mode, batch, axis = site.handle.mode.name, site.handle.num_elementwise_dims, site.handle.axis
    if mode == "ND":
        return site.move(indexing.gather_nd, *site.nodes(), batch)
    if mode == "ELEMENT":
        return site.move(indexing.gather_elements, *site.nodes(), axis)
    if batch:
        return site.move(indexing.gather_batched, *site.nodes(), axis, batch)
    return site.move(indexing.gather, *site.nodes(), axis)


def scatter(site: Site) -> Node:
    if site.handle.mode.name == "ND":
        return site.move(indexing.scatter_nd, *site.nodes())
    return site.move(indexing.scatter_elements, *site.nodes(), site.handle.axis)


def one_hot(site: Site) -> Node:
    return site.move(indexing.one_hot, site.node(0), site.node(1), site.ints(2), site.handle.axis)


def topk(site: Site) -> Node:
    axes = site.axes(site.handle.axes)
    if len(axes) != 1:
        raise site.refuse(f"top-k over axes {axes}")
    k = site.ints(1) if site.has(1) else [site.handle.k]
    return site.move(indexing.topk, site.node(0), k, axes[0], site.handle.op.name == "MAX", site.out_dtype(1))


def non_zero(site: Site) -> Node:
    return site.move(indexing.non_zero, site.node(0), site.out_dtype())


def non_maximum_suppression(site: Site) -> Node:
    layer = site.handle
    operands = site.node(0), site.node(1), site.ints(2), site.maybe(3), site.maybe(4)
    centred = layer.bounding_box_format.name == "CENTER_SIZES"
    return site.move(boxes.non_maximum_suppression, *operands, centred, layer.topk_box_limit, site.out_dtype())


RULES: Mapping[str, Rule] = {
    "GATHER": gather,
    "NMS": non_maximum_suppression,
    "NON_ZERO": non_zero,
    "ONE_HOT": one_hot,
    "SCATTER": scatter,
    "TOPK": topk,
}
