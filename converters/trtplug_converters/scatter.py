"""Writing at computed places, the last of several values staying. Data of every dtype goes through."""

from __future__ import annotations

import functools
from typing import Any

import torch

from trtplug_converters.indexing import counted_from_start, elementwise_index, indexed_fits, indices_into
from trtplug_converters.shape import RANK_LIMIT, product
from trtplug_registry import (
    INTS,
    Axis,
    Call,
    Choose,
    Converter,
    ConverterContext,
    Domain,
    ListOf,
    NetworkTensor,
    Only,
    Optional,
    Relation,
    Static,
    Tensor,
    converter,
    same_dtype,
    tensors_in,
)

aten = torch.ops.aten

PLACES = Tensor(INTS, because={"dtypes": "indices are integers"})


def _scattered(
    ctx: ConverterContext, data: NetworkTensor, dim: int, index: NetworkTensor, updates: NetworkTensor
) -> NetworkTensor:
    """A scatter layer, ELEMENT, which takes tensors of rank 1 or more."""
    whole, places, updates = (ctx.unsqueeze(t, [0]) if not ctx.rank(t) else t for t in (data, index, updates))
    mode = ctx.trt.ScatterMode.ELEMENT
    result = ctx.add("scatter", whole, places, updates, mode, axis=dim % ctx.rank(whole)).get_output(0)
    return result if ctx.rank(data) else ctx.squeeze(result, [0])


def _nothing_scattered(ctx: ConverterContext, data: NetworkTensor, dim: int, index: NetworkTensor) -> NetworkTensor:
    """An empty index may be longer than the data, which the layer does not take, and the source of any size."""
    none = [0] * ctx.rank(data)
    return _scattered(ctx, data, dim, ctx.reshape(index, none), ctx.constant(torch.empty(none, dtype=ctx.dtype(data))))


def no_more_than_data(index: str, data: str, axis: str) -> Relation:
    """The index is nowhere longer than the data, along the axis either."""

    def holds(call: Call) -> bool:
        if not call[data].rank or not call[index].rank:
            return True
        return _at_most(call[index].shape[call[axis]], call[data].shape[call[axis]])

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        shape = list(call[index].shape)
        if not holds(call):
            shape[call[axis]] = call[data].shape[call[axis]]
            call[index] = call[index]._replace(shape=tuple(shape))

    because = "TensorRT's scatter layer takes no more indices along the axis than the data has elements there"
    return Relation(f"no more of {index} than of {data} along {axis}", (index, data, axis), holds, arrange, because)


def _at_most(small: Any, large: Any) -> bool:
    """Whether a size is no larger than another, for all values that they can have."""
    if isinstance(small, int) and isinstance(large, int):
        return small <= large
    most = small if isinstance(small, int) else small.bounds()[1]
    least = large if isinstance(large, int) else large.bounds()[0]
    return bool(small == large) or most <= least


def _source_covers_index(call: dict[str, Any], choose: Choose) -> None:
    shape = tuple(size + choose.integer(0, 1) for size in call["index"].shape)
    call["src"] = call["src"]._replace(shape=shape)


@converter(
    aten.scatter.src,
    Domain(
        elementwise_index("index", "self", "dim"),
        no_more_than_data("index", "self", "dim"),
        Relation("a source at least as large as the index", ("src", "index"), None, _source_covers_index),
        same_dtype("self", "src"),
        self=Tensor(),
        dim=Axis("self"),
        index=PLACES,
        src=Tensor(),
    ),
)
def scatter(
    ctx: ConverterContext, self: NetworkTensor, dim: int, index: NetworkTensor, src: NetworkTensor
) -> NetworkTensor:
    """``scatter.src(Tensor self, int dim, Tensor index, Tensor src) -> Tensor``: a scatter layer, ELEMENT."""
    sizes = ctx.sizes(index)
    if 0 in sizes:
        return _nothing_scattered(ctx, self, dim, index)
    if sizes and sizes != ctx.sizes(src):
        src = ctx.slice(src, [0] * len(sizes), sizes, [1] * len(sizes))
    return _scattered(ctx, self, dim, index, src)


