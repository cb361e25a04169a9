"""Running statistics have the dtype that eager gives them."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._nodes import argument, calls, cast_value, is_cast, tensor_of
from trtplug_registry import lowering_pass

aten = torch.ops.aten

_RESULTS: Mapping[Any, Mapping[int, str]] = {
    aten._native_batch_norm_legit_functional.default: {3: "running_mean", 4: "running_var"},
    aten._batch_norm_with_update_functional.default: {4: "running_mean", 5: "running_var"},
}
"""Where the new statistics are among an op's results, and which argument they are the next value of."""


@lowering_pass("statistics", ops=_RESULTS, phase="early", before=["precision"])
def say_dtype_of_statistics(graph_module: fx.GraphModule) -> bool:
    """Says of running statistics in halves what they are on a CPU: Torch's metadata says float32, its kernels do not.

        norm ─ getitem(3): float32 ─ _to_copy(float16)    →    norm ─ getitem(3): float16 ─ _to_copy(float16)

    Stays: what something else than a cast reads, which would see the difference.
    """
    changed = False
    for node in calls(graph_module.graph):
        for place, name in _RESULTS.get(node.target, {}).items():
            before = tensor_of(argument(node, name))
            if before is not None and before.device.type == "cpu" and before.dtype != node.meta["val"][place].dtype:
                changed |= _say(node, place, before.dtype)
    return changed


def _say(node: fx.Node, place: int, dtype: torch.dtype) -> bool:
    taken = [user for user in node.users if user.target is operator.getitem and user.args[1] == place]
    if not all(is_cast(user) for item in taken for user in item.users):
        return False
    made = list(node.meta["val"])
    made[place] = cast_value(made[place], dtype)
    node.meta["val"] = tuple(made)
    for item in taken:
        item.meta["val"] = made[place]
    return True
