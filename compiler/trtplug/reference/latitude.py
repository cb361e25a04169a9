"""What TensorRT leaves open: results that its kernels, and its versions, do not agree on among themselves.

A lifted network computes one thing. `otherwise` runs it as TensorRT may also compute it; what TensorRT computes is
defined where both agree. Seen on a GPU, and no builder flag changes any of it:

* **NaN** is lost by maxima, minima, top-k, clamps and max pooling: they return the other operand or NaN, as kernels go.
* An **infinite operand of a product** gives infinity or NaN: float32 without TF32 is split into two numbers, of which
  the second is then NaN.
* **Intermediate steps overflow**, or do not: GELU and SOFTPLUS of more than half the dtype's largest number, the sum in
  an average.
* A **softmax over one element** is 1 whatever the element is.
* A float that becomes **int8 or uint8** outside of that dtype's range: its low bits, or a 16-bit integer's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from trtplug.reference.semantics import attention, indexing, pointwise, quantization, reductions, windows


def may_lose_nan(module: fx.GraphModule) -> bool:
    """Whether a lifted network has a layer that may lose NaN, loops and conditionals included."""
    graphs = (part.graph for part in module.modules() if isinstance(part, fx.GraphModule))
    return any(node.target in _LOSES_NAN for graph in graphs for node in graph.nodes if node.op == "call_function")


def loses_nan(module: fx.GraphModule, inputs: Sequence[Any]) -> bool:
    """Whether results differ where maxima and their like lose the NaN in these inputs."""
    pairs = zip(module(*inputs), _WithoutNan(module).run(*inputs), strict=True)
    return any(bool(undefined(one, two).any()) for one, two in pairs)


def undefined(one: Tensor, two: Tensor) -> Tensor:
    """Where two results differ; NaN is NaN."""
    return (one != two) & ~(one.isnan() & two.isnan())


def otherwise(module: fx.GraphModule, inputs: Sequence[Any]) -> tuple[Tensor, ...]:
    """Runs a lifted network as TensorRT may also compute it; loops and conditionals as they are."""
    results: tuple[Tensor, ...] = _Otherwise(module).run(*inputs)
    return results


class _WithoutNan(fx.Interpreter):
    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in _LOSES_NAN:
            args = _without_nan(args, _LOSES_NAN[target](args))
        return super().call_function(target, args, kwargs)


class _Otherwise(_WithoutNan):
    def run_node(self, n: fx.Node) -> Any:
        self._most = torch.finfo(_dtype_of(n)).max
        return super().run_node(n)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in _PRODUCTS:
            args = tuple(_replaced(value, torch.isinf, math.nan) for value in args)
        elif target is torch.softmax and args[0].shape[args[1]] == 1:
            return torch.ones_like(args[0])
        result = super().call_function(target, args, kwargs)
        return _AFTERWARDS[target](result, args, self._most) if target in _AFTERWARDS else result


def _dtype_of(node: fx.Node) -> torch.dtype:
    """The floating dtype of a layer: halves are computed in float32, and rounded by a cast that follows."""
    rounded = [user.args[1] for user in node.users if user.target is pointwise.cast and user.args[0] is node]
    return next((d for d in rounded if isinstance(d, torch.dtype) and d.is_floating_point), torch.float32)


def _without_nan(args: tuple[Any, ...], instead: float | None) -> tuple[Any, ...]:
    return args if instead is None else tuple(_replaced(value, torch.isnan, instead) for value in args)


def _replaced(value: Any, where: Callable[[Tensor], Tensor], instead: float) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.where(where(value), instead, value)
    return value


# --- operands ---------------------------------------------------------------------------------------------------------


def _least(_: Sequence[Any]) -> float:
    return -math.inf


def _greatest(_: Sequence[Any]) -> float:
    return math.inf


def _of_pooling(args: Sequence[Any]) -> float | None:
    return None if args[1] == "AVERAGE" else -math.inf


def _of_topk(args: Sequence[Any]) -> float:
    return -math.inf if args[3] else math.inf


_LOSES_NAN: Mapping[Any, Callable[[Sequence[Any]], float | None]] = {
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
"""What a layer that may lose NaN takes it for when it does; None where it keeps NaN in this mode."""

_PRODUCTS = frozenset(
    {
        torch.matmul,
        torch.einsum,
        reductions.matmul,
        reductions.vector_matmul,
        windows.convolution,
        windows.deconvolution,
        attention.attention,
    }
)


# --- results ----------------------------------------------------------------------------------------------------------


def _overflown(result: Tensor, args: Sequence[Any], most: float) -> Tensor:
    return torch.where(args[0] > most / 2, math.inf, result)


def _average(result: Tensor, args: Sequence[Any], most: float) -> Tensor:
    if args[1] == "MAX":
        return result
    return windows.pooling(args[0].double(), *args[1:]).to(result.dtype)


def _narrowed(result: Tensor, args: Sequence[Any], most: float) -> Tensor:
    if result.dtype not in (torch.int8, torch.uint8) or not args[0].is_floating_point():
        return result
    info = torch.iinfo(result.dtype)
    return torch.where((args[0] < info.min) | (args[0] > info.max), ~result, result)


def _places_of_nan(result: tuple[Tensor, Tensor], args: Sequence[Any], most: float) -> tuple[Tensor, Tensor]:
    """The places of what NaN was taken for, or may have been, are not defined."""
    values, places = result
    if not values.is_floating_point():
        return values, places
    taken = -math.inf if args[3] else math.inf
    return values, torch.where(values == taken, -1, places)


_AFTERWARDS: Mapping[Any, Callable[[Any, Sequence[Any], float], Any]] = {
    pointwise.gelu_erf: _overflown,
    pointwise.gelu_tanh: _overflown,
    pointwise.softplus: _overflown,
    pointwise.cast: _narrowed,
    windows.pooling: _average,
    indexing.topk: _places_of_nan,
}
