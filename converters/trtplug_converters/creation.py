"""Tensors out of numbers and sizes: filled ones, ranges, and triangles of a matrix."""

from __future__ import annotations

import math
from typing import Any

import torch

from trtplug_converters.shape import RANK_LIMIT
from trtplug_registry import (
    ALL,
    MAX_RANK,
    Anything,
    Call,
    Choose,
    Converter,
    ConverterContext,
    Domain,
    Either,
    ListOf,
    NetworkSize,
    NetworkTensor,
    Only,
    Relation,
    Size,
    Static,
    SymbolicSize,
    Tensor,
    converter,
    converter_table,
)

aten = torch.ops.aten

DTYPE = Only(None, *ALL, because="other dtypes are not TensorRT types")
PLACE = {"layout": Anything(), "device": Anything(), "pin_memory": Anything()}
NUMBER = Either(Static(nan=True), Size())
LIKE = {"dtype": DTYPE, **PLACE}


def sizes_from(name: str) -> Relation:
    """Sizes of 0 and more (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        call[name] = [abs(size) for size in call[name]]

    return Relation(f"{name} not negative", (name,), None, arrange)


SHAPE = ListOf(Size(), longest=MAX_RANK, because={"length": RANK_LIMIT})


def filled(ctx: ConverterContext, sizes: Any, value: Any) -> NetworkTensor:
    """A tensor of the dtype that the node promises, every element one number, converted as Torch does."""
    dtype = ctx.outputs[0].dtype
    if isinstance(value, bool | int | float):
        value = ctx.constant(torch.full((), value, dtype=dtype))
    return ctx.full(sizes, value, dtype)


@converter(aten.full.default, Domain(sizes_from("size"), size=SHAPE, fill_value=NUMBER, **LIKE))
def full(
    ctx: ConverterContext,
    size: list[NetworkSize],
    fill_value: Any,
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> NetworkTensor:
    """``full(SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None) -> Tensor``: a constant, expanded.
    """
    return filled(ctx, size, fill_value)


@converter(aten.full_like.default, Domain(self=Tensor(), fill_value=NUMBER, **LIKE, memory_format=Anything()))
def full_like(
    ctx: ConverterContext,
    self: NetworkTensor,
    fill_value: Any,
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
    memory_format: Any = None,
) -> NetworkTensor:
    """``full_like(Tensor self, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor``: a constant, expanded.
    """
    return filled(ctx, ctx.sizes(self), fill_value)


@converter(aten.new_full.default, Domain(sizes_from("size"), self=Tensor(), size=SHAPE, fill_value=NUMBER, **LIKE))
def new_full(
    ctx: ConverterContext,
    self: NetworkTensor,
    size: list[NetworkSize],
    fill_value: Any,
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> NetworkTensor:
    """``new_full(Tensor self, SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device?
    device=None, bool? pin_memory=None) -> Tensor``: a constant, expanded.
    """
    return filled(ctx, size, fill_value)


@converter_table({aten.zeros.default: 0, aten.ones.default: 1}, Domain(sizes_from("size"), size=SHAPE, **LIKE))
def of_size(
    value: int,
    ctx: ConverterContext,
    size: list[NetworkSize],
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> NetworkTensor:
    """``zeros(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None) -> Tensor``: a constant, expanded.
    """
    return filled(ctx, size, value)


@converter_table(
    {aten.zeros_like.default: 0, aten.ones_like.default: 1}, Domain(self=Tensor(), **LIKE, memory_format=Anything())
)
def alike(
    value: int,
    ctx: ConverterContext,
    self: NetworkTensor,
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
    memory_format: Any = None,
) -> NetworkTensor:
    """``zeros_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None, MemoryFormat? memory_format=None) -> Tensor``: a constant, expanded.
    """
    return filled(ctx, ctx.sizes(self), value)


@converter_table(
    {aten.new_zeros.default: 0, aten.new_ones.default: 1},
    Domain(sizes_from("size"), self=Tensor(), size=SHAPE, **LIKE),
)
def new(
    value: int,
    ctx: ConverterContext,
    self: NetworkTensor,
    size: list[NetworkSize],
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> NetworkTensor:
    """``new_zeros(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None) -> Tensor``: a constant, expanded.
    """
    return filled(ctx, size, value)


@converter(aten.scalar_tensor.default, Domain(s=NUMBER, **LIKE))
def scalar_tensor(
    ctx: ConverterContext,
    s: Any,
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> NetworkTensor:
    """``scalar_tensor(Scalar s, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None) -> Tensor``: a constant, or a size.
    """
    return filled(ctx, [], s)


# --- ranges -----------------------------------------------------------------------------------------------------------


def counted(ctx: ConverterContext, start: NetworkSize, step: NetworkSize, length: NetworkSize) -> NetworkTensor:
    """``start + step * [0, 1, …]``, int64 [length]: a fill layer, or a constant where everything is known."""
    if all(isinstance(size, int) for size in (start, step, length)):
        return ctx.constant(start + step * torch.arange(length))
    first = ctx.constant(start, torch.int64) if isinstance(start, int) else start
    inputs = {0: ctx.size_tensor([length]), 1: first, 2: ctx.size_tensor([step])}
    fill = ctx.add("fill", (1,), ctx.trt.FillOperation.LINSPACE, ctx.trt.int64, inputs=inputs)
    return fill.get_output(0)


def ranged(ctx: ConverterContext, start: Any, end: Any, step: Any) -> NetworkTensor:
    """``[start, start + step, …]`` up to but without `end`, in the dtype that the node promises."""
    (result,) = ctx.outputs
    if all(isinstance(number, int | float) for number in (start, end, step)):
        return ctx.constant(torch.arange(start, end, step, dtype=result.dtype))
    start, end, step = (int(number) if isinstance(number, float) else number for number in (start, end, step))
    if isinstance(step, int) and step > 0:
        padded = ctx.size_math("SUM", ctx.size_math("SUB", end, start), step - 1)
        length = ctx.size_math("FLOOR_DIV", padded, step)
    else:  # ceil((end - start) / step) = -floor((start - end) / step)
        length = ctx.size_math("SUB", 0, ctx.size_math("FLOOR_DIV", ctx.size_math("SUB", start, end), step))
    return ctx.cast(counted(ctx, start, step, length), result.dtype)


def counts_up(*names: str) -> Relation:
    """From start to end in steps of the right sign, not zero (eager demands it), and not many."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        start, step = call.get("start", 0), call.get("step", 1)
        if not (math.isfinite(step) and 0.01 <= abs(step) <= 100):
            step = choose.one_of([1, 2, -1, -2, 0.5])
        if not (math.isfinite(start) and abs(start) <= 1000):
            start = choose.one_of([0, 1, -3, 2.5])
        end = start + step * choose.one_of([0, 1, 2, 5, 6.5 if isinstance(step, float) else 7])
        call.update({name: value for name, value in (("start", start), ("end", end), ("step", step)) if name in call})

    return Relation(f"{', '.join(names)} in order", names, None, arrange)


