"""How ops without a converter are written with others: Torch's own core ATen table, and what it lacks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import _decomp as torch_decompositions
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from trtplug_lowering_passes.decompositions import (
    attention,
    convolutions,
    distances,
    divisions,
    exponents,
    grouped,
    integers,
    losses,
    normalizations,
    pointwise,
    pooling,
    quantiles,
    ramps,
    ranking,
    recurrent,
    resizing,
    scatters,
    special,
    views,
)
from trtplug_lowering_passes.decompositions.shared import HALVES

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
    losses,
    normalizations,
    pointwise,
    pooling,
    quantiles,
    ramps,
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
    found: dict[OpOverload, Callable[..., Any]] = {
        op: _promoted(function) if torch.Tag.pointwise in op.tags else function
        for op, function in table.items()
        if isinstance(op, OpOverload) and _is_wanted(op)
    }
    for module in _MODULES:
        found.update(module.TABLE)  # those refuse themselves what is random
    return found


def _is_wanted(op: OpOverload) -> bool:
    """Values that are neither written nor random; of gradients, only core ones: an engine is for inference."""
    gradient = op._schema.name.endswith(("_backward", "_backward_data")) and torch.Tag.core not in op.tags
    return not op._schema.is_mutable and torch.Tag.nondeterministic_seeded not in op.tags and not gradient


def _promoted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Torch's decomposition after eager's promotion: integers beside halves become halves, of fewer digits, first.

    Torch's own go to float32 at once, where a large integer that is infinite as a half stays finite.
    """

    @functools.wraps(function)
    def promoted(*args: Any, **kwargs: Any) -> Any:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        dtypes = {leaf.dtype for leaf in leaves if isinstance(leaf, torch.Tensor)}
        common = functools.reduce(torch.promote_types, dtypes) if len(dtypes) > 1 else None
        if common in HALVES:
            whole = [isinstance(leaf, torch.Tensor) and not leaf.is_floating_point() for leaf in leaves]
            leaves = [leaf.to(common) if one else leaf for leaf, one in zip(leaves, whole, strict=True)]
            args, kwargs = pytree.tree_unflatten(leaves, spec)
        return function(*args, **kwargs)

    return promoted


def _core() -> Mapping[Any, Any]:
    # the public table also collects every composite op, which takes a third of a second
    without_composites = getattr(torch_decompositions, "_core_aten_decompositions_post_autograd", None)
    return dict((without_composites or torch_decompositions.core_aten_decompositions)().items())
