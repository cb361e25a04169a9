"""How ops without a converter are written with others: Torch's own core ATen table, and what it lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import _decomp as torch_decompositions
from torch._ops import OpOverload

from trtplug_lowering_passes.decompositions import (
    attention,
    convolutions,
    distances,
    divisions,
    exponents,
    grouped,
    integers,
    pointwise,
    pooling,
    quantiles,
    ranking,
    recurrent,
    resizing,
    scatters,
    special,
    views,
)

aten = torch.ops.aten

_BEYOND_CORE = (
    aten.addmm,
    aten.baddbmm,
    aten.native_layer_norm,
    aten.native_group_norm,
    aten._softmax,
    aten._log_softmax,
    aten.gelu,
    aten.hardtanh,
    aten.elu,
    aten.leaky_relu,
    aten.var,
    aten.native_batch_norm,
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_functional,
    aten._native_batch_norm_legit_no_training,
    aten._unsafe_index_put,
    aten.bucketize,
    aten.dist,
    aten.index_copy,
    aten.index_fill,
    aten.ldexp,
)
"""Core ops that Torch can write with simpler ones all the same; asked only where no converter takes them."""


_MODULES = (
    attention,
    convolutions,
    distances,
    divisions,
    exponents,
    grouped,
    integers,
    pointwise,
    pooling,
    quantiles,
    ranking,
    recurrent,
    resizing,
    scatters,
    special,
    views,
)


def decompositions() -> Mapping[OpOverload, Callable[..., Any]]:
    """The table. Torch's is read when this is called, a few milliseconds.

    Composite ops are not in it: an op that is made of others says so itself, and lowering asks it.
    """
    table = {**_core(), **torch_decompositions.get_decompositions(_BEYOND_CORE)}
    found = {
        op: function
        for op, function in table.items()
        if isinstance(op, OpOverload) and not op._schema.is_mutable and torch.Tag.nondeterministic_seeded not in op.tags
    }
    for module in _MODULES:
        found.update(module.TABLE)  # those refuse themselves what is random
    return {**found, **_of_loaded_libraries()}


def _of_loaded_libraries() -> Mapping[OpOverload, Callable[..., Any]]:
    found = {}
    for name, function in grouped.NAMED.items():
        namespace, _, op = name.partition("::")
        packet = getattr(getattr(torch.ops, namespace), op, None)
        if packet is not None:
            found[packet.default] = function
    return found


def _core() -> Mapping[Any, Any]:
    # the public table also collects every composite op, which takes a third of a second
    without_composites = getattr(torch_decompositions, "_core_aten_decompositions_post_autograd", None)
    return dict((without_composites or torch_decompositions.core_aten_decompositions)().items())
