"""Elements by their places: embeddings, gathers, advanced indexing with integers. Data of every dtype goes through."""

from __future__ import annotations

import functools
from typing import Any

import torch

from trtplug_converters.shape import RANK_LIMIT
from trtplug_registry import (
    INTS,
    MAX_RANK,
    Anything,
    Axis,
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
    TensorFacts,
    converter,
    index_into,
    tensors_in,
)

aten = torch.ops.aten


@converter(
    aten.embedding.default,
    Domain(
        index_into("indices", "weight", 0),
        weight=Tensor(rank=(2, 2), because="eager looks up rows of a matrix only"),
        indices=Tensor(INTS, rank=(0, MAX_RANK - 1), because={"rank": RANK_LIMIT, "dtypes": "indices are integers"}),
        padding_idx=Anything(because="only gradients depend on it"),
        scale_grad_by_freq=Anything(because="only gradients depend on it"),
        sparse=Anything(because="only gradients depend on it"),
    ),
)
def embedding(
    ctx: ConverterContext,
    weight: NetworkTensor,
    indices: NetworkTensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> NetworkTensor:
    """``embedding(Tensor weight, Tensor indices, SymInt padding_idx=-1, bool scale_grad_by_freq=False, bool
    sparse=False) -> Tensor``: a gather layer.
    """
    return ctx.gather(weight, indices, 0)


@converter(
    aten.index_select.default,
    Domain(
        index_into("index", "self", "dim"),
        self=Tensor(),
        dim=Axis("self"),
        index=Tensor(
            INTS, rank=(0, 1), because={"rank": "eager takes a list of places", "dtypes": "they are integers"}
        ),
    ),
)
def index_select(ctx: ConverterContext, self: NetworkTensor, dim: int, index: NetworkTensor) -> NetworkTensor:
    """``index_select(Tensor self, int dim, Tensor index) -> Tensor``: a gather layer."""
    if not ctx.rank(index):
        index = ctx.unsqueeze(index, [0])
    if ctx.rank(self):
        return ctx.gather(self, index, dim)
    return ctx.reshape(ctx.gather(ctx.unsqueeze(self, [0]), index, 0), [])  # one element of one, by one place


def elementwise_index(index: str, data: str, axis: str) -> Relation:
    """An index of the data's rank, nowhere longer than the data except along the axis (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        shape = call[data].shape
        place = call[axis] % max(1, len(shape))
        sizes = [choose.integer(min(size, 1), size) for size in shape]
        if shape and shape[place]:
            sizes[place] = choose.integer(0, 4)
        if 0 in sizes:  # an empty index may be longer
            sizes = [size and size + choose.integer(0, 1) for size in sizes]
        whole = shape or (1,)
        call[index] = call[index]._replace(shape=tuple(sizes), values=(0, max(0, whole[place] - 1)))

    return Relation(f"{index} for each element", (index, data, axis), None, arrange)


@converter(
    aten.gather.default,
    Domain(
        elementwise_index("index", "self", "dim"),
        self=Tensor(),
        dim=Axis("self"),
        index=Tensor(INTS, because={"dtypes": "indices are integers"}),
        sparse_grad=Anything(because="only gradients depend on it"),
    ),
)
def gather(
    ctx: ConverterContext, self: NetworkTensor, dim: int, index: NetworkTensor, *, sparse_grad: bool = False
) -> NetworkTensor:
    """``gather(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor``: a gather layer, ELEMENT.

    An empty index may be longer than the data, which the layer does not take: it takes one that is empty everywhere.
    """
    data, places = (ctx.unsqueeze(t, [0]) if not ctx.rank(t) else t for t in (self, index))
    axis, sizes = dim % ctx.rank(data), ctx.sizes(index)
    if 0 in sizes:
        places = ctx.reshape(places, [0] * ctx.rank(data))
    taken = ctx.add("gather_v2", data, places, ctx.trt.GatherMode.ELEMENT, axis=axis).get_output(0)
    return taken if sizes and 0 not in sizes else ctx.reshape(taken, sizes)


# --- advanced indexing ------------------------------------------------------------------------------------------------


def indices_into(indices: str, data: str) -> Relation:
    """Indices that broadcast together, one for each of some axes of the data (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        listed = call[indices][: max(1, call[data].rank)]
        if not tensors_in(listed):
            listed = [*listed[:-1], TensorFacts((choose.integer(1, 3),), torch.int64)]
        shape = list(call[data].shape) or [choose.integer(1, 4)]
        whole = max((facts.shape for facts in tensors_in(listed)), key=len)
        for axis, facts in enumerate(listed):
            if facts is not None:
                shape[axis] = size = shape[axis] or 1
                after_others = any(before.rank for before in tensors_in(listed[:axis]))
                tail = whole[len(whole) - max(facts.rank, after_others) :]
                kept = tuple(1 if choose.integer(0, 2) == 0 else length for length in tail)
                listed[axis] = facts._replace(shape=kept, values=(-size, size - 1))
        call[data] = call[data]._replace(shape=tuple(shape))
        call[indices] = listed

    return Relation(f"{indices} into {data}", (indices, data), None, arrange)


def _described(call: Call) -> bool:
    ranks = [facts.rank for facts in tensors_in(call["indices"])]
    return 0 not in ranks or not any(ranks[: len(ranks) - ranks[::-1].index(0)])


def indexed_fits(call: Call) -> bool:
    listed = tensors_in(call["indices"])
    rank: int = call["self"].rank - len(listed) + max(facts.rank for facts in listed)
    return rank <= MAX_RANK


@converter(
    aten.index.Tensor,
    Domain(
        indices_into("indices", "self"),
        Relation("a result of at most 8 dimensions", ("indices", "self"), indexed_fits, because=RANK_LIMIT),
        Relation(
            "no index without dimensions after one with dimensions",
            ("indices",),
            _described,
            because="Torch's own metadata has a wrong shape for it",
        ),
        self=Tensor(),
        indices=ListOf(
            Optional(Tensor(INTS, because={"dtypes": "how many elements a mask selects, only its values tell"}))
        ),
    ),
)
def index(ctx: ConverterContext, self: NetworkTensor, indices: list[NetworkTensor | None]) -> NetworkTensor:
    """``index.Tensor(Tensor self, Tensor?[] indices) -> Tensor``: the indexed axes merged into one, and a gather layer.

    Axes that are not neighbours go to the front, where Torch puts the result's too.
    """
    axes = [axis for axis, places in enumerate(indices) if places is not None]
    sizes = ctx.sizes(self)
    places = [counted_from_start(ctx, indices[axis], sizes[axis]) for axis in axes]
    if len(axes) == 1:
        return ctx.gather(self, places[0], axes[0])
    if axes[-1] - axes[0] >= len(axes):
        order = [*axes, *(axis for axis in range(len(sizes)) if axis not in axes)]
        self, sizes = ctx.permute(self, order), tuple(sizes[axis] for axis in order)
        axes = list(range(len(axes)))
    indexed = sizes[axes[0] : axes[-1] + 1]
    merged = functools.reduce(functools.partial(ctx.size_math, "PROD"), indexed)
    place = ctx.cast(places[0], torch.int64)
    for more, size in zip(places[1:], indexed[1:], strict=True):
        place = ctx.elementwise("SUM", ctx.elementwise("PROD", place, size), ctx.cast(more, torch.int64))
    return ctx.gather(ctx.reshape(self, [*sizes[: axes[0]], merged, *sizes[axes[-1] + 1 :]]), place, axes[0])


def counted_from_start(ctx: ConverterContext, index: NetworkTensor, size: Any) -> NetworkTensor:
    """Places of an axis, those that count from its end counted from its start: TensorRT promises nothing of them."""
    known = ctx.frozen(index)
    if known is not None and not bool((known < 0).any()):
        return index
    if known is not None and isinstance(size, int):
        return ctx.constant(torch.where(known < 0, known + size, known))
    if not isinstance(size, int):
        index = ctx.cast(index, torch.int64)
    return ctx.select(ctx.elementwise("LESS", index, 0), ctx.elementwise("SUM", index, size), index)


CONVERTERS: tuple[Converter, ...] = (embedding, index_select, gather, index)
