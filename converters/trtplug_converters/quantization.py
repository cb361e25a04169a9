"""Quantize and dequantize: the ops of ``quantized_decomposed``, which exported PT2E models are made of.

Symmetric int8 becomes TensorRT's own quantize and dequantize layers, which it fuses into int8 kernels. A zero point, or
a range other than that of int8, is written in float32 exactly as eager computes it: right, though not fast.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from trtplug_converters._shared import widened
from trtplug_converters.cast import computed_bytes
from trtplug_registry import (
    ALL,
    FLOATS,
    INTS,
    Axis,
    Choose,
    Converter,
    ConverterContext,
    Domain,
    NetworkTensor,
    Only,
    Optional,
    Relation,
    Static,
    Tensor,
    Tolerance,
    converter,
)

NEEDS = ("INetworkDefinition.add_quantize", "INetworkDefinition.add_dequantize")
"""What is there in every TensorRT that is supported; versions that have the layers but cannot build them say so."""

FULL = (-128, 127)

# --- the arithmetic ---------------------------------------------------------------------------------------------------


def quantized(
    ctx: ConverterContext, x: NetworkTensor, scale: Any, zero: Any, low: Any, high: Any, axis: int | None = None
) -> NetworkTensor:
    """``clamp(round(x / scale) + zero, low, high)`` as int8, halves to even.

    Scale and zero are numbers or tensors: of one element, or with `axis` of one for each place on it.
    """
    if _is_zero(ctx, zero) and (low, high) == FULL and ctx.rank(x) > 0 and _known_sizes(ctx, x, scale, axis):
        where: dict[str, Any] = {} if axis is None else {"axis": axis % ctx.rank(x)}
        return ctx.add("quantize", x, _tensor(ctx, scale), ctx.trt.DataType.INT8, **where).get_output(0)
    # by the inverse, as eager does it
    inverse = 1.0 / scale if isinstance(scale, float) else ctx.elementwise("DIV", 1.0, scale)
    steps = ctx.unary("ROUND", ctx.elementwise("PROD", ctx.cast(x, torch.float32), _along(ctx, inverse, x, axis)))
    if not _is_zero(ctx, zero):
        steps = ctx.elementwise("SUM", steps, _along(ctx, _float(ctx, zero), x, axis))
    steps = ctx.elementwise("MAX", steps, _float(ctx, low))
    return ctx.cast(ctx.elementwise("MIN", steps, _float(ctx, high)), torch.int8)


def dequantized(
    ctx: ConverterContext, q: NetworkTensor, scale: Any, zero: Any, dtype: torch.dtype, axis: int | None = None
) -> NetworkTensor:
    """``(q - zero) * scale`` of int8, unsigned bytes or float8, in `dtype`; arguments as in `quantized`.

    Scales along an axis that are no constants are no layer's: TensorRT-RTX 1.6 takes one for another on a GPU.
    """
    layered = ctx.dtype(q) != torch.uint8
    known = axis is None or (ctx.frozen(scale) is not None and _known_sizes(ctx, q, scale, axis))
    if layered and _is_zero(ctx, zero) and known:
        return _layer(ctx, q, _tensor(ctx, scale), dtype, None if axis is None else axis % ctx.rank(q))
    # a constant of int8 can only be dequantized; by 1, that changes nothing
    difference = _layer(ctx, q, ctx.constant(1.0), torch.float32) if layered else ctx.cast(q, torch.float32)
    if not _is_zero(ctx, zero):
        difference = ctx.elementwise("SUB", difference, _along(ctx, _float(ctx, zero), q, axis))
        if axis is None:  # where eager subtracts in the result's dtype
            difference = ctx.cast(ctx.cast(difference, dtype), torch.float32)
    return ctx.cast(ctx.elementwise("PROD", difference, _along(ctx, scale, q, axis)), dtype)


def _layer(
    ctx: ConverterContext, q: NetworkTensor, scale: NetworkTensor, dtype: torch.dtype, axis: int | None = None
) -> NetworkTensor:
    names = {torch.float32: "FLOAT", torch.float16: "HALF", torch.bfloat16: "BF16"}
    where: dict[str, Any] = {} if axis is None else {"axis": axis}
    return ctx.add("dequantize", q, scale, getattr(ctx.trt.DataType, names[dtype]), **where).get_output(0)


def _is_zero(ctx: ConverterContext, zero: Any) -> bool:
    if zero is None or isinstance(zero, int):
        return not zero
    value = ctx.frozen(zero)
    return value is not None and not bool(value.any())


def _known_sizes(ctx: ConverterContext, x: NetworkTensor, scale: Any, axis: int | None) -> bool:
    """A layer takes one scale for each place on an axis only where it knows how many there are of both."""
    return axis is None or all(isinstance(size, int) for size in (ctx.sizes(x)[axis], *ctx.sizes(scale)))


def _tensor(ctx: ConverterContext, scale: Any) -> NetworkTensor:
    return ctx.constant(scale, torch.float32) if isinstance(scale, float) else scale


def _float(ctx: ConverterContext, value: Any) -> Any:
    return float(value) if isinstance(value, int) else ctx.cast(value, torch.float32)


def _along(ctx: ConverterContext, coefficient: Any, x: NetworkTensor, axis: int | None) -> Any:
    """``[C]`` as ``[1, C, 1, ...]``, to go with an axis; a number or one element as it is."""
    if axis is None or isinstance(coefficient, float):
        return coefficient
    rank = ctx.rank(x)
    return ctx.unsqueeze(coefficient, [place for place in range(rank) if place != axis % rank])


# --- domains ----------------------------------------------------------------------------------------------------------

FINITE = Tensor(FLOATS, values=(-1e30, 1e30))
INT8 = Only(torch.int8, because="TensorRT quantizes to int8, and an engine takes unsigned bytes in but makes none")
QUANTIZED = (torch.int8, torch.uint8, torch.float8_e4m3fn)
STORED = Tensor(QUANTIZED, because="TensorRT dequantizes int8 and float8_e4m3fn, and has no integers of 16 bits")
GRID = {"quant_min": Static(), "quant_max": Static()}
RESULT = Optional(Only(*FLOATS, because="TensorRT has no float64"))
VECTOR = Tensor((torch.float32,), rank=(1, 1), values=(2.0**-10, 8.0))
ZEROS = Tensor(ALL, rank=(1, 1), values=(-128, 127))
EXACT_ZEROS = Tensor(
    (*INTS, torch.float32), rank=(1, 1), values=(-128, 127), because="eager rounds the difference to a half zero point"
)
STEP = {
    torch.int8: Tolerance(0, 1, "TensorRT divides by the scale, eager multiplies by its inverse: a tie goes either way")
}


def within_int8() -> Relation:
    """Eager demands that the limits lie within the dtype."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        low = choose.one_of([-128, -127, choose.integer(-128, 127)])
        call["quant_min"], call["quant_max"] = low, choose.one_of([127, choose.integer(low, 127)])

    return Relation("limits within the dtype", ("quant_min", "quant_max"), None, arrange)


