"""What is not zero, and what a mask selects: shapes that depend on values, which TensorRT-RTX cannot build."""

from __future__ import annotations

import functools
from typing import Any

import torch

from trtplug_registry import (
    BOOL,
    DATA_DEPENDENT_SHAPES,
    MAX_RANK,
    Call,
    Choose,
    Converter,
    ConverterContext,
    Domain,
    ListOf,
    NetworkTensor,
    Optional,
    Relation,
    Tensor,
    broadcastable,
    converter,
    tensors_in,
)

aten = torch.ops.aten
NEEDS = (DATA_DEPENDENT_SHAPES,)


def true_places(ctx: ConverterContext, mask: NetworkTensor) -> NetworkTensor:
    """Where a mask is true: a NON_ZERO layer, int32 [rank, count] in row-major order."""
    return ctx.add("non_zero", mask).get_output(0)


@converter(aten.nonzero.default, Domain(self=Tensor()), needs=NEEDS)
def nonzero(ctx: ConverterContext, self: NetworkTensor) -> NetworkTensor:
    """``nonzero(Tensor self) -> Tensor``: a NON_ZERO layer of what differs from 0, transposed."""
    truth, rank = ctx.cast(self, torch.bool), ctx.rank(self)
    places = ctx.permute(true_places(ctx, truth if rank else ctx.unsqueeze(truth, [0])), [1, 0])
    places = places if rank else ctx.slice(places, [0, 0], [ctx.sizes(places)[0], 0], [1, 1])
    return ctx.cast(places, torch.int64)


@converter(
    aten.masked_select.default,
    Domain(broadcastable("self", "mask"), self=Tensor(), mask=Tensor(BOOL, because="eager takes masks of bools only")),
    needs=NEEDS,
)
def masked_select(ctx: ConverterContext, self: NetworkTensor, mask: NetworkTensor) -> NetworkTensor:
    """``masked_select(Tensor self, Tensor mask) -> Tensor``: NON_ZERO of the mask, and a gather layer.

    A select layer between equal tensors broadcasts each to the other's shape.
    """
    data, chosen = ctx.select(mask, self, self), ctx.select(ctx.cast(self, torch.bool), mask, mask)
    places = ctx.reshape(true_places(ctx, ctx.reshape(chosen, [-1])), [-1])
    return ctx.gather(ctx.reshape(data, [-1]), places, 0)


def mask_of(indices: str, data: str) -> Relation:
    """One mask among the indices, as long as the axes of the data that it is for (eager demands the latter)."""

    def holds(call: Call) -> bool:
        return len(tensors_in(call[indices])) == 1

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        rank = call[data].rank
        place = choose.integer(0, rank - 1)
        count = choose.integer(1, rank - place)
        given = tensors_in(call[indices])
        mask = given[0] if given else call[data]
        shape = call[data].shape[place : place + count]
        call[indices] = [None] * place + [mask._replace(shape=shape, dtype=torch.bool, constant=False, values=None)]

    because = "several masks are places in pairs, which nobody has written with layers"
    return Relation("one mask", (indices, data), holds, arrange, because)


@converter(
    aten.index.Tensor,
    Domain(
        mask_of("indices", "self"),
        self=Tensor(rank=(1, MAX_RANK), because="a mask is for at least one axis"),
        indices=ListOf(Optional(Tensor(BOOL, rank=(1, MAX_RANK), because="places have a converter of their own"))),
    ),
    priority=-1,
    needs=NEEDS,
)
def index_by_mask(ctx: ConverterContext, self: NetworkTensor, indices: list[NetworkTensor | None]) -> NetworkTensor:
    """``index.Tensor(Tensor self, Tensor?[] indices) -> Tensor``: the mask's axes merged, and a gather layer."""
    ((axis, mask),) = [(axis, mask) for axis, mask in enumerate(indices) if mask is not None]
    sizes, rank = ctx.sizes(self), ctx.rank(mask)
    merged = functools.reduce(functools.partial(ctx.size_math, "PROD"), sizes[axis : axis + rank])
    places = ctx.reshape(true_places(ctx, ctx.reshape(mask, [-1])), [-1])
    return ctx.gather(ctx.reshape(self, [*sizes[:axis], merged, *sizes[axis + rank :]]), places, axis)


CONVERTERS: tuple[Converter, ...] = (nonzero, masked_select, index_by_mask)