@converter(aten.arange.default, Domain(counts_up("end"), end=NUMBER, **LIKE))
def arange(
    ctx: ConverterContext,
    end: Any,
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> NetworkTensor:
    """``arange(Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None) -> Tensor``: a constant, or a fill layer.
    """
    return ranged(ctx, 0, end, 1)


MIXED = "only of whole numbers is the length computed as TensorRT computes sizes"


def known_together(*names: str) -> Relation:
    """Where one of the numbers is symbolic, all are whole."""

    def holds(call: Call) -> bool:
        numbers = [call[name] for name in names]
        fractions = [number for number in numbers if isinstance(number, float) and not number.is_integer()]
        return not fractions or not any(isinstance(number, SymbolicSize) for number in numbers)

    return Relation(f"{', '.join(names)} all static or all whole", names, holds, because=MIXED)


@converter(
    aten.arange.start,
    Domain(counts_up("start", "end"), known_together("start", "end"), start=NUMBER, end=NUMBER, **LIKE),
)
def arange_start(
    ctx: ConverterContext,
    start: Any,
    end: Any,
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> NetworkTensor:
    """``arange.start(Scalar start, Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None) -> Tensor``: a constant, or a fill layer.
    """
    return ranged(ctx, start, end, 1)


@converter(
    aten.arange.start_step,
    Domain(
        counts_up("start", "end", "step"),
        known_together("start", "end", "step"),
        start=NUMBER,
        end=NUMBER,
        step=NUMBER,
        **LIKE,
    ),
)
def arange_step(
    ctx: ConverterContext,
    start: Any,
    end: Any,
    step: Any = 1,
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> NetworkTensor:
    """``arange.start_step(Scalar start, Scalar end, Scalar step=1, *, ScalarType? dtype=None, Layout? layout=None,
    Device? device=None, bool? pin_memory=None) -> Tensor``: a constant, or a fill layer.
    """
    return ranged(ctx, start, end, step)


# --- triangles --------------------------------------------------------------------------------------------------------


def places(ctx: ConverterContext, sizes: tuple[NetworkSize, ...]) -> tuple[NetworkTensor, NetworkTensor]:
    """Each element's row, [rows, 1], and its column, [1, columns]."""
    rows, columns = (counted(ctx, 0, 1, size) for size in sizes)
    return ctx.unsqueeze(rows, [1]), ctx.unsqueeze(columns, [0])


@converter_table(
    {aten.tril.default: "GREATER", aten.triu.default: "LESS"},
    Domain(self=Tensor(rank=(2, MAX_RANK), because="eager takes triangles of matrices only"), diagonal=Size()),
)
def triangle(beyond: str, ctx: ConverterContext, self: NetworkTensor, diagonal: NetworkSize = 0) -> NetworkTensor:
    """``tril(Tensor self, SymInt diagonal=0) -> Tensor``: zeros where the column is beyond the row's diagonal."""
    row, column = places(ctx, ctx.sizes(self)[-2:])
    outside = ctx.elementwise(beyond, column, ctx.elementwise("SUM", row, diagonal))
    return ctx.select(outside, ctx.constant(0, ctx.dtype(self)), self)


def _eye(ctx: ConverterContext, sizes: tuple[NetworkSize, NetworkSize]) -> NetworkTensor:
    row, column = places(ctx, sizes)
    return ctx.cast(ctx.elementwise("EQUAL", row, column), ctx.outputs[0].dtype)


def not_negative(*names: str) -> Relation:
    """Sizes of 0 and more (eager demands it)."""
    return Relation(
        f"{', '.join(names)} not negative",
        names,
        None,
        lambda call, choose: call.update({name: abs(call[name]) for name in names}),
    )


@converter(aten.eye.default, Domain(not_negative("n"), n=Size(), **LIKE))
def eye(
    ctx: ConverterContext,
    n: NetworkSize,
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> NetworkTensor:
    """``eye(SymInt n, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) ->
    Tensor``: where the row is the column.
    """
    return _eye(ctx, (n, n))


@converter(aten.eye.m, Domain(not_negative("n", "m"), n=Size(), m=Size(), **LIKE))
def eye_m(
    ctx: ConverterContext,
    n: NetworkSize,
    m: NetworkSize,
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> NetworkTensor:
    """``eye.m(SymInt n, SymInt m, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None) -> Tensor``: where the row is the column.
    """
    return _eye(ctx, (n, m))


CONVERTERS: tuple[Converter, ...] = (
    full,
    full_like,
    new_full,
    *of_size,
    *alike,
    *new,
    scalar_tensor,
    arange,
    arange_start,
    arange_step,
    *triangle,
    eye,
    eye_m,
)
