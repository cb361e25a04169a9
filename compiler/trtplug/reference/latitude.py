"""What TensorRT leaves open: results that its kernels, and its versions, do not agree on among themselves.

A lifted network computes one thing. `otherwise` runs it as TensorRT may also compute it; what TensorRT computes is
defined where both agree. Seen on a GPU, and no builder flag changes any of it:

* **NaN** is lost by maxima, minima, top-k, clamps and max pooling: they return the other operand or NaN, as kernels go.
* An **infinite operand of a product** gives infinity or NaN: float32 without TF32 is split into two numbers, of which
  the second is then NaN.
* **Intermediate steps overflow**, or do not: GELU and SOFTPLUS of more than half the dtype's largest number, the sum in
  an average.
* A **product of many numbers** (REDUCE, PROD) overflows or becomes 0 on its way or not, as its factors' order goes.
* A **sum of products** overflows on its way or not: a product that is added as it is made is not rounded to infinity.
* An **element that a scatter writes several times** has any of the values.
* An **integer that becomes halves and float32 at once** is not rounded to halves.
* A **nearest grid sample** half way between two elements, after rounding, is either.
* A **softmax over one element** is 1 whatever the element is.
* A float that becomes **int8 or uint8** outside of that dtype's range: its low bits, or a 16-bit integer's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from trtplug.reference.semantics import (
    attention,
    checks,
    indexing,
    pointwise,
    quantization,
    reductions,
    resampling,
    windows,
)


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
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)

    def run_node(self, n: fx.Node) -> Any:
        self._most = torch.finfo(_dtype_of(n)).max
        result = super().run_node(n)
        whole = _before_halves(n)
        if whole is None or not self._is_whole(whole):
            return result
        return pointwise.cast(self.env[whole], torch.float32)

    def _is_whole(self, node: fx.Node) -> bool:
        """Whether a node's numbers are integers, as float32 perhaps."""
        if not self.env[node].is_floating_point():
            return True
        source = _source(node)
        return source.target is pointwise.cast and self._is_whole(source.args[0])  # type: ignore[arg-type]  # a node

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in _PRODUCTS:
            return self._product(target, args, kwargs)
        if target is torch.softmax and args[0].shape[args[1]] == 1:
            return torch.ones_like(args[0])
        result = super().call_function(target, args, kwargs)
        return _AFTERWARDS[target](result, args, self._most) if target in _AFTERWARDS else result

    def _product(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        lost = tuple(_replaced(value, torch.isinf, math.nan) for value in args)
        result = super().call_function(target, lost, kwargs)
        if bool(result.isfinite().all()):
            return result
        plain = super().call_function(target, args, kwargs)
        wide = super().call_function(target, tuple(_doubled(value) for value in args), kwargs).to(plain.dtype)
        return torch.where(~plain.isfinite() & undefined(wide, plain), wide, result)


def _source(node: fx.Node) -> fx.Node:
    """What made a node, apart from the checks of its shape."""
    while node.target is checks.expect:
        node = node.args[0]  # type: ignore[assignment]  # a node
    return node


def _before_halves(node: fx.Node) -> fx.Node | None:
    """Of a layer that casts to float32 what has just been cast to halves: what that was before."""
    if node.target is not pointwise.cast or node.args[1] is not torch.float32:
        return None
    half = _source(node.args[0])  # type: ignore[arg-type]  # a node
    is_layer = any(user.target is checks.expect for user in node.users)
    if not is_layer or half.target is not pointwise.cast or half.args[1] not in (torch.float16, torch.bfloat16):
        return None
    return half.args[0]  # type: ignore[return-value]  # a node


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


def _doubled(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


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


def _in_another_order(result: Tensor, args: Sequence[Any], most: float) -> Tensor:
    """A product of which some factors alone overflow, or become 0 (in halves: too small to be precise)."""
    x, axes, keep = args
    if not x.is_floating_point():
        return result
    size = x.double().abs()
    over = reductions.reduce_prod(size.clamp(min=1), axes, keep) > most
    under = reductions.reduce_prod(torch.where(size == 0, 1, size).clamp(max=1), axes, keep) < 4 / most
    exact = reductions.reduce_prod(x.double(), axes, keep).to(result.dtype)
    zero = exact == 0
    instead = torch.where(over, torch.where(zero, math.nan, math.inf), 0)
    open_ = (over | (under & ~zero)) & ~exact.isnan()
    return torch.where(open_, torch.where(undefined(instead, result), instead, exact), result)


def _written(write: Callable[..., Tensor]) -> Callable[[Tensor, Sequence[Any], float], Tensor]:
    """Another result where more than one element is written.

    Args:
        write: as the layer writes, but adds.
    """

    def otherwise(result: Tensor, args: Sequence[Any], most: float) -> Tensor:
        often = write(torch.zeros_like(result, dtype=torch.int64), *args[1:])
        return torch.where(often > 1, _another(result), result)

    return otherwise


def _another(result: Tensor) -> Tensor:
    return torch.where(result.isnan(), 0, math.nan).to(result.dtype) if result.is_floating_point() else ~result


def _add_elements(count: Tensor, index: Tensor, updates: Tensor, axis: int) -> Tensor:
    places = torch.where(index < 0, index + count.shape[axis], index).long()
    return count.scatter_add(axis, places, torch.ones_like(updates, dtype=count.dtype))


def _add_slices(count: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    if not updates.numel():
        return count
    ones = torch.ones_like(updates, dtype=count.dtype)
    return count.index_put(tuple(index.long().unbind(-1)), ones, accumulate=True)


_NUDGE = 2.0**-20


def _beside_ties(result: Tensor, args: Sequence[Any], most: float) -> Tensor:
    """What places a little beside the asked ones give."""
    x, grid, mode, *rest = args
    if mode != "nearest":
        return result
    ours = result
    for signs in itertools.product((-1, 1), repeat=grid.shape[-1]):
        nudged = grid + torch.tensor(signs, dtype=grid.dtype, device=grid.device) * _NUDGE * grid.abs().clamp(min=1)
        near = resampling.grid_sample(x, nudged, mode, *rest)
        result = torch.where(undefined(near, ours), near, result)
    return result


_AFTERWARDS: Mapping[Any, Callable[[Any, Sequence[Any], float], Any]] = {
    pointwise.gelu_erf: _overflown,
    pointwise.gelu_tanh: _overflown,
    pointwise.softplus: _overflown,
    pointwise.cast: _narrowed,
    windows.pooling: _average,
    indexing.topk: _places_of_nan,
    indexing.scatter_elements: _written(_add_elements),
    indexing.scatter_nd: _written(_add_slices),
    reductions.reduce_prod: _in_another_order,
    resampling.grid_sample: _beside_ties,
}