def dtype_of_input() -> Relation:
    """Eager demands that the dtype and the limits are those of input, and reads neither."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        call["dtype"] = call["input"].dtype
        limits = {torch.uint8: (0, 255), torch.float8_e4m3fn: (-448, 448)}
        call["quant_min"], call["quant_max"] = limits.get(call["dtype"], FULL)

    return Relation("the dtype of input", ("dtype", "input", "quant_min", "quant_max"), None, arrange)


def per_channel() -> Relation:
    """One scale and one zero point for each place on the axis, which eager counts from the start."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        input = call["input"]
        if input.rank == 0:
            call["input"] = input = input._replace(shape=(choose.integer(1, 3),))
        call["axis"] = call["axis"] % input.rank
        for name in ("scales", "zero_points"):
            if call[name] is not None:
                call[name] = call[name]._replace(shape=(input.shape[call["axis"]],))

    return Relation("one element for each place on axis", ("scales", "zero_points", "axis", "input"), None, arrange)


# --- per tensor -------------------------------------------------------------------------------------------------------


def _some_scale(call: dict[str, Any], choose: Choose) -> None:
    call["scale"] = call["scale"] or 0.5


@converter(
    "quantized_decomposed::quantize_per_tensor",
    Domain(
        within_int8(),
        Relation("a scale to divide by", ("scale",), arrange=_some_scale),
        input=FINITE,
        scale=Static(),
        zero_point=Static(),
        **GRID,
        dtype=INT8,
    ),
    needs=NEEDS,
    tolerance=STEP,
)
def quantize_per_tensor(
    ctx: ConverterContext, input: Any, scale: float, zero_point: int, quant_min: int, quant_max: int, dtype: Any
) -> NetworkTensor:
    """quantize_per_tensor(Tensor input, float scale, int zero_point, int quant_min, int quant_max, ScalarType dtype)
    -> Tensor
    """
    return quantized(ctx, input, scale, zero_point, quant_min, quant_max)


