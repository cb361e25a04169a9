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
    wanted = lowered.in_spec
    names = ", ".join(lowered.input_names)
    order = wanted.child(1).context if wanted.num_children == 2 else []
    if set(order) != set(kwargs):
        missing, extra = sorted(set(order) - set(kwargs)), sorted(set(kwargs) - set(order))
        words = [f"{', '.join(map(repr, extra))} is not expected"] if extra else []
        words += [f"{', '.join(map(repr, missing))} is missing"] if missing else []
        raise InputError(f"keyword arguments: {'; '.join(words)}. The model was exported for: {names}")
    flat, spec = pytree.tree_flatten((tuple(args), {name: kwargs[name] for name in order}))
    if spec != wanted:
        count = len(lowered.input_names)
        if len(flat) != count:
            raise InputError(f"{len(flat)} inputs were given, the model takes {count}: {names}")
        raise InputError(f"the inputs are nested differently than when exported, which was: {wanted}")
    for place, value in lowered.constants.items():
        given = flat[place]
        if type(given) is not type(value) or given != value:
            name, fixed = lowered.input_names[place], f"the model was exported for the value {value!r}, which is fixed"
            raise InputError(f"input {name!r} is {given!r}; {fixed}. Compile again for another value")
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
