"""Reductions along axes: sums, means, products, extremes, any and all, variances, norms, running sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from trtplug_converters._shared import float_dtype, widened
from trtplug_registry import (
    ALL,
    FLOATS,
    NUMBERS,
    Axis,
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
    converter_table,
    distinct_axes,
)

aten = torch.ops.aten

Axes = int | Sequence[int] | None

NOT_A_TYPE = "not a TensorRT type of arithmetic"
AXES = Optional(ListOf(Axis("self")))
FLAG = Only(False, True)
AXIS = Axis("self")


def reduced(ctx: ConverterContext, op: str, tensor: NetworkTensor, dim: Axes, keepdim: bool) -> NetworkTensor:
    """A reduce layer, over all axes where `dim` is None or empty; a tensor without axes is its own reduction."""
    return ctx.reduce(op, tensor, axes_of(ctx, tensor, dim), keepdim)


def axes_of(ctx: ConverterContext, tensor: NetworkTensor, dim: Axes) -> list[int]:
    rank = ctx.rank(tensor)
    if isinstance(dim, int):
        return [dim] if rank else []
    return list(dim) if dim and rank else list(range(rank))


# --- sums, means and products -----------------------------------------------------------------------------------------


def _convertible(call: dict[str, Any], choose: Choose) -> None:
    """Floats that become integers: what nan, infinities and large floats become is not defined. Large integers that
    become float16 are infinite or not, as eager's kernels go.
    """
    dtype = call["dtype"]
    if call["self"].dtype.is_floating_point and dtype is not None and not dtype.is_floating_point:
        call["self"] = call["self"]._replace(values=(-100, 100))
    if not call["self"].dtype.is_floating_point and dtype == torch.float16:
        call["self"] = call["self"]._replace(values=(-65504, 65504))


CONVERTIBLE = Relation("numbers within the range of dtype", ("self", "dtype"), arrange=_convertible)
SUM_DTYPE = Optional(Only(*NUMBERS, because=NOT_A_TYPE))
MEAN_DTYPE = Optional(Only(*FLOATS, because=NOT_A_TYPE))


def _few_factors(call: dict[str, Any], choose: Choose) -> None:
    facts = call["self"]
    shape = tuple(min(size, 2 if axis < 4 else 1) for axis, size in enumerate(facts.shape))
    values, dtype = facts.values, call["dtype"] or facts.dtype
    if dtype.is_floating_point:  # 16 factors: where one order overflows, another gives 0 or nan
        most = 200.0 if dtype != torch.float16 else 1.9 if facts.dtype.is_floating_point else 2.0
        values = (-most, most)
    call["self"] = facts._replace(shape=shape, values=values)


FEW_FACTORS = Relation(
    "a product that the order of its factors does not overflow", ("self", "dtype"), arrange=_few_factors
)


def _as_result(ctx: ConverterContext, tensor: NetworkTensor) -> NetworkTensor:
    """In the dtype of the result, in which Torch reduces: bool and int32 are summed as int64, for one."""
    return ctx.cast(tensor, ctx.outputs[0].dtype)


def _reduced_as_result(
    ctx: ConverterContext, op: str, tensor: NetworkTensor, dim: Axes, keepdim: bool = False
) -> NetworkTensor:
    """A reduce layer in the result's dtype; a mean that changes the dtype is rounded last, as Torch does."""
    dtype = ctx.outputs[0].dtype
    wide = torch.float32 if op == "AVG" and ctx.dtype(tensor) != dtype else dtype
    return ctx.cast(reduced(ctx, op, ctx.cast(tensor, wide), dim, keepdim), dtype)


def _over_all(
    op: str, ctx: ConverterContext, self: NetworkTensor, *, dtype: torch.dtype | None = None
) -> NetworkTensor:
    """``sum(Tensor self, *, ScalarType? dtype=None) -> Tensor``: a reduce layer in the result's dtype."""
    return _reduced_as_result(ctx, op, self, None)


sum_all = converter_table({aten.sum.default: "SUM"}, Domain(CONVERTIBLE, self=Tensor(ALL), dtype=SUM_DTYPE))(_over_all)
mean_all = converter_table({aten.mean.default: "AVG"}, Domain(float_dtype(), self=Tensor(ALL), dtype=MEAN_DTYPE))(
    _over_all
)
prod_all = converter_table(
    {aten.prod.default: "PROD"}, Domain(CONVERTIBLE, FEW_FACTORS, self=Tensor(ALL), dtype=SUM_DTYPE)
)(_over_all)


