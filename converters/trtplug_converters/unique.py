"""What there is once: a shape that depends on values, for a TensorRT that has the layer NON_ZERO.

Each row compares itself with every other one to find its place in order, as sorting does: n² comparisons of n rows.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch

from trtplug_converters.ranking import FLAG, places_along
from trtplug_converters.selecting import NEEDS, true_places
from trtplug_converters.shape import product
from trtplug_registry import (
    MAX_RANK,
    Axis,
    Call,
    Choose,
    Converter,
    ConverterContext,
    Domain,
    NetworkTensor,
    Optional,
    Relation,
    Tensor,
    converter,
)

aten = torch.ops.aten

Results = tuple[NetworkTensor, NetworkTensor, NetworkTensor]


# --- order ------------------------------------------------------------------------------------------------------------


def _comes_before(ctx: ConverterContext, rows: NetworkTensor) -> NetworkTensor:
    """Whether row j comes before row i, [i, j], of rows [n, m]: by their first difference, nan last, else by place."""
    numbers = ctx.cast(rows, torch.int32) if ctx.dtype(rows) == torch.bool else rows
    mine, others = ctx.unsqueeze(numbers, [1]), ctx.unsqueeze(numbers, [0])
    less = ctx.elementwise("LESS", others, mine)
    if ctx.dtype(rows).is_floating_point:
        a_number = ctx.unary("NOT", ctx.unary("ISNAN", others))
        less = ctx.elementwise("OR", less, ctx.elementwise("AND", ctx.unary("ISNAN", mine), a_number))
    column = ctx.select(less, places_along(ctx, less, 2), torch.iinfo(torch.int64).max)
    first_less = ctx.reduce("MIN", column, [2], False)
    first_more = ctx.permute(first_less, [1, 0])
    place = places_along(ctx, rows, 0)
    earlier = ctx.elementwise("LESS", ctx.permute(place, [1, 0]), place)
    tie = ctx.elementwise("AND", ctx.elementwise("EQUAL", first_less, first_more), earlier)
    return ctx.elementwise("OR", ctx.elementwise("LESS", first_less, first_more), tie)


def _in_order(ctx: ConverterContext, rows: NetworkTensor) -> tuple[NetworkTensor, NetworkTensor]:
    """Rows [n, m] in order, and where each of them went, int64 [n]."""
    rank = ctx.reduce("SUM", ctx.cast(_comes_before(ctx, rows), torch.int64), [1], False)
    mode, place = ctx.trt.ScatterMode.ELEMENT, places_along(ctx, rank, 0)
    order = ctx.add("scatter", place, rank, place, mode, axis=0).get_output(0)
    return ctx.gather(rows, order, 0), rank


# --- runs of equals ---------------------------------------------------------------------------------------------------


def _runs(ctx: ConverterContext, rows: NetworkTensor) -> Results:
    """The first row of each run of equals, the run that each row is in, int64 [n], and the runs' lengths, int64 [u]."""
    place = places_along(ctx, rows, 0)  # [n, 1]
    before = ctx.reshape(ctx.elementwise("MAX", ctx.elementwise("SUB", place, 1), 0), [-1])
    same = ctx.cast(ctx.elementwise("EQUAL", rows, ctx.gather(rows, before, 0)), torch.int32)
    repeats = ctx.elementwise("GREATER", ctx.reduce("MIN", same, [1], True), 0)
    again = ctx.elementwise("AND", repeats, ctx.elementwise("GREATER", place, 0))
    first = ctx.reshape(ctx.unary("NOT", again), [-1])
    starts = ctx.cast(ctx.reshape(true_places(ctx, first), [-1]), torch.int64)
    axis, op = ctx.constant(0, torch.int32), ctx.trt.CumulativeOperation.SUM
    so_far = ctx.add("cumulative", ctx.cast(first, torch.int64), axis, op, False, False).get_output(0)
    ends = ctx.concat([starts, ctx.size_tensor([ctx.sizes(rows)[0]])], 0)
    following = ctx.elementwise("SUM", places_along(ctx, starts, 0), 1)
    lengths = ctx.elementwise("SUB", ctx.gather(ends, following, 0), starts)
    return ctx.gather(rows, starts, 0), ctx.elementwise("SUB", so_far, 1), lengths


