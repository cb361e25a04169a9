"""Views: the same elements in another shape, order or number of axes. Every dtype goes through."""

from __future__ import annotations

import functools
from typing import Any

import torch

from trtplug_registry import (
    MAX_RANK,
    Anything,
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
)

aten = torch.ops.aten

RANK_LIMIT = "TensorRT tensors have at most 8 dimensions"


# --- reshaping --------------------------------------------------------------------------------------------------------


def factorization(total: int, count: int, choose: Choose) -> list[int]:
    """`count` sizes whose product is `total`, one of them perhaps spelt -1; [] only where no size is needed."""
    if count == 0 and total != 1:
        count = 1
    sizes: list[int] = []
    rest = total
    for place in range(count):
        divisors = [d for d in range(1, rest + 1) if rest % d == 0] if rest else [0, 1, 2, 3]
        sizes.append(rest if place == count - 1 else choose.one_of(divisors))
        rest = rest // sizes[-1] if sizes[-1] else 0
    if total == 0 and sizes and choose.boolean():
        sizes.reverse()
    if sizes and choose.boolean():
        place = choose.integer(0, len(sizes) - 1)
        if 0 not in sizes[:place] + sizes[place + 1 :]:
            sizes[place] = -1
    return sizes


def multiplies_to(sizes: str, of: str = "self", axis: str | None = None) -> Relation:
    """The sizes' product is the tensor's number of elements, or its size along an axis (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        whole = call[of].shape or (1,)
        total = call[of].numel if axis is None else whole[call[axis]]
        call[sizes] = factorization(total, len(call[sizes]), choose)

    return Relation(f"{sizes} that multiply to those of {of}", (sizes, of), None, arrange)


def sizes_of_tensor() -> ListOf:
    return ListOf(Size(), longest=MAX_RANK, because={"length": RANK_LIMIT})


VIEW = Domain(multiplies_to("size"), self=Tensor(), size=sizes_of_tensor())


@converter_table({aten.view.default: None, aten._unsafe_view.default: None}, VIEW)
def view(_row: None, ctx: ConverterContext, self: NetworkTensor, size: list[NetworkSize]) -> NetworkTensor:
    """``view(Tensor(a) self, SymInt[] size) -> Tensor(a)``: a shuffle layer."""
    return ctx.reshape(self, size)


@converter(aten.reshape.default, Domain(multiplies_to("shape"), self=Tensor(), shape=sizes_of_tensor()))
def reshape(ctx: ConverterContext, self: NetworkTensor, shape: list[NetworkSize]) -> NetworkTensor:
    """``reshape(Tensor(a) self, SymInt[] shape) -> Tensor(a)``: a shuffle layer."""
    return ctx.reshape(self, shape)


def ordered_axes(first: str, last: str, of: str) -> Relation:
    """One axis is not after the other (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        rank = max(1, call[of].rank)
        if call[first] % rank > call[last] % rank:
            call[first], call[last] = call[last], call[first]

    return Relation(f"{first} before {last}", (first, last, of), None, arrange)


@converter(
    aten.flatten.using_ints,
    Domain(ordered_axes("start_dim", "end_dim", "self"), self=Tensor(), start_dim=Axis("self"), end_dim=Axis("self")),
)
def flatten(ctx: ConverterContext, self: NetworkTensor, start_dim: int = 0, end_dim: int = -1) -> NetworkTensor:
    """``flatten.using_ints(Tensor(a) self, int start_dim=0, int end_dim=-1) -> Tensor(a)``: a shuffle layer."""
    sizes = ctx.sizes(self) or (1,)
    start, end = start_dim % len(sizes), end_dim % len(sizes)
    if start == end and ctx.rank(self):
        return self
    return ctx.reshape(self, [*sizes[:start], product(ctx, sizes[start : end + 1]), *sizes[end + 1 :]])


def product(ctx: ConverterContext, sizes: tuple[NetworkSize, ...]) -> NetworkSize:
    return functools.reduce(functools.partial(ctx.size_math, "PROD"), sizes, 1)


@converter(
    aten.unflatten.int,
    Domain(
        multiplies_to("sizes", axis="dim"),
        Relation(
            "a result of at most 8 dimensions",
            ("sizes", "self"),
            lambda call: call["self"].rank - 1 + len(call["sizes"]) <= MAX_RANK,
            because=RANK_LIMIT,
        ),
        self=Tensor(rank=(1, MAX_RANK), because="eager unflattens no number"),
        dim=Axis("self"),
        sizes=ListOf(Size(), shortest=1, because={"length": "eager unflattens into one size or more"}),
    ),
)
def unflatten(ctx: ConverterContext, self: NetworkTensor, dim: int, sizes: list[NetworkSize]) -> NetworkTensor:
    """``unflatten.int(Tensor(a) self, int dim, SymInt[] sizes) -> Tensor(a)``: a shuffle layer."""
    own = ctx.sizes(self)
    dim %= len(own)
    if -1 in sizes:
        known = product(ctx, tuple(size for size in sizes if not (isinstance(size, int) and size == -1)))
        missing = ctx.size_math("FLOOR_DIV", own[dim], known)
        sizes = [missing if isinstance(size, int) and size == -1 else size for size in sizes]
    return ctx.reshape(self, [*own[:dim], *sizes, *own[dim + 1 :]])


# --- reordering axes --------------------------------------------------------------------------------------------------


def permutation(dims: str, of: str) -> Relation:
    """The dims are all of the tensor's, each once (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        left = list(range(call[of].rank))
        order = [left.pop(choose.integer(0, len(left) - 1)) for _ in range(len(left))]
        call[dims] = [axis - len(order) if choose.boolean() else axis for axis in order]

    return Relation(f"{dims} a permutation", (dims, of), None, arrange)


@converter(aten.permute.default, Domain(permutation("dims", "self"), self=Tensor(), dims=ListOf(Axis("self"))))
def permute(ctx: ConverterContext, self: NetworkTensor, dims: list[int]) -> NetworkTensor:
    """``permute(Tensor(a) self, int[] dims) -> Tensor(a)``: a shuffle layer; none where nothing moves."""
    return ctx.permute(self, dims)


def swapped(ctx: ConverterContext, tensor: NetworkTensor, one: int, other: int) -> NetworkTensor:
    order = list(range(ctx.rank(tensor)))
    if order:
        order[one], order[other] = order[other], order[one]
    return ctx.permute(tensor, order)


@converter(aten.transpose.int, Domain(self=Tensor(), dim0=Axis("self"), dim1=Axis("self")))
def transpose(ctx: ConverterContext, self: NetworkTensor, dim0: int, dim1: int) -> NetworkTensor:
    """``transpose.int(Tensor(a) self, int dim0, int dim1) -> Tensor(a)``: a shuffle layer."""
    return swapped(ctx, self, dim0, dim1)


@converter(aten.t.default, Domain(self=Tensor(rank=(0, 2), because="eager transposes matrices only")))
def t(ctx: ConverterContext, self: NetworkTensor) -> NetworkTensor:
    """``t(Tensor(a) self) -> Tensor(a)``: a shuffle layer; a vector or a number stays as it is."""
    return ctx.permute(self, range(ctx.rank(self))[::-1])


def moved(ctx: ConverterContext, tensor: NetworkTensor, source: list[int], destination: list[int]) -> NetworkTensor:
    rank = ctx.rank(tensor)
    if not rank:
        return tensor
    places = {to % rank: axis % rank for axis, to in zip(source, destination, strict=True)}
    others = iter([axis for axis in range(rank) if axis not in places.values()])
    return ctx.permute(tensor, [places[axis] if axis in places else next(others) for axis in range(rank)])


def as_long_as(axes: str, other: str, of: str) -> Relation:
    """Two lists of distinct axes of one length (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        rank = max(1, call[of].rank)
        both = list(range(rank))
        count = min(len(call[axes]), rank)
        for name in (axes, other):
            left = list(both)
            call[name] = [left.pop(choose.integer(0, len(left) - 1)) - rank * choose.boolean() for _ in range(count)]

    return Relation(f"{axes} and {other} distinct and equally many", (axes, other, of), None, arrange)


@converter_table(
    {aten.movedim.intlist: None, aten.moveaxis.intlist: None},
    Domain(
        as_long_as("source", "destination", "self"),
        self=Tensor(),
        source=ListOf(Axis("self")),
        destination=ListOf(Axis("self")),
    ),
)
def movedims(
    _row: None, ctx: ConverterContext, self: NetworkTensor, source: list[int], destination: list[int]
) -> NetworkTensor:
    """``movedim.intlist(Tensor(a) self, int[] source, int[] destination) -> Tensor(a)``: a shuffle layer."""
    return moved(ctx, self, source, destination)


@converter_table(
    {aten.movedim.int: None, aten.moveaxis.int: None},
    Domain(self=Tensor(), source=Axis("self"), destination=Axis("self")),
)
def movedim(_row: None, ctx: ConverterContext, self: NetworkTensor, source: int, destination: int) -> NetworkTensor:
    """``movedim.int(Tensor(a) self, int source, int destination) -> Tensor(a)``: a shuffle layer."""
    return moved(ctx, self, [source], [destination])


# --- axes of size 1 ---------------------------------------------------------------------------------------------------


def without(ctx: ConverterContext, tensor: NetworkTensor, axes: list[int]) -> NetworkTensor:
    """The tensor without those of these axes that have size 1 in every call."""
    sizes = ctx.sizes(tensor)
    places = axes if sizes else []
    return ctx.squeeze(tensor, [axis for axis in places if isinstance(sizes[axis], int) and sizes[axis] == 1])


@converter(aten.squeeze.default, Domain(self=Tensor()))
def squeeze(ctx: ConverterContext, self: NetworkTensor) -> NetworkTensor:
    """``squeeze(Tensor(a) self) -> Tensor(a)``: a squeeze layer. A symbolic size is not 1: tracing has decided that."""
    return without(ctx, self, list(range(ctx.rank(self))))


@converter(aten.squeeze.dim, Domain(self=Tensor(), dim=Axis("self")))
def squeeze_dim(ctx: ConverterContext, self: NetworkTensor, dim: int) -> NetworkTensor:
    """``squeeze.dim(Tensor(a) self, int dim) -> Tensor(a)``: a squeeze layer."""
    return without(ctx, self, [dim])


@converter(aten.squeeze.dims, Domain(distinct_axes("dim", "self"), self=Tensor(), dim=ListOf(Axis("self"))))
def squeeze_dims(ctx: ConverterContext, self: NetworkTensor, dim: list[int]) -> NetworkTensor:
    """``squeeze.dims(Tensor(a) self, int[] dim) -> Tensor(a)``: a squeeze layer."""
    return without(ctx, self, dim)


@converter(
    aten.unsqueeze.default,
    Domain(self=Tensor(rank=(0, MAX_RANK - 1), because=RANK_LIMIT), dim=Axis("self", insert=True)),
)
def unsqueeze(ctx: ConverterContext, self: NetworkTensor, dim: int) -> NetworkTensor:
    """``unsqueeze(Tensor(a) self, int dim) -> Tensor(a)``: an unsqueeze layer."""
    return ctx.unsqueeze(self, [dim])


# --- repeating --------------------------------------------------------------------------------------------------------


def expansion(size: str, of: str) -> Relation:
    """Sizes that the tensor broadcasts to, -1 for one that stays (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        own = call[of].shape
        leading = [choose.integer(0, 3) for _ in range(len(call[size]) - len(own))]
        kept = [choose.integer(0, 3) if mine == 1 else mine for mine in own]
        call[size] = leading + [-1 if choose.integer(0, 3) == 0 else wanted for wanted in kept]

    return Relation(f"{size} that {of} broadcasts to", (size, of), None, arrange)


@converter(
    aten.expand.default, Domain(expansion("size", "self"), self=Tensor(), size=sizes_of_tensor(), implicit=Anything())
)
def expand(
    ctx: ConverterContext, self: NetworkTensor, size: list[NetworkSize], *, implicit: bool = False
) -> NetworkTensor:
    """``expand(Tensor(a) self, SymInt[] size, *, bool implicit=False) -> Tensor(a)``: a slice of stride 0."""
    return ctx.expand(self, size)


def broadcasts_to(small: str, large: str) -> Relation:
    """One shape broadcasts to the other (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        whole = call[large].shape
        tail = whole[max(0, len(whole) - call[small].rank) :]
        call[small] = call[small]._replace(shape=tuple(1 if choose.boolean() else size for size in tail))

    return Relation(f"{small} that broadcasts to {large}", (small, large), None, arrange)


@converter(aten.expand_as.default, Domain(broadcasts_to("self", "other"), self=Tensor(), other=Tensor()))
def expand_as(ctx: ConverterContext, self: NetworkTensor, other: NetworkTensor) -> NetworkTensor:
    """``expand_as(Tensor(a) self, Tensor other) -> Tensor(a)``: a slice of stride 0."""
    return ctx.expand(self, ctx.sizes(other))


def repeats_for(repeats: str, of: str) -> Relation:
    """At least one number for each axis (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        missing = call[of].rank - len(call[repeats])
        call[repeats] = [min(abs(count), 3) for count in call[repeats]] + [choose.integer(1, 2) for _ in range(missing)]

    return Relation(f"{repeats} for every axis", (repeats, of), None, arrange)


@converter(
    aten.repeat.default,
    Domain(
        repeats_for("repeats", "self"),
        self=Tensor(),
        repeats=ListOf(Size(), longest=MAX_RANK, because={"length": RANK_LIMIT}),
    ),
)
def repeat(ctx: ConverterContext, self: NetworkTensor, repeats: list[NetworkSize]) -> NetworkTensor:
    """``repeat(Tensor self, SymInt[] repeats) -> Tensor``: a slice that runs on past the end, in mode WRAP.

    Around nothing TensorRT does not wrap: it divides by the size 0 and ends the process. What may turn out empty is
    expanded along an axis of its own instead, and that merged. Repeats below 0 are none, as eager has it of nothing.
    """
    repeats = [ctx.size_math("MAX", count, 0) for count in repeats]
    tensor = ctx.unsqueeze(self, range(len(repeats) - ctx.rank(self)))
    for axis, count in enumerate(repeats):
        size = ctx.sizes(tensor)[axis]
        if ctx.size_math("MAX", size, 1) is not size and not isinstance(size, int):
            tensor = repeated(ctx, tensor, axis, count)
            repeats = [*repeats[:axis], 1, *repeats[axis + 1 :]]
    sizes = [ctx.size_math("PROD", own, count) for own, count in zip(ctx.sizes(tensor), repeats, strict=True)]
    if all(isinstance(count, int) and count == 1 for count in repeats):
        return tensor
    mode = ctx.trt.SampleMode.WRAP
    return ctx.slice(tensor, [0] * len(sizes), sizes, [1] * len(sizes), mode=mode)


def repeated(ctx: ConverterContext, tensor: NetworkTensor, axis: int, count: NetworkSize) -> NetworkTensor:
    """Repeats of a tensor along one axis."""
    sizes = ctx.sizes(tensor)
    times = functools.partial(ctx.size_math, "PROD")
    before, after = functools.reduce(times, sizes[:axis], 1), functools.reduce(times, sizes[axis + 1 :], 1)
    alone = ctx.reshape(tensor, [before, 1, sizes[axis], after])
    wide = ctx.expand(alone, [before, count, sizes[axis], after])
    return ctx.reshape(wide, [*sizes[:axis], ctx.size_math("PROD", sizes[axis], count), *sizes[axis + 1 :]])


CONVERTERS: tuple[Converter, ...] = (
    *view,
    reshape,
    flatten,
    unflatten,
    permute,
    transpose,
    t,
    *movedims,
    *movedim,
    squeeze,
    squeeze_dim,
    squeeze_dims,
    unsqueeze,
    expand,
    expand_as,
    repeat,
)
