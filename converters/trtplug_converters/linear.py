"""Products of matrices and vectors."""

from __future__ import annotations

import math
from typing import Any

import torch

from trtplug_registry import (
    FLOATS,
    Choose,
    Converter,
    ConverterContext,
    Domain,
    NetworkTensor,
    Optional,
    Relation,
    Static,
    Tensor,
    converter,
    dims,
    same_dtype,
)

aten = torch.ops.aten

FLOATS_ONLY = {"dtypes": "TensorRT multiplies matrices of floats only"}
VECTOR = Tensor(FLOATS, rank=(1, 1), because=FLOATS_ONLY)
MATRIX = Tensor(FLOATS, rank=(2, 2), because=FLOATS_ONLY)
BATCH = Tensor(FLOATS, rank=(3, 3), because=FLOATS_ONLY)
ARRAY = Tensor(FLOATS, rank=(1, 8), because=FLOATS_ONLY)


# --- plain products ---------------------------------------------------------------------------------------------------


def product(ctx: ConverterContext, left: NetworkTensor, right: NetworkTensor, transposed: bool = False) -> Any:
    """Torch's matmul: a vector on the left is a row, one on the right a column; of ``right.T`` where `transposed`."""
    row, column = ctx.rank(left) == 1, ctx.rank(right) == 1
    right = ctx.unsqueeze(right, [1]) if column else right
    result = ctx.matmul(left, right, transpose=(False, transposed and not column))
    return ctx.squeeze(result, [-2] * row + [-1] * column)


@converter(aten.mm.default, Domain(same_dtype("self", "mat2"), dims(self="n k", mat2="k m"), self=MATRIX, mat2=MATRIX))
def mm(ctx: ConverterContext, self: NetworkTensor, mat2: NetworkTensor) -> NetworkTensor:
    """``mm(Tensor self, Tensor mat2) -> Tensor``: a matrix multiply layer."""
    return ctx.matmul(self, mat2)


@converter(
    aten.bmm.default, Domain(same_dtype("self", "mat2"), dims(self="b n k", mat2="b k m"), self=BATCH, mat2=BATCH)
)
def bmm(ctx: ConverterContext, self: NetworkTensor, mat2: NetworkTensor) -> NetworkTensor:
    """``bmm(Tensor self, Tensor mat2) -> Tensor``: a matrix multiply layer."""
    return ctx.matmul(self, mat2)


@converter(aten.mv.default, Domain(same_dtype("self", "vec"), dims(self="n k", vec="k"), self=MATRIX, vec=VECTOR))
def mv(ctx: ConverterContext, self: NetworkTensor, vec: NetworkTensor) -> NetworkTensor:
    """``mv(Tensor self, Tensor vec) -> Tensor``: the vector as a column."""
    return product(ctx, self, vec)


@converter(
    aten.dot.default, Domain(same_dtype("self", "tensor"), dims(self="k", tensor="k"), self=VECTOR, tensor=VECTOR)
)
def dot(ctx: ConverterContext, self: NetworkTensor, tensor: NetworkTensor) -> NetworkTensor:
    """``dot(Tensor self, Tensor tensor) -> Tensor``: a row times a column."""
    return product(ctx, self, tensor)


def _fit_factors(call: dict[str, Any], choose: Choose) -> None:
    left, right = call["self"].shape, call["other"].shape
    batch = max(left[:-2], right[:-2], key=len)

    def leading(shape: tuple[int, ...]) -> tuple[int, ...]:
        tail = batch[len(batch) - len(shape[:-2]) :]
        return tuple(1 if choose.integer(0, 3) == 0 else size for size in tail)

    call["self"] = call["self"]._replace(shape=leading(left) + left[-2:])
    columns = right[-1:] if len(right) > 1 else ()
    call["other"] = call["other"]._replace(shape=leading(right) + left[-1:] + columns)


@converter(
    aten.matmul.default,
    Domain(
        same_dtype("self", "other"),
        Relation("shapes of a matrix product", ("self", "other"), arrange=_fit_factors),
        self=ARRAY,
        other=ARRAY,
    ),
)
def matmul(ctx: ConverterContext, self: NetworkTensor, other: NetworkTensor) -> NetworkTensor:
    """``matmul(Tensor self, Tensor other) -> Tensor``: a matrix multiply layer, vectors as a row or a column."""
    return product(ctx, self, other)


# --- products and a sum -----------------------------------------------------------------------------------------------


def _fit_weight(call: dict[str, Any], choose: Choose) -> None:
    rows, inner = call["weight"].shape[:-1], call["input"].shape[-1]
    call["weight"] = call["weight"]._replace(shape=(*rows, inner))
    if call["bias"] is not None:
        shape = rows if choose.integer(0, 3) else choose.one_of(((1,), (), (1, *rows))) if rows else ()
        call["bias"] = call["bias"]._replace(shape=shape) if rows or call["input"].rank == 1 else None


@converter(
    aten.linear.default,
    Domain(
        same_dtype("input", "weight", "bias"),
        Relation("shapes of a linear map", ("input", "weight", "bias"), arrange=_fit_weight),
        input=ARRAY,
        weight=Tensor(FLOATS, rank=(1, 2), because=FLOATS_ONLY),
        bias=Optional(Tensor(FLOATS, because=FLOATS_ONLY)),
    ),
)
def linear(
    ctx: ConverterContext, input: NetworkTensor, weight: NetworkTensor, bias: NetworkTensor | None = None
) -> NetworkTensor:
    """``linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor``: a product with the transpose, and a sum."""
    rows = _rows(ctx, input, weight)
    result = product(ctx, input if rows is None else ctx.reshape(input, rows), weight, transposed=True)
    if bias is not None:
        result = ctx.elementwise("SUM", result, ctx.squeeze(bias, [0] * (ctx.rank(bias) > ctx.rank(result))))
    return result if rows is None else ctx.reshape(result, [*ctx.sizes(input)[:-1], ctx.sizes(weight)[0]])