@converter(
    "quantized_decomposed::dequantize_per_tensor",
    Domain(
        dtype_of_input(),
        computed_bytes("input"),
        input=STORED,
        scale=Static(),
        zero_point=Static(),
        **GRID,
        dtype=Only(*QUANTIZED),
        out_dtype=RESULT,
    ),
    needs=NEEDS,
)
def dequantize_per_tensor(
    ctx: ConverterContext,
    input: Any,
    scale: float,
    zero_point: int,
    quant_min: int,
    quant_max: int,
    dtype: Any,
    *,
    out_dtype: Any = None,
) -> NetworkTensor:
    """dequantize_per_tensor(Tensor input, float scale, int zero_point, int quant_min, int quant_max, ScalarType dtype,
    *, ScalarType? out_dtype=None) -> Tensor
    """
    return dequantized(ctx, input, scale, zero_point, ctx.outputs[0].dtype)


# --- per channel ------------------------------------------------------------------------------------------------------


@converter(
    "quantized_decomposed::quantize_per_channel",
    Domain(
        per_channel(),
        within_int8(),
        input=FINITE,
        scales=VECTOR,
        zero_points=ZEROS,
        axis=Axis("input"),
        **GRID,
        dtype=INT8,
    ),
    needs=NEEDS,
    tolerance=STEP,
)
def quantize_per_channel(
    ctx: ConverterContext,
    input: Any,
    scales: Any,
    zero_points: Any,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: Any,
) -> NetworkTensor:
    """quantize_per_channel(Tensor input, Tensor scales, Tensor zero_points, int axis, int quant_min, int quant_max,
    ScalarType dtype) -> Tensor
    """
    return quantized(ctx, input, scales, zero_points, quant_min, quant_max, axis)


@converter(
    "quantized_decomposed::dequantize_per_channel",
    Domain(
        per_channel(),
        dtype_of_input(),
        computed_bytes("input"),
        input=dataclasses.replace(STORED, dtypes=QUANTIZED[:2]),
        scales=VECTOR,
        zero_points=Optional(EXACT_ZEROS),
        axis=Axis("input"),
        **GRID,
        dtype=Only(*QUANTIZED[:2]),
        out_dtype=RESULT,
    ),
    needs=NEEDS,
)
def dequantize_per_channel(
    ctx: ConverterContext,
    input: Any,
    scales: Any,
    zero_points: Any,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: Any,
    *,
    out_dtype: Any = None,
) -> NetworkTensor:
    """dequantize_per_channel(Tensor input, Tensor scales, Tensor? zero_points, int axis, int quant_min, int quant_max,
    ScalarType dtype, *, ScalarType? out_dtype=None) -> Tensor
    """
    return dequantized(ctx, input, scales, zero_points, ctx.outputs[0].dtype, axis)


