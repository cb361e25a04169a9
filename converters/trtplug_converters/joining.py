"""Putting tensors together, taking them apart, and turning them round. Every dtype goes through."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch

from trtplug_converters.shape import RANK_LIMIT
from trtplug_registry import (
    MAX_RANK,
    Axis,
    Choose,
    Converter,
    ConverterContext,
    Domain,
    ListOf,
    NetworkSize,
    NetworkTensor,
    Relation,
    Size,
    Tensor,
    converter,
    converter_table,
    distinct_axes,
    same_dtype,
)

aten = torch.ops.aten


# --- together ---------------------------------------------------------------------------------------------------------


def alike_but(axis: str, of: str) -> Relation:
    """The tensors' shapes agree except along an axis, or are (0,), which concatenation skips (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        first = call[of][0]
        if not first.rank:
            first = first._replace(shape=(choose.integer(0, 3),))
        call[axis] = place = call[axis] % first.rank - first.rank * choose.boolean()
        joined = [first]
        for other in call[of][1:]:
            shape = list(first.shape)
            shape[place] = choose.integer(0, 3)
            skipped = choose.integer(0, 7) == 0
            joined.append(other._replace(shape=(0,) if skipped else tuple(shape)))
        call[of] = joined

    return Relation(f"{of} alike but for {axis}", (of, axis), None, arrange)


@converter_table(
    {aten.cat.default: None, aten.concat.default: None, aten.concatenate.default: None},
    Domain(
        alike_but("dim", "tensors"), same_dtype("tensors"), tensors=ListOf(Tensor(), shortest=1), dim=Axis("tensors")
    ),
)
def cat(_row: None, ctx: ConverterContext, tensors: list[NetworkTensor], dim: int = 0) -> NetworkTensor:
    """``cat(Tensor[] tensors, int dim=0) -> Tensor``: a concatenation layer."""
    largest = max(map(ctx.rank, tensors))
    return ctx.concat([tensor for tensor in tensors if ctx.rank(tensor) == largest], dim)


