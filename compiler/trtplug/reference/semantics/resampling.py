"""Resize and grid sample."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from trtplug.reference.semantics.checks import ints

_ROUND: dict[str, Callable[[Tensor], Tensor]] = {
    "FLOOR": torch.floor,
    "CEIL": torch.ceil,
    "HALF_UP": lambda c: torch.floor(c + 0.5),
    "HALF_DOWN": lambda c: torch.ceil(c - 0.5),
}


def _coordinates(size: int, out: int, ratio: float, transformation: str, upper: bool, x: Tensor) -> Tensor:
    """Where in the input each output element lies, float32 [out]; `ratio` is input elements per output element.

    In float32 as TensorRT does: a coordinate just below a whole number may round up to it.
    """
    o = torch.arange(out, dtype=torch.float32, device=x.device)
    if upper and out == 1:
        return o * 0
    if transformation == "ASYMMETRIC":
        return o * ratio
    if transformation == "HALF_PIXEL":
        return (o + 0.5) * ratio - 0.5
    return o * ((size - 1) / (out - 1) if out > 1 else 0.0)  # ALIGN_CORNERS


def _cubic_weights(t: Tensor, a: float) -> list[Tensor]:
    """Weights of the taps at -1, 0, 1, 2 for a fraction t (Keys, 1981)."""

    def near(z: Tensor) -> Tensor:
        return ((a + 2) * z - (a + 3)) * z * z + 1

    def far(z: Tensor) -> Tensor:
        return ((a * z - 5 * a) * z + 8 * a) * z - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _interpolated(x: Tensor, axis: int, place: Tensor, cubic: float | None, exclude_outside: bool) -> Tensor:
    size = x.shape[axis]
    base = torch.floor(place)
    t = (place - base).to(x.dtype)
    weights = [1 - t, t] if cubic is None else _cubic_weights(t, cubic)
    taps = [base.long() + offset for offset in ((0, 1) if cubic is None else (-1, 0, 1, 2))]
    if exclude_outside:
        weights = [torch.where((tap >= 0) & (tap < size), w, 0) for tap, w in zip(taps, weights)]
        total = torch.stack(weights).sum(0)
        weights = [w / total for w in weights]
    along = [1] * x.dim()
    along[axis] = -1
    parts = [x.index_select(axis, tap.clamp(0, size - 1)) * w.reshape(along) for tap, w in zip(taps, weights)]
    return torch.stack(parts).sum(0)


def resize(
    x: Tensor,
    size: list[int] | Tensor | None,
    scales: list[float] | None,
    mode: str,
    transformation: str,
    rounding: str,
    single_upper: bool,
    exclude_outside: bool,
    cubic: float,
) -> Tensor:
    """RESIZE, one axis after the other.

    Where:
        size: output size of each axis, or None where `scales` are given: floor(input size * scale), and the scale
            itself (not the ratio of sizes) in the coordinates.
        mode: NEAREST (any dtype), LINEAR or CUBIC; transformation: ASYMMETRIC, HALF_PIXEL or ALIGN_CORNERS.
        rounding: of NEAREST coordinates: FLOOR, CEIL, HALF_UP or HALF_DOWN.
        single_upper: a lone output element reads from coordinate 0.
    """
    sizes = [math.floor(n * s) for n, s in zip(x.shape, scales or [])] if size is None else ints(size)
    for axis, out in enumerate(sizes):
        extent = x.shape[axis]
        ratio = 1 / scales[axis] if scales else extent / max(out, 1)
        if out == extent and ratio == 1:
            continue
        if extent == 0:
            raise ValueError(f"cannot resize axis {axis} of {list(x.shape)}, which is empty")
        place = _coordinates(extent, out, ratio, transformation, single_upper, x)
        if mode == "NEAREST":
            x = x.index_select(axis, _ROUND[rounding](place).long().clamp(0, extent - 1))
        else:
            x = _interpolated(x, axis, place, cubic if mode == "CUBIC" else None, exclude_outside)
    return x


def grid_sample(x: Tensor, grid: Tensor, mode: str, padding: str, align_corners: bool) -> Tensor:
    """GRID_SAMPLE of [N, C, H, W] at [N, H', W', 2], or one axis more, in Torch's terms (bilinear …, zeros …)."""
    return functional.grid_sample(x, grid, mode, padding, align_corners)