# --- float8 -----------------------------------------------------------------------------------------------------------


def one_scale() -> Relation:
    def holds(call: Any) -> bool:
        return all(type(size) is int and size == 1 for size in call["scale"].shape)

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        call["scale"] = call["scale"]._replace(shape=(1,) * min(call["scale"].rank, call["tensor"].rank))

    return Relation(
        "one scale for the tensor",
        ("scale", "tensor"),
        holds,
        arrange,
        "a layer has one scale, or some along an axis",
    )


def scale_of_axis() -> Relation:
    def holds(call: Any) -> bool:
        scale, tensor = call["scale"], call["tensor"]
        axes = _split(scale.shape)
        if not axes:
            return True
        return len(axes) == 1 and scale.rank == tensor.rank and scale.shape[axes[0]] == tensor.shape[axes[0]]

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        shape = call["tensor"].shape
        axis = choose.integer(-1, len(shape) - 1)
        sizes = [size if place == axis else 1 for place, size in enumerate(shape)]
        call["scale"] = call["scale"]._replace(shape=tuple(sizes))

    return Relation(
        "one scale for the tensor, or one for each place on one axis",
        ("scale", "tensor"),
        holds,
        arrange,
        "a layer has one scale, or some along an axis",
    )


def _split(shape: Any) -> list[int]:
    """The axes on which there is more than one scale, or may be."""
    return [axis for axis, size in enumerate(shape) if type(size) is not int or size != 1]


@converter(
    "torchao::quantize_affine_float8_non_decomposed",
    Domain(
        one_scale(),
        tensor=dataclasses.replace(FINITE, rank=(1, 8), because="TensorRT quantizes tensors of at least one dimension"),
        scale=Tensor((torch.float32,), values=(2.0**-10, 8.0)),
        float8_dtype=Only(torch.float8_e4m3fn, 24, because="TensorRT's float8 is e4m3fn"),
    ),
    needs=(*NEEDS, "DataType.FP8"),
)
def quantize_float8(ctx: ConverterContext, tensor: Any, scale: Any, float8_dtype: Any = 24) -> NetworkTensor:
    """quantize_affine_float8_non_decomposed(Tensor tensor, Tensor scale, ScalarType float8_dtype=24) -> Tensor

    Saturates at 448. (The schema spells float8_e4m3fn 24. TensorRT rounds quotients of halves once more than eager.)
    """
    return ctx.add("quantize", widened(ctx, tensor), ctx.reshape(scale, ()), ctx.trt.DataType.FP8).get_output(0)


@converter(
    "torchao::dequantize_affine_float8_non_decomposed",
    Domain(
        scale_of_axis(),
        tensor=Tensor((torch.float8_e4m3fn,), because="TensorRT's float8 is e4m3fn"),
        scale=Tensor((torch.float32,), values=(2.0**-10, 8.0)),
        output_dtype=Only(6, *FLOATS, because="TensorRT has no float64"),
    ),
    needs=(*NEEDS, "DataType.FP8"),
)
def dequantize_float8(ctx: ConverterContext, tensor: Any, scale: Any, output_dtype: Any = 6) -> NetworkTensor:
    """dequantize_affine_float8_non_decomposed(Tensor tensor, Tensor scale, ScalarType output_dtype=float) -> Tensor

    (The schema spells float32 6.)
    """
    axes = _split(ctx.sizes(scale))
    shape = tuple(ctx.sizes(scale)[axis] for axis in axes)
    return _layer(ctx, tensor, ctx.reshape(scale, shape), ctx.outputs[0].dtype, axes[0] if axes else None)


CONVERTERS: tuple[Converter, ...] = (
    quantize_per_tensor,
    dequantize_per_tensor,
    quantize_per_channel,
    dequantize_per_channel,
    quantize_float8,
    dequantize_float8,
)