def _rows(ctx: ConverterContext, input: Any, weight: Any) -> list[int] | None:
    """The shape of the input as one matrix, where it is a batch of them and the weight a constant one.

    As one product of more rows, the linear maps of Stable Diffusion's UNet, a batch of two, make it 3 % faster on an
    H100; none of the other models that were tried becomes slower.
    """
    sizes = ctx.sizes(input)
    known = [size for size in sizes if isinstance(size, int)]
    if ctx.frozen(weight) is None or ctx.rank(weight) != 2 or len(known) < max(3, len(sizes)):
        return None
    *batch, rows, width = known
    count = math.prod(batch)
    return [count * rows, width] if count > 1 else None


def _offset(left: str, right: str) -> Relation:
    """`self` broadcasts to the shape of the product (eager demands it), and `alpha` times the product has a meaning."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        whole = (*call[left].shape[:-1], call[right].shape[-1])
        shape = whole[len(whole) - min(call["self"].rank, len(whole)) :]
        call["self"] = call["self"]._replace(shape=tuple(1 if choose.integer(0, 3) == 0 else size for size in shape))
        if not call[left].dtype.is_floating_point:  # eager then takes integer factors only; 0 would drop the product
            call["alpha"], call["beta"] = choose.integer(1, 2), 1
        elif choose.integer(0, 5) == 0:  # of nothing, too, of which the product is 0 all the same
            call["alpha"] = choose.one_of((math.inf, -math.inf))
            if choose.boolean():
                call[left] = call[left]._replace(shape=(*call[left].shape[:-1], 0))
                call[right] = call[right]._replace(shape=(*call[right].shape[:-2], 0, call[right].shape[-1]))
        if abs(call["beta"]) > 1:  # beta * self stays finite
            call["self"] = call["self"]._replace(values=(-100, 100))
        for name in (left, right):
            if not call[name].dtype.is_floating_point:  # eager takes any dtype where there is nothing to compute
                call[name] = call[name]._replace(shape=tuple(max(1, size) for size in call[name].shape))
            if call["alpha"] != 1:  # alpha * product neither overflows nor is 0 * inf, which is 0 or nan as kernels go
                call[name] = call[name]._replace(values=(1, 100))

    return Relation(f"self broadcastable to {left} @ {right}", ("self", left, right, "alpha"), None, arrange)


def _affine(ctx: ConverterContext, offset: Any, left: Any, right: Any, beta: float, alpha: float) -> NetworkTensor:
    """beta * offset + alpha * left @ right, the offset not looked at where beta is 0.

    Halves are widened where numbers take part, since eager rounds once. A product of nothing is 0, whatever alpha is.
    """
    dtype = ctx.dtype(left)
    wide = dtype if alpha == beta == 1 else torch.float32
    product = ctx.matmul(ctx.cast(left, wide), ctx.cast(right, wide))
    result = _times(ctx, product, alpha)
    terms = ctx.sizes(left)[-1]
    if not math.isfinite(alpha) and (not isinstance(terms, int) or terms == 0):
        empty = ctx.elementwise("EQUAL", ctx.size_tensor([terms]), 0)
        result = ctx.select(empty, product, result)
    if beta != 0:
        result = ctx.elementwise("SUM", result, _times(ctx, ctx.cast(offset, wide), beta))
    return ctx.cast(result, dtype)


def _times(ctx: ConverterContext, tensor: NetworkTensor, factor: float) -> NetworkTensor:
    return tensor if factor == 1 else ctx.elementwise("PROD", tensor, factor)


@converter(
    aten.addmm.default,
    Domain(
        same_dtype("mat1", "mat2", "self"),
        dims(mat1="n k", mat2="k m"),
        _offset("mat1", "mat2"),
        self=Tensor(FLOATS, because=FLOATS_ONLY),
        mat1=MATRIX,
        mat2=MATRIX,
        beta=Static(),
        alpha=Static(),
    ),
)
def addmm(
    ctx: ConverterContext,
    self: NetworkTensor,
    mat1: NetworkTensor,
    mat2: NetworkTensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> NetworkTensor:
    """``addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor``: product and sum."""
    return _affine(ctx, self, mat1, mat2, beta, alpha)


@converter(
    aten.baddbmm.default,
    Domain(
        same_dtype("batch1", "batch2", "self"),
        dims(batch1="b n k", batch2="b k m"),
        _offset("batch1", "batch2"),
        self=Tensor(FLOATS, because=FLOATS_ONLY),
        batch1=BATCH,
        batch2=BATCH,
        beta=Static(),
        alpha=Static(),
    ),
)
def baddbmm(
    ctx: ConverterContext,
    self: NetworkTensor,
    batch1: NetworkTensor,
    batch2: NetworkTensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> NetworkTensor:
    """``baddbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> Tensor``: as addmm."""
    return _affine(ctx, self, batch1, batch2, beta, alpha)


CONVERTERS: tuple[Converter, ...] = (mm, bmm, mv, dot, matmul, linear, addmm, baddbmm)
