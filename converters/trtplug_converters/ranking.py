"""Where the extremes are: argmax and its kin, and the k largest."""

from __future__ import annotations

from typing import Any

import torch

from trtplug_converters.reduction import extreme
from trtplug_registry import (
    ALL,
    NUMBERS,
    Axis,
    Choose,
    Converter,
    ConverterContext,
    Domain,
    NetworkTensor,
    Only,
    Optional,
    OutputsUsed,
    Relation,
    Static,
    Tensor,
    converter,
    converter_table,
)

aten = torch.ops.aten

TOPK_LIMIT = 3840
FLAG = Only(False, True)


# --- the first place of an extreme ------------------------------------------------------------------------------------


def places_along(ctx: ConverterContext, tensor: NetworkTensor, axis: int) -> NetworkTensor:
    """0, 1, ... along an axis, int64, of a shape that broadcasts to the tensor's."""
    size = ctx.sizes(tensor)[axis]
    if isinstance(size, int):
        places = ctx.constant(torch.arange(size))
    else:
        kinds, zero, steps = ctx.trt.FillOperation, ctx.constant(0, torch.int64), ctx.constant([1], torch.int64)
        inputs = {0: ctx.size_tensor([size]), 1: zero, 2: steps}
        places = ctx.add("fill", (1,), kinds.LINSPACE, ctx.trt.int64, inputs=inputs).get_output(0)
    return ctx.unsqueeze(places, range(1, ctx.rank(tensor) - axis))


def _first_place(ctx: ConverterContext, op: str, tensor: NetworkTensor, dim: int, keepdim: bool) -> NetworkTensor:
    """The first place along an axis where the tensor is its own extreme, or NaN, which Torch ranks above all."""
    if ctx.rank(tensor) == 0:
        return ctx.constant(0, torch.int64)
    axis = dim % ctx.rank(tensor)
    numbers = ctx.cast(tensor, torch.int32) if ctx.dtype(tensor) == torch.bool else tensor
    hit = ctx.elementwise("EQUAL", numbers, ctx.reduce(op, numbers, [axis], True))
    if ctx.dtype(tensor).is_floating_point:
        hit = ctx.elementwise("OR", hit, ctx.unary("ISNAN", numbers))
    places = ctx.select(hit, places_along(ctx, tensor, axis), torch.iinfo(torch.int64).max)
    return ctx.reduce("MIN", places, [axis], keepdim)


def _not_empty(call: dict[str, Any], choose: Choose) -> None:
    call["self"] = call["self"]._replace(shape=tuple(max(1, size) for size in call["self"].shape))


NOT_EMPTY = Relation("an element to choose", ("self",), arrange=_not_empty)


@converter_table(
    {aten.argmax.default: "MAX", aten.argmin.default: "MIN"},
    Domain(NOT_EMPTY, self=Tensor(NUMBERS), dim=Optional(Axis("self")), keepdim=FLAG),
    keeps_nan=False,
)
def arg_extreme(
    op: str, ctx: ConverterContext, self: NetworkTensor, dim: int | None = None, keepdim: bool = False
) -> NetworkTensor:
    """``argmax(Tensor self, int? dim=None, bool keepdim=False) -> Tensor``: the smallest of the places that hold it."""
    if dim is not None:
        return _first_place(ctx, op, self, dim, keepdim)
    place = _first_place(ctx, op, ctx.reshape(self, [-1]), 0, False)
    return ctx.unsqueeze(place, range(ctx.rank(self) if keepdim else 0))


@converter_table(
    {aten.max.dim: "MAX", aten.min.dim: "MIN"},
    Domain(NOT_EMPTY, self=Tensor(ALL), dim=Axis("self"), keepdim=FLAG),
    keeps_nan=False,
)
def extreme_and_place(
    op: str, ctx: ConverterContext, self: NetworkTensor, dim: int, keepdim: bool = False
) -> tuple[NetworkTensor, ...]:
    """``max.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)``."""
    return extreme(ctx, op, self, dim, keepdim), _first_place(ctx, op, self, dim, keepdim)


# --- top k ------------------------------------------------------------------------------------------------------------


def _fit_k(call: dict[str, Any], choose: Choose) -> None:
    facts = call["self"]
    if facts.rank and not call["sorted"]:  # an axis on which eager's order shows
        shape = list(facts.shape)
        shape[call["dim"]] = 9
        facts = call["self"] = facts._replace(shape=tuple(shape))
    low = 6 if facts.rank and not call["sorted"] else 0
    call["k"] = choose.integer(low, facts.shape[call["dim"]]) if facts.rank else 1


@converter(
    aten.topk.default,
    Domain(
        OutputsUsed((0,), because="which of equal elements comes first differs"),
        Relation("k no larger than the axis", ("k", "self", "dim", "sorted"), arrange=_fit_k),
        self=Tensor(NUMBERS),
        k=Static(0, TOPK_LIMIT, because="TensorRT takes at most 3840"),
        dim=Axis("self"),
        largest=FLAG,
        sorted=Only(True, because="TensorRT's are always sorted, the order of Torch's is then its own"),
    ),
    keeps_nan=False,
)
def topk(
    ctx: ConverterContext, self: NetworkTensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[NetworkTensor | None, ...]:
    """``topk(Tensor self, SymInt k, int dim=-1, bool largest=True, ...) -> (Tensor values, Tensor indices)``."""
    rank, added = ctx.rank(self), range(2 - ctx.rank(self))  # the layer takes two axes or more
    axis = dim % rank + len(added) if rank else 1
    op = ctx.trt.TopKOperation.MAX if largest else ctx.trt.TopKOperation.MIN
    layer = ctx.add("topk", ctx.unsqueeze(self, added), op, k, 1 << axis)
    return ctx.squeeze(layer.get_output(0), added), None


CONVERTERS: tuple[Converter, ...] = (*arg_extreme, *extreme_and_place, topk)
