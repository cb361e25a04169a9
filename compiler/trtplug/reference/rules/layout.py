"""Shapes, slices, padding, concatenation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import Node

from trtplug._tensorrt import read_dims
from trtplug.reference.semantics import layout
from trtplug.reference.site import Rule, Site


def shape(site: Site) -> Node:
    return site.move(layout.shape, site.node(0))


def _permuted(site: Site, x: Node, order: list[int]) -> Node:
    return x if order == list(range(len(order))) else site.move(torch.permute, x, order)


def shuffle(site: Site) -> Node:
    rank, out_rank = len(site.dims(0)), len(list(site.layer.outputs[0].shape))
    x = _permuted(site, site.node(0), list(site.handle.first_transpose)[:rank])
    dims = site.ints(1) if site.has(1) else read_dims(site.handle, "reshape_dims")
    if dims is not None:
        x = site.move(layout.reshape, x, dims, bool(site.handle.zero_is_placeholder))
    return _permuted(site, x, list(site.handle.second_transpose)[:out_rank])


def squeeze(site: Site) -> Node:
    if site.has(1):
        return site.move(layout.squeeze, site.node(0), site.ints(1))
    return site.move(layout.squeeze, site.node(0), [axis for axis, size in enumerate(site.dims(0)) if size == 1])


def unsqueeze(site: Site) -> Node:
    return site.move(layout.unsqueeze, site.node(0), site.ints(1))


def slice_(site: Site) -> Node:
    places = [
        site.ints(index) if site.has(index) else site.static(attribute)
        for index, attribute in ((1, "start"), (2, "shape"), (3, "stride"))
    ]
    axes = site.ints(5) if site.has(5) else read_dims(site.handle, "axes")
    mode = site.handle.mode.name
    if mode == "FILL":
        return site.move(layout.slice_filled, site.node(0), *places, axes, site.maybe(4))
    return site.move(layout.slice_, site.node(0), *places, axes, mode)


def concatenation(site: Site) -> Node:
    return site.move(torch.cat, site.nodes(), site.handle.axis)


def padding(site: Site) -> Node:
    return site.move(layout.pad, site.node(0), site.static("pre_padding_nd"), site.static("post_padding_nd"))


def reverse_sequence(site: Site) -> Node:
    return site.move(layout.reverse_sequence, *site.nodes(), site.handle.batch_axis, site.handle.sequence_axis)


RULES: Mapping[str, Rule] = {
    "CONCATENATION": concatenation,
    "PADDING": padding,
    "REVERSE_SEQUENCE": reverse_sequence,
    "SHAPE": shape,
    "SHUFFLE": shuffle,
    "SLICE": slice_,
    "SQUEEZE": squeeze,
    "UNSQUEEZE": unsqueeze,
}