def all_alike(of: str, place: str) -> Relation:
    """The tensors have one shape, and a new dimension fits in at this place (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        shape = call[of][0].shape
        call[of] = [facts._replace(shape=shape) for facts in call[of]]
        places = len(shape) + 1
        call[place] = call[place] % places - places * choose.boolean()

    return Relation(f"{of} of one shape", (of, place), None, arrange)


@converter(
    aten.stack.default,
    Domain(
        all_alike("tensors", "dim"),
        same_dtype("tensors"),
        tensors=ListOf(Tensor(rank=(0, MAX_RANK - 1), because=RANK_LIMIT), shortest=1),
        dim=Axis("tensors", insert=True),
    ),
)
def stack(ctx: ConverterContext, tensors: list[NetworkTensor], dim: int = 0) -> NetworkTensor:
    """``stack(Tensor[] tensors, int dim=0) -> Tensor``: an unsqueeze layer for each, and a concatenation."""
    return ctx.concat([ctx.unsqueeze(tensor, [dim]) for tensor in tensors], dim)


# --- apart ------------------------------------------------------------------------------------------------------------


def pieces(
    ctx: ConverterContext, tensor: NetworkTensor, axis: int, sizes: list[NetworkSize]
) -> tuple[NetworkTensor, ...]:
    """Consecutive pieces along an axis: a slice layer each."""
    starts = itertools.accumulate(sizes[:-1], functools.partial(ctx.size_math, "SUM"), initial=0)
    return tuple(ctx.slice(tensor, [start], [size], [1], axes=[axis]) for start, size in zip(starts, sizes))


def equal_pieces(
    ctx: ConverterContext, tensor: NetworkTensor, axis: int, size: NetworkSize
) -> tuple[NetworkTensor, ...]:
    """As many pieces of one size as tracing has found; the last is what remains."""
    before = [size] * (len(ctx.outputs) - 1)
    taken = ctx.size_math("PROD", size, len(before))
    return pieces(ctx, tensor, axis, [*before, ctx.size_math("SUB", ctx.sizes(tensor)[axis], taken)])


def divisible(of: str) -> Relation:
    """A tensor that has a dimension to divide (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        if not call[of].rank:
            call[of] = call[of]._replace(shape=(choose.integer(0, 5),))

    return Relation(f"{of} with a dimension", (of,), None, arrange)


def positive(*names: str) -> Relation:
    """Numbers of 1 and more (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        for name in names:
            call[name] = abs(call[name]) or 1

    return Relation(f"{', '.join(names)} positive", names, None, arrange)


def adds_up(sizes: str, axis: str) -> Relation:
    """The sizes add up to the size along the axis (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        left = call["self"].shape[call[axis]]
        parts = []
        for _ in call[sizes][1:]:
            parts.append(choose.integer(0, left))
            left -= parts[-1]
        call[sizes] = [*parts, left]

    return Relation(f"{sizes} that add up", (sizes, "self", axis), None, arrange)


@converter_table(
    {aten.split.Tensor: None, aten.unsafe_split.Tensor: None},
    Domain(divisible("self"), positive("split_size"), self=Tensor(), split_size=Size(), dim=Axis("self")),
)
def split(
    _row: None, ctx: ConverterContext, self: NetworkTensor, split_size: NetworkSize, dim: int = 0
) -> tuple[NetworkTensor, ...]:
    """``split.Tensor(Tensor(a -> *) self, SymInt split_size, int dim=0) -> Tensor(a)[]``: a slice layer each."""
    return equal_pieces(ctx, self, dim, split_size)


@converter(
    aten.split.sizes,
    Domain(divisible("self"), adds_up("split_size", "dim"), self=Tensor(), split_size=ListOf(Size()), dim=Axis("self")),
)
def split_sizes(
    ctx: ConverterContext, self: NetworkTensor, split_size: list[NetworkSize], dim: int = 0
) -> tuple[NetworkTensor, ...]:
    """``split.sizes(Tensor(a -> *) self, SymInt[] split_size, int dim=0) -> Tensor(a)[]``: a slice layer each."""
    return pieces(ctx, self, dim, split_size)


@converter(
    aten.split_with_sizes.default,
    Domain(
        divisible("self"), adds_up("split_sizes", "dim"), self=Tensor(), split_sizes=ListOf(Size()), dim=Axis("self")
    ),
)
def split_with_sizes(
    ctx: ConverterContext, self: NetworkTensor, split_sizes: list[NetworkSize], dim: int = 0
) -> tuple[NetworkTensor, ...]:
    """``split_with_sizes(Tensor(a -> *) self, SymInt[] split_sizes, int dim=0) -> Tensor(a)[]``: a slice layer each."""
    return pieces(ctx, self, dim, split_sizes)


@converter_table(
    {aten.chunk.default: None, aten.unsafe_chunk.default: None},
    Domain(divisible("self"), positive("chunks"), self=Tensor(), chunks=Size(), dim=Axis("self")),
)
def chunk(
    _row: None, ctx: ConverterContext, self: NetworkTensor, chunks: NetworkSize, dim: int = 0
) -> tuple[NetworkTensor, ...]:
    """``chunk(Tensor(a -> *) self, int chunks, int dim=0) -> Tensor(a)[]``: a slice layer each."""
    rounded_up = ctx.size_math("SUM", ctx.sizes(self)[dim], ctx.size_math("SUB", chunks, 1))
    return equal_pieces(ctx, self, dim, ctx.size_math("FLOOR_DIV", rounded_up, chunks))


def not_empty_along(axis: str, of: str) -> Relation:
    """The axis has elements: without any, there is nothing to compute."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        shape = list(call[of].shape)
        shape[call[axis]] = shape[call[axis]] or 1
        call[of] = call[of]._replace(shape=tuple(shape))

    return Relation(f"{of} with elements along {axis}", (of, axis), None, arrange)


@converter(aten.unbind.int, Domain(divisible("self"), not_empty_along("dim", "self"), self=Tensor(), dim=Axis("self")))
def unbind(ctx: ConverterContext, self: NetworkTensor, dim: int = 0) -> tuple[NetworkTensor, ...]:
    """``unbind.int(Tensor(a -> *) self, int dim=0) -> Tensor(a)[]``: a gather layer each."""
    return tuple(ctx.gather(self, ctx.constant(place, torch.int64), dim) for place in range(len(ctx.outputs)))


# --- round ------------------------------------------------------------------------------------------------------------


@converter(aten.flip.default, Domain(distinct_axes("dims", "self"), self=Tensor(), dims=ListOf(Axis("self"))))
def flip(ctx: ConverterContext, self: NetworkTensor, dims: list[int]) -> NetworkTensor:
    """``flip(Tensor self, int[] dims) -> Tensor``: a slice of stride -1."""
    sizes = ctx.sizes(self)
    if not dims or not sizes:
        return self
    last = [ctx.size_math("MAX", ctx.size_math("SUB", sizes[axis], 1), 0) for axis in dims]
    return ctx.slice(self, last, [sizes[axis] for axis in dims], [-1] * len(dims), axes=dims)


def one_shift_for_each(shifts: str, dims: str, of: str) -> Relation:
    """As many shifts as axes, or one shift of the flattened tensor (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        if not call[of].rank:
            call[dims] = []
        count = len(call[dims]) or 1
        call[shifts] = [call[shifts][place] if place < len(call[shifts]) else place + 1 for place in range(count)]

    return Relation(f"{shifts} for each of {dims}", (shifts, dims, of), None, arrange)


@converter(
    aten.roll.default,
    Domain(
        one_shift_for_each("shifts", "dims", "self"), self=Tensor(), shifts=ListOf(Size()), dims=ListOf(Axis("self"))
    ),
)
def roll(
    ctx: ConverterContext,
    self: NetworkTensor,
    shifts: list[NetworkSize],
    dims: list[int] = [],  # noqa: B006
) -> NetworkTensor:
    """``roll(Tensor self, SymInt[1] shifts, int[1] dims=[]) -> Tensor``: a slice in mode WRAP for each axis."""
    sizes = ctx.sizes(self)
    if not dims:
        return ctx.reshape(rolled(ctx, ctx.reshape(self, [-1]), shifts[0], 0), sizes)
    for shift, axis in zip(shifts, dims, strict=True):
        self = rolled(ctx, self, shift, axis)
    return self


def rolled(ctx: ConverterContext, tensor: NetworkTensor, shift: NetworkSize, axis: int) -> NetworkTensor:
    """``tensor`` with the last `shift` elements along an axis first.

    Around nothing TensorRT does not wrap: it divides by the size 0 and ends the process. Where the axis may turn out
    empty, two of it stand side by side instead.
    """
    size = ctx.sizes(tensor)[axis]
    if isinstance(size, int):
        if size == 0:
            return tensor
        shift = shift % size if isinstance(shift, int) else shift
    start, some = ctx.size_math("SUB", 0, shift), ctx.size_math("MAX", size, 1)
    if some is size or isinstance(size, int):
        return ctx.slice(tensor, [start], [size], [1], axes=[axis], mode=ctx.trt.SampleMode.WRAP)
    start = ctx.size_math("SUB", start, ctx.size_math("PROD", ctx.size_math("FLOOR_DIV", start, some), some))
    return ctx.slice(ctx.concat([tensor, tensor], axis), [start], [size], [1], axes=[axis])


CONVERTERS: tuple[Converter, ...] = (
    *cat,
    stack,
    *split,
    split_sizes,
    split_with_sizes,
    *chunk,
    unbind,
    flip,
    roll,
)