def _once(ctx: ConverterContext, self: NetworkTensor, dim: int | None, ordered: bool) -> Results:
    """The results of every such op; one that was not asked for is empty by the node's metadata."""
    sizes, rank = ctx.sizes(self), ctx.rank(self)
    axis = 0 if dim is None else dim % rank
    others = [] if dim is None else [other for other in range(rank) if other != axis]
    whole = ctx.permute(self, [axis, *others]) if others else self
    rest = [sizes[other] for other in others]
    rows = ctx.reshape(whole, [product(ctx, sizes) if dim is None else sizes[axis], product(ctx, tuple(rest))])
    rows, rank_of = _in_order(ctx, rows) if ordered else (rows, None)
    values, run, lengths = _runs(ctx, rows)
    values = ctx.reshape(values, [ctx.sizes(values)[0], *rest])
    values = ctx.permute(values, [*range(1, axis + 1), 0, *range(axis + 1, rank)]) if others else values
    run = run if rank_of is None else ctx.gather(run, rank_of, 0)
    run = ctx.reshape(run, sizes) if dim is None else run
    asked = (run, lengths)
    empty = ctx.constant(torch.empty(0, dtype=torch.int64))
    run, lengths = (one if facts.shape != (0,) else empty for one, facts in zip(asked, ctx.outputs[1:], strict=True))
    return values, run, lengths


# --- ops --------------------------------------------------------------------------------------------------------------


def _named_from_start(call: Call) -> bool:
    return bool(call["dim"] != -1)


def _from_start(call: dict[str, Any], choose: Choose) -> None:
    if call["dim"] == -1:
        call["dim"] = max(0, call["self"].rank - 1)


def _foretold(call: Call) -> bool:
    return call["dim"] is None or call["self"].rank != 1 or (call["return_inverse"] and call["return_counts"])


def _without_axis(call: dict[str, Any], choose: Choose) -> None:
    call["dim"] = call["dim"] if _foretold(call) else None


_LAST = Relation(
    "an axis that is not -1", ("dim",), _named_from_start, _from_start, "Torch's metadata of that has axes too many"
)
_ASKED = Relation(
    "every result asked for, where there is just one axis",
    ("dim", "self", "return_inverse", "return_counts"),
    _foretold,
    _without_axis,
    "Torch's metadata has results that eager leaves empty",
)
_NOT_NAN = {"rank": "eager finds no axis in a number", "values": "which nan comes first, eager leaves open"}
_ORDERED = Tensor(values=(-math.inf, math.inf), because=_NOT_NAN)


@converter(
    aten._unique2.default, Domain(self=_ORDERED, sorted=FLAG, return_inverse=FLAG, return_counts=FLAG), needs=NEEDS
)
def unique(
    ctx: ConverterContext,
    self: NetworkTensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
) -> Results:
    """``_unique2(Tensor self, bool sorted=True, bool return_inverse=False, bool return_counts=False) -> ...``

    Always in order, as eager's on a CPU.
    """
    return _once(ctx, self, None, True)


@converter(
    aten.unique_dim.default,
    Domain(
        _LAST,
        self=dataclasses.replace(_ORDERED, rank=(1, MAX_RANK)),
        dim=Axis("self"),
        sorted=FLAG,
        return_inverse=FLAG,
        return_counts=FLAG,
    ),
    needs=NEEDS,
)
def unique_along(
    ctx: ConverterContext,
    self: NetworkTensor,
    dim: int,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
) -> Results:
    """``unique_dim(Tensor self, int dim, bool sorted=True, bool return_inverse=False, bool return_counts=False) ->
    ...``: slices, by their first difference.
    """
    return _once(ctx, self, dim, True)


@converter(
    aten.unique_consecutive.default,
    Domain(_LAST, _ASKED, self=Tensor(), return_inverse=FLAG, return_counts=FLAG, dim=Optional(Axis("self"))),
    needs=NEEDS,
)
def unique_consecutive(
    ctx: ConverterContext,
    self: NetworkTensor,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Results:
    """``unique_consecutive(Tensor self, bool return_inverse=False, bool return_counts=False, int? dim=None) -> ...``"""
    return _once(ctx, self, dim, False)


CONVERTERS: tuple[Converter, ...] = (unique, unique_along, unique_consecutive)
