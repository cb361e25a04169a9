"""Reductions, scans, matrix products, softmax, normalization."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node

from trtplug.reference.semantics import reductions
from trtplug.reference.site import Rule, Site

REDUCE: Mapping[str, Callable[..., Any]] = {
    "SUM": reductions.reduce_sum,
    "AVG": reductions.reduce_mean,
    "PROD": reductions.reduce_prod,
    "MAX": reductions.reduce_max,
    "MIN": reductions.reduce_min,
}


def reduce(site: Site) -> Node:
    if site.handle.op.name not in REDUCE:
        raise site.refuse(f"operation {site.handle.op.name}")
    axes = site.axes(site.handle.axes)
    if not axes:  # Torch reads an empty list as all axes
        raise site.refuse("no axis to reduce")
    return site.compute(REDUCE[site.handle.op.name], site.node(0), axes, bool(site.handle.keep_dims))


def cumulative(site: Site) -> Node:
    if site.handle.op.name != "SUM":
        raise site.refuse(f"operation {site.handle.op.name}")
    flags = bool(site.handle.exclusive), bool(site.handle.reverse)
    return site.compute(reductions.cumulative_sum, site.node(0), site.ints(1), *flags)


def matrix_multiply(site: Site) -> Node:
    ops = site.handle.op0.name, site.handle.op1.name
    if "VECTOR" in ops:
        return site.compute(reductions.vector_matmul, *site.nodes(), *ops)
    shared = all(size == 1 for size in site.dims(1)[:-2])
    if ops == ("NONE", "NONE") and not shared:
        return site.compute(torch.matmul, *site.nodes())
    return site.compute(reductions.matmul, *site.nodes(), *(op == "TRANSPOSE" for op in ops))


def einsum(site: Site) -> Node:
    return site.compute(torch.einsum, site.handle.equation, *site.nodes())


def softmax(site: Site) -> Node:
    axes = site.axes(site.handle.axes)
    if len(axes) != 1:
        raise site.refuse(f"softmax over axes {axes}")
    return site.compute(torch.softmax, site.node(0), axes[0])


def ragged_softmax(site: Site) -> Node:
    return site.compute(reductions.ragged_softmax, *site.nodes())


def normalization(site: Site) -> Node:
    layer = site.handle
    axes, groups = site.axes(layer.axes), layer.num_groups
    if groups == 1:
        return site.compute(reductions.normalize, *site.nodes(), axes, layer.epsilon)
    per_group = not getattr(layer, "is_v2", False)
    return site.compute(reductions.group_normalize, *site.nodes(), axes, layer.epsilon, groups, per_group)


def local_response_normalization(site: Site) -> Node:
    layer = site.handle
    constants = layer.window_size, layer.alpha, layer.beta, layer.k
    return site.compute(reductions.local_response_normalize, site.node(0), *constants)


RULES: Mapping[str, Rule] = {
    "CUMULATIVE": cumulative,
    "EINSUM": einsum,
    "LRN": local_response_normalization,
    "MATRIX_MULTIPLY": matrix_multiply,
    "NORMALIZATION": normalization,
    "RAGGED_SOFTMAX": ragged_softmax,
    "REDUCE": reduce,
    "SOFTMAX": softmax,
}
