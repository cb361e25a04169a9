"""Where TensorRT does not promise to keep NaN.

Its maxima, minima, top-k, clamps and max pooling return the other operand or NaN, as their kernels go: two kernels for
one layer differ, and no builder flag changes that. A lifted network keeps NaN, as Torch does; `without_nan` runs it as
if these layers ignored it. What TensorRT computes is defined where the two agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from trtplug.reference.semantics import indexing, pointwise, quantization, reductions, windows

_Instead = Callable[[Sequence[Any]], float | None]
"""From a layer's operands: what it takes a NaN for when it ignores it; None where it keeps NaN in this mode."""


def _least(_: Sequence[Any]) -> float:
    return -math.inf


def _greatest(_: Sequence[Any]) -> float:
    return math.inf


def _of_pooling(args: Sequence[Any]) -> float | None:
    return None if args[1] == "AVERAGE" else -math.inf


def _of_topk(args: Sequence[Any]) -> float:
    return -math.inf if args[3] else math.inf


LOSES_NAN: Mapping[Any, _Instead] = {
    torch.maximum: _least,
    torch.minimum: _greatest,
    pointwise.clip: _least,
    pointwise.hard_sigmoid: _greatest,
    reductions.reduce_max: _least,
    reductions.reduce_min: _greatest,
    indexing.topk: _of_topk,
    windows.pooling: _of_pooling,
    quantization.quantize: _greatest,
}
"""The functions of the layers that may lose NaN."""


def may_lose_nan(module: fx.GraphModule) -> bool:
    """Whether a lifted network has a layer that may lose NaN, loops and conditionals included."""
    graphs = (part.graph for part in module.modules() if isinstance(part, fx.GraphModule))
    return any(node.target in LOSES_NAN for graph in graphs for node in graph.nodes if node.op == "call_function")


def without_nan(module: fx.GraphModule, inputs: Sequence[Any]) -> tuple[Tensor, ...]:
    """Runs a lifted network whose maxima and their like, outside loops and conditionals, ignore NaN.

    A softmax over one element is 1 whatever the element is: TensorRT folds it.
    """
    results: tuple[Tensor, ...] = _Ignoring(module).run(*inputs)
    return results


class _Ignoring(fx.Interpreter):
    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is torch.softmax and args[0].shape[args[1]] == 1:
            return torch.ones_like(args[0])
        instead = LOSES_NAN[target](args) if target in LOSES_NAN else None
        if instead is not None:
            args = tuple(_replaced(value, instead) for value in args)
        return super().call_function(target, args, kwargs)


def _replaced(value: Any, instead: float) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.where(value.isnan(), instead, value)
    return value
