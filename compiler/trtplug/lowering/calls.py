"""Calling a lowered program as the model was called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from trtplug.errors import InputError
from trtplug.lowering import graphs
from trtplug.lowering.value import Lowered


def flatten_inputs(lowered: Lowered, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """The flat inputs of a call, keywords in any order.

    Raises:
        InputError: keywords are missing or unknown, the nesting differs, or a fixed input has another value.
    """
    order = lowered.in_spec.child(1).context if lowered.in_spec.num_children == 2 else []
    if set(order) != set(kwargs):
        raise InputError(f"keyword arguments: given {sorted(kwargs)}, the model was exported for {sorted(order)}")
    flat, spec = pytree.tree_flatten((tuple(args), {name: kwargs[name] for name in order}))
    if spec != lowered.in_spec:
        raise InputError(f"the inputs are nested differently than when exported, which was: {lowered.in_spec}")
    for place, value in lowered.constants.items():
        if type(flat[place]) is not type(value) or flat[place] != value:
            name = lowered.input_names[place]
            raise InputError(f"input {name!r} is {flat[place]!r}; the program was exported for {value!r} only")
    return flat


def apply_mutations(lowered: Lowered, inputs: Sequence[Any], results: Sequence[Any]) -> list[Any]:
    """Copies the values past the user's outputs to where they go. Returns the user's outputs, flat."""
    count = len(results) - len(lowered.mutations)
    with torch.no_grad():
        for mutation, value in zip(lowered.mutations, results[count:]):
            if mutation.kind == "input":
                inputs[int(mutation.target)].copy_(value)
            else:
                graphs.attribute(lowered.graph_module, mutation.target).copy_(value)
    return list(results[:count])


def run_lowered(lowered: Lowered, *args: Any, **kwargs: Any) -> Any:
    """Runs the lowered graph in eager Torch, as the model would be called; what it returns is nested as the model's."""
    flat = flatten_inputs(lowered, args, kwargs)
    results = lowered.graph_module(*flat)
    return pytree.tree_unflatten(apply_mutations(lowered, flat, results), lowered.out_spec)
