"""Quantize and dequantize: per tensor, per axis and in blocks."""

from __future__ import annotations

import torch
from torch import Tensor

_RANGE = {"INT8": (-128, 127), "UINT8": (0, 255), "INT4": (-8, 7)}


def _spread(x: Tensor, coefficient: Tensor, axis: int, block: list[int] | None) -> Tensor:
    """A scale or zero point as float32, shaped to go with x: one number, or one per place on an axis or per block."""
    coefficient = coefficient.float()
    if block is not None:
        for place, times in enumerate(block):
            coefficient = coefficient.repeat_interleave(times, place)
        return coefficient
    if coefficient.dim() == x.dim() and coefficient.dim() > 1:  # blocks along the one axis on which the sizes differ
        for place, (n, s) in enumerate(zip(x.shape, coefficient.shape)):
            coefficient = coefficient.repeat_interleave(n // s, place)
        return coefficient
    if coefficient.numel() == 1:
        return coefficient.reshape(())
    along = [1] * x.dim()
    along[axis] = -1
    return coefficient.reshape(along)


def quantize(x: Tensor, scale: Tensor, zero: Tensor | None, axis: int, block: list[int] | None, to: str) -> Tensor:
    """QUANTIZE: clamp(round(x / scale) + zero), halves to even; FP8 saturates at 448.

    The quotient of float16 is rounded to float16 before that to an integer; that of bfloat16 is not, as a GPU does.

    Where:
        x: float32, float16 or bfloat16.
        to: INT8, UINT8, INT4 (held as int8) or FP8.
    """
    y = x.float() / _spread(x, scale, axis, block)
    y = y.half().float() if x.dtype is torch.float16 else y
    if to == "FP8":
        return y.clamp(-448, 448).to(torch.float8_e4m3fn)
    y = torch.round(y)
    y = y if zero is None else y + _spread(x, zero, axis, block)
    low, high = _RANGE[to]
    return y.clamp(low, high).to(torch.uint8 if to == "UINT8" else torch.int8)


def dequantize(
    x: Tensor, scale: Tensor, zero: Tensor | None, axis: int, block: list[int] | None, dtype: torch.dtype
) -> Tensor:
    """DEQUANTIZE: (x - zero) * scale, computed in float32, as `dtype`."""
    y = x.float()
    y = y if zero is None else y - _spread(x, zero, axis, block)
    return (y * _spread(x, scale, axis, block)).to(dtype)