@converter(
    aten.scatter.value,
    Domain(
        elementwise_index("index", "self", "dim"),
        no_more_than_data("index", "self", "dim"),
        self=Tensor(),
        dim=Axis("self"),
        index=PLACES,
        value=Static(nan=True),
    ),
)
def scatter_value(
    ctx: ConverterContext, self: NetworkTensor, dim: int, index: NetworkTensor, value: float
) -> NetworkTensor:
    """``scatter.value(Tensor self, int dim, Tensor index, Scalar value) -> Tensor``: a scatter layer, ELEMENT."""
    if 0 in ctx.sizes(index):
        return _nothing_scattered(ctx, self, dim, index)
    element = ctx.constant(torch.tensor(value).to(ctx.dtype(self)))  # wraps around, as eager lets it
    return _scattered(ctx, self, dim, index, ctx.full(ctx.sizes(index), element, ctx.dtype(self)))


# --- advanced indexing ------------------------------------------------------------------------------------------------


def _split_axes(indices: list[Any], rank: int) -> tuple[list[int], list[int], int]:
    """The indexed axes, the others, and how many of the others come first in what is indexed."""
    axes = [axis for axis, places in enumerate(indices) if places is not None]
    others = [axis for axis in range(rank) if axis not in axes]
    together = axes[-1] - axes[0] < len(axes)
    return axes, others, axes[0] if together else 0


def _broadcast(ctx: ConverterContext, values: NetworkTensor, sizes: list[Any]) -> NetworkTensor:
    """A tensor in these sizes; a symbolic size may turn out to be 1, which only layers of two operands broadcast."""
    if all(isinstance(size, int) for size in ctx.sizes(values)):
        return ctx.expand(values, sizes)
    return ctx.select(ctx.full(sizes, True, torch.bool), values, values)


def _values_broadcast(call: dict[str, Any], choose: Choose) -> None:
    shape, listed = call["self"].shape, call["indices"]
    _, others, before = _split_axes(listed, len(shape))
    indexed = torch.broadcast_shapes(*(facts.shape for facts in tensors_in(listed)))
    whole = [*(shape[axis] for axis in others[:before]), *indexed, *(shape[axis] for axis in others[before:])]
    tail = whole[choose.integer(0, len(whole)) :]
    call["values"] = call["values"]._replace(shape=tuple(1 if choose.integer(0, 3) == 0 else size for size in tail))


@converter(
    aten.index_put.default,
    Domain(
        indices_into("indices", "self"),
        Relation("values that broadcast to what is indexed", ("values", "self", "indices"), None, _values_broadcast),
        Relation("at most 8 dimensions of what is indexed", ("indices", "self"), indexed_fits, because=RANK_LIMIT),
        same_dtype("self", "values"),
        self=Tensor(),
        indices=ListOf(
            Optional(Tensor(INTS, because={"dtypes": "how many elements a mask selects, only its values tell"}))
        ),
        values=Tensor(),
        accumulate=Only(False, because="TensorRT's scatter layer overwrites"),
    ),
)
def index_put(
    ctx: ConverterContext,
    self: NetworkTensor,
    indices: list[NetworkTensor | None],
    values: NetworkTensor,
    accumulate: bool = False,
) -> NetworkTensor:
    """``index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor``: a scatter layer,
    ND, into the indexed axes, which go to the front for it.
    """
    axes, others, before = _split_axes(indices, ctx.rank(self))
    sizes = ctx.sizes(self)
    places = [ctx.cast(counted_from_start(ctx, indices[axis], sizes[axis]), torch.int64) for axis in axes]
    shared = functools.reduce(functools.partial(ctx.elementwise, "SUM"), places)
    indexed, count = ctx.sizes(shared), product(ctx, ctx.sizes(shared))
    columns = [ctx.unsqueeze(ctx.reshape(_broadcast(ctx, place, list(indexed)), [count]), [1]) for place in places]
    inner = [sizes[axis] for axis in others]
    lead, end = before, before + len(indexed)
    front = [*range(lead, end), *range(lead), *range(end, len(indexed) + len(others))]
    updates = ctx.permute(_broadcast(ctx, values, [*inner[:before], *indexed, *inner[before:]]), front)
    order, mode = [*axes, *others], ctx.trt.ScatterMode.ND
    inputs = ctx.permute(self, order), ctx.concat(columns, 1), ctx.reshape(updates, [count, *inner])
    result = ctx.add("scatter", *inputs, mode).get_output(0)
    return ctx.permute(result, sorted(range(len(order)), key=order.__getitem__))


CONVERTERS: tuple[Converter, ...] = (scatter, scatter_value, index_put)