def _along_axes(
    op: str,
    ctx: ConverterContext,
    self: NetworkTensor,
    dim: Sequence[int] | None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> NetworkTensor:
    """``sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor``."""
    return _reduced_as_result(ctx, op, self, dim, keepdim)


DISTINCT = distinct_axes("dim", "self")

sum_along = converter_table(
    {aten.sum.dim_IntList: "SUM"},
    Domain(CONVERTIBLE, DISTINCT, self=Tensor(ALL), dim=AXES, keepdim=FLAG, dtype=SUM_DTYPE),
)(_along_axes)

mean_along = converter_table(
    {aten.mean.dim: "AVG"},
    Domain(float_dtype(), DISTINCT, self=Tensor(ALL), dim=AXES, keepdim=FLAG, dtype=MEAN_DTYPE),
)(_along_axes)


@converter(
    aten.prod.dim_int, Domain(CONVERTIBLE, FEW_FACTORS, self=Tensor(ALL), dim=AXIS, keepdim=FLAG, dtype=SUM_DTYPE)
)
def prod_along(
    ctx: ConverterContext,
    self: NetworkTensor,
    dim: int,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> NetworkTensor:
    """``prod.dim_int(Tensor self, int dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor``."""
    return _reduced_as_result(ctx, "PROD", self, dim, keepdim)


@converter(aten.cumsum.default, Domain(CONVERTIBLE, self=Tensor(ALL), dim=AXIS, dtype=SUM_DTYPE))
def cumsum(ctx: ConverterContext, self: NetworkTensor, dim: int, *, dtype: torch.dtype | None = None) -> NetworkTensor:
    """``cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor``: a cumulative layer."""
    terms = _as_result(ctx, self)
    if ctx.rank(terms) == 0:
        return terms
    axis = ctx.constant(dim % ctx.rank(terms), torch.int32)
    return ctx.add("cumulative", terms, axis, ctx.trt.CumulativeOperation.SUM, False, False).get_output(0)


# --- extremes, any and all --------------------------------------------------------------------------------------------


def extreme(ctx: ConverterContext, op: str, tensor: NetworkTensor, dim: Axes, keepdim: bool) -> NetworkTensor:
    """A reduce layer for MAX or MIN; bool, which it does not take, goes through int32."""
    dtype = ctx.dtype(tensor)
    numbers = ctx.cast(tensor, torch.int32) if dtype == torch.bool else tensor
    return ctx.cast(reduced(ctx, op, numbers, dim, keepdim), dtype)


@converter_table({aten.max.default: "MAX", aten.min.default: "MIN"}, Domain(self=Tensor(ALL)), keeps_nan=False)
def extreme_of_all(op: str, ctx: ConverterContext, self: NetworkTensor) -> NetworkTensor:
    """``max(Tensor self) -> Tensor``: a reduce layer."""
    return extreme(ctx, op, self, None, False)


@converter_table(
    {aten.amax.default: "MAX", aten.amin.default: "MIN"},
    Domain(DISTINCT, self=Tensor(ALL), dim=ListOf(AXIS), keepdim=FLAG),
    keeps_nan=False,
)
def extreme_along(
    op: str, ctx: ConverterContext, self: NetworkTensor, dim: Sequence[int] = (), keepdim: bool = False
) -> NetworkTensor:
    """``amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor``: a reduce layer."""
    return extreme(ctx, op, self, dim, keepdim)


def _count(ctx: ConverterContext, op: str, tensor: NetworkTensor, axes: Sequence[int], keepdim: bool) -> NetworkTensor:
    """Whether the SUM (any) or PROD (all) of the truth values is positive; everything but 0 is true, NaN too."""
    zero = ctx.elementwise("EQUAL", tensor, 0) if ctx.dtype(tensor) != torch.bool else ctx.unary("NOT", tensor)
    truth = ctx.cast(ctx.unary("NOT", zero), torch.int32)
    return ctx.elementwise("GREATER", ctx.reduce(op, truth, axes, keepdim), 0)


@converter_table({aten.any.default: "SUM", aten.all.default: "PROD"}, Domain(self=Tensor(ALL)))
def truth_of_all(op: str, ctx: ConverterContext, self: NetworkTensor) -> NetworkTensor:
    """``any(Tensor self) -> Tensor``: comparisons with 0 and a reduce layer."""
    return _count(ctx, op, self, range(ctx.rank(self)), False)


@converter_table({aten.any.dim: "SUM", aten.all.dim: "PROD"}, Domain(self=Tensor(ALL), dim=AXIS, keepdim=FLAG))
def truth_along(op: str, ctx: ConverterContext, self: NetworkTensor, dim: int, keepdim: bool = False) -> NetworkTensor:
    """``any.dim(Tensor self, int dim, bool keepdim=False) -> Tensor``: comparisons with 0 and a reduce layer."""
    return _count(ctx, op, self, axes_of(ctx, self, dim), keepdim)


@converter_table(
    {aten.any.dims: "SUM", aten.all.dims: "PROD"}, Domain(DISTINCT, self=Tensor(ALL), dim=AXES, keepdim=FLAG)
)
def truth_along_axes(
    op: str, ctx: ConverterContext, self: NetworkTensor, dim: Sequence[int] | None = None, keepdim: bool = False
) -> NetworkTensor:
    """``any.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor``: no axis where the list is empty."""
    return _count(ctx, op, self, [] if dim is not None and not dim else axes_of(ctx, self, dim), keepdim)


# --- variances, norms and logarithms of sums --------------------------------------------------------------------------


def _moments(
    ctx: ConverterContext, tensor: NetworkTensor, dim: Axes, correction: float | None, keepdim: bool
) -> tuple[NetworkTensor, NetworkTensor]:
    """Variance and mean, in float32: mean((x - mean)²) * count / max(count - correction, 0)."""
    wide, axes = widened(ctx, tensor), axes_of(ctx, tensor, dim)
    mean = ctx.reduce("AVG", wide, axes, True)
    deviation = ctx.elementwise("SUB", wide, mean)
    spread = ctx.reduce("AVG", ctx.elementwise("PROD", deviation, deviation), axes, keepdim)
    if correction != 0:
        spread = ctx.elementwise("PROD", spread, _corrected(ctx, wide, axes, 1 if correction is None else correction))
    return spread, mean if keepdim else ctx.squeeze(mean, axes)


def _corrected(ctx: ConverterContext, tensor: NetworkTensor, axes: Sequence[int], correction: float) -> Any:
    """count / max(count - correction, 0): a number, or a float32 tensor where a size is symbolic."""
    count: Any = 1
    for axis in axes:
        count = ctx.size_math("PROD", count, ctx.sizes(tensor)[axis])
    if isinstance(count, int):
        freedom = max(count - correction, 0.0)
        return count / freedom if freedom else math.inf
    count = ctx.cast(count, torch.float32)
    return ctx.elementwise("DIV", count, ctx.elementwise("MAX", ctx.elementwise("SUB", count, correction), 0))


def _finite(call: dict[str, Any], choose: Choose) -> None:
    call["self"] = call["self"]._replace(values=(-65504, 65504))


FINITE = Relation(
    "finite elements: eager's mean of an infinity is nan unless it comes last", ("self",), arrange=_finite
)
VARIANCE = Domain(FINITE, DISTINCT, self=Tensor(FLOATS), dim=AXES, correction=Optional(Static()), keepdim=FLAG)


@converter_table({aten.var.correction: False, aten.std.correction: True}, VARIANCE)
def variance(
    rooted: bool,
    ctx: ConverterContext,
    self: NetworkTensor,
    dim: Sequence[int] | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
) -> NetworkTensor:
    """``var.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor``."""
    squared, _ = _moments(ctx, self, dim, correction, keepdim)
    return ctx.cast(ctx.unary("SQRT", squared) if rooted else squared, ctx.dtype(self))


@converter(aten.var_mean.correction, VARIANCE)
def var_mean(
    ctx: ConverterContext,
    self: NetworkTensor,
    dim: Sequence[int] | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
) -> tuple[NetworkTensor, ...]:
    """``var_mean.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, ...) -> (Tensor, Tensor)``."""
    moments = _moments(ctx, self, dim, correction, keepdim)
    return tuple(ctx.cast(moment, ctx.dtype(self)) for moment in moments)


_OF_SIZES = {1: "SUM", math.inf: "MAX", -math.inf: "MIN"}
"""Norms that are one reduction of the elements' sizes."""


def _norm(ctx: ConverterContext, tensor: NetworkTensor, order: float, axes: Sequence[int], keepdim: bool) -> Any:
    """(sum |x| ** order) ** (1 / order), and its limits at 0 (the number of elements that are not 0) and infinities."""
    if order == 2:
        squares = ctx.elementwise("PROD", tensor, tensor)
        return ctx.unary("SQRT", ctx.reduce("SUM", squares, axes, keepdim))
    if order == 0:
        filled = ctx.unary("NOT", ctx.elementwise("EQUAL", tensor, 0))
        return ctx.reduce("SUM", ctx.cast(filled, ctx.dtype(tensor)), axes, keepdim)
    size = ctx.unary("ABS", tensor)
    if order in _OF_SIZES:
        return ctx.reduce(_OF_SIZES[order], size, axes, keepdim)
    powers = ctx.reduce("SUM", ctx.elementwise("POW", size, order), axes, keepdim)
    return ctx.elementwise("POW", powers, 1 / order)


def _wider_dtype(call: dict[str, Any], choose: Choose) -> None:
    dtype = call["self"].dtype
    call["dtype"] = choose.one_of((None, dtype, torch.float32))
    if math.isinf(call["ord"]) and 0 in call["self"].shape:  # there is no largest of none
        call["ord"] = 2
    if call["ord"] in (2, 3) and dtype != torch.float16:  # powers within float32: eager's sums are wider
        call["self"] = call["self"]._replace(values=(-1e9, 1e9))


@converter(
    aten.linalg_vector_norm.default,
    Domain(
        DISTINCT,
        Relation("dtype no narrower than self's", ("dtype", "self", "ord"), arrange=_wider_dtype),
        self=Tensor(FLOATS),
        ord=Only(
            *(kind(order) for order in (0, 1, 2, 3) for kind in (int, float)),
            *(math.inf, -math.inf),
            because="eager sums other powers in float64, TensorRT has no float64",
        ),
        dim=AXES,
        keepdim=FLAG,
        dtype=Optional(Only(*FLOATS, because=NOT_A_TYPE)),
    ),
    keeps_nan=False,
)
def linalg_vector_norm(
    ctx: ConverterContext,
    self: NetworkTensor,
    ord: float = 2,
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> NetworkTensor:
    """``linalg_vector_norm(Tensor self, Scalar ord=2, int[1]? dim=None, bool keepdim=False, *, ...) -> Tensor``."""
    wide = widened(ctx, _as_result(ctx, self))
    return _as_result(ctx, _norm(ctx, wide, ord, axes_of(ctx, self, dim), keepdim))


@converter(aten.logsumexp.default, Domain(DISTINCT, self=Tensor(ALL), dim=ListOf(AXIS), keepdim=FLAG))
def logsumexp(ctx: ConverterContext, self: NetworkTensor, dim: Sequence[int], keepdim: bool = False) -> NetworkTensor:
    """``logsumexp(Tensor self, int[1] dim, bool keepdim=False) -> Tensor``: max + log(sum(exp(x - max)))."""
    wide, axes = widened(ctx, _as_result(ctx, self)), axes_of(ctx, self, dim)
    most = ctx.reduce("MAX", wide, axes, True)
    most = ctx.select(ctx.unary("ISINF", most), 0, most)
    total = ctx.reduce("SUM", ctx.unary("EXP", ctx.elementwise("SUB", wide, most)), axes, True)
    result = ctx.elementwise("SUM", ctx.unary("LOG", total), most)
    return _as_result(ctx, result if keepdim else ctx.squeeze(result, axes))


CONVERTERS: tuple[Converter, ...] = (
    *sum_all,
    *mean_all,
    *prod_all,
    *sum_along,
    *mean_along,
    prod_along,
    cumsum,
    *extreme_of_all,
    *extreme_along,
    *truth_of_all,
    *truth_along,
    *truth_along_axes,
    *variance,
    var_mean,
    linalg_vector_norm,
    logsumexp,
)
