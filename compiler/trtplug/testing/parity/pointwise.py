"""The layer table: layers that treat every element alone, and casts."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from trtplug._tensorrt import library, trt_dtype
from trtplug.testing.parity.sketch import (
    ALL,
    F32,
    FLOATS,
    I32,
    I64,
    LayerCase,
    Sketch,
    line,
    ordinary,
    pairs,
    special_rows,
    table,
)  # fmt: skip

_CASTS = (*ALL, torch.int8, torch.uint8, torch.float8_e4m3fn)


def cases() -> Iterator[LayerCase]:
    trt = library()
    yield from table("unary", trt.UnaryOperation.__members__, ALL, _unary)
    yield from table("activation", trt.ActivationType.__members__, FLOATS, _activation)
    yield from table("elementwise", trt.ElementWiseOperation.__members__, ALL, _elementwise)
    yield from table("elementwise empty", ["SUM", "DIV", "MAX"], (F32, I64), _elementwise_empty)
    yield from table("unary empty", ["EXP", "ABS"], (F32,), _unary_empty)
    yield from table("cast", [str(dtype).removeprefix("torch.") for dtype in _CASTS], ALL, _cast)
    yield from table("select", ["broadcast"], ALL, _select)
    yield from table("identity", [""], ALL, _identity)
    yield from table("parametric_relu", [""], FLOATS, _parametric_relu)
    yield from table("scale", ["UNIFORM", "CHANNEL", "ELEMENTWISE"], FLOATS, _scale)
    yield from table("quantize", ["int8", "float8_e4m3fn"], FLOATS, _quantize)


def _unary(s: Sketch, mode: str) -> None:
    s.output(s.add("unary", s.input(line(s.dtype)), s.enum("UnaryOperation", mode)).get_output(0))


def _unary_empty(s: Sketch, mode: str) -> None:
    s.output(s.add("unary", s.input(line(s.dtype)[:0]), s.enum("UnaryOperation", mode)).get_output(0))


def _activation(s: Sketch, mode: str) -> None:
    x = s.input(line(s.dtype))
    s.output(s.add("activation", x, s.enum("ActivationType", mode), alpha=0.5, beta=1.25).get_output(0))


def _elementwise(s: Sketch, mode: str) -> None:
    left, right = pairs(s.dtype)
    if mode in ("DIV", "FLOOR_DIV") and s.dtype in (I32, I64):
        left, right = left[right != 0], right[right != 0]
    if mode == "POW" and s.dtype in (I32, I64):
        left, right = left.clamp(-7, 7), right.clamp(0, 5)
    operation = s.enum("ElementWiseOperation", mode)
    s.output(s.add("elementwise", s.input(left), s.input(right), operation).get_output(0))


def _elementwise_empty(s: Sketch, mode: str) -> None:
    x, y = s.input(torch.ones(0, 3, dtype=s.dtype)), s.input(torch.ones(1, 3, dtype=s.dtype))
    s.output(s.add("elementwise", x, y, s.enum("ElementWiseOperation", mode)).get_output(0))


def _cast(s: Sketch, mode: str) -> None:
    to = getattr(torch, mode)
    values = line(s.dtype)
    if s.dtype.is_floating_point and not to.is_floating_point:
        far = torch.tensor([3e9, -3e9, 1e30, -1e30, 65519.0, 65520.0, 200.0, -200.0, 300.0], dtype=torch.float64)
        values = torch.cat([values, far.to(s.dtype)])
    x = s.input(values)
    s.output(s.add("cast", x, trt_dtype(to)).get_output(0))


def _select(s: Sketch, mode: str) -> None:
    values = line(s.dtype)[None]
    condition = s.input(torch.arange(values.shape[1])[None] % 2 == 0)
    other = ordinary(s.dtype, 3, 1)
    s.output(s.add("select", condition, s.input(values), s.input(other)).get_output(0))


def _identity(s: Sketch, mode: str) -> None:
    s.output(s.add("identity", s.input(line(s.dtype))).get_output(0))


def _parametric_relu(s: Sketch, mode: str) -> None:
    x = s.input(special_rows(s.dtype))
    s.output(s.add("parametric_relu", x, s.constant([[0.5, -1.0, 0.0, 2.0]], s.dtype)).get_output(0))


def _scale(s: Sketch, mode: str) -> None:
    shape = {"UNIFORM": (1,), "CHANNEL": (3,), "ELEMENTWISE": (3, 4, 4)}[mode]
    x = s.input(ordinary(s.dtype, 1 if mode == "ELEMENTWISE" else 2, 3, 4, 4))
    names = ("shift", "scale", "power")
    values = [ordinary(s.dtype, *shape, seed=1), ordinary(s.dtype, *shape, seed=2), torch.ones(shape, dtype=s.dtype)]
    made = [s.weights(f"network.scale.{name}", value) for name, value in zip(names, values)]
    s.output(s.add("scale", x, s.enum("ScaleMode", mode), *made).get_output(0))


def _quantize(s: Sketch, mode: str) -> None:
    scale = s.constant(0.1, s.dtype)
    x = s.input(torch.cat([line(s.dtype), torch.tensor([0.05, 0.15, 0.25, -0.05, -0.15, 50.0], dtype=s.dtype)]))
    quantized = s.add("quantize", x, scale, trt_dtype(getattr(torch, mode))).get_output(0)
    s.output(s.add("dequantize", quantized, scale, trt_dtype(s.dtype)).get_output(0))
