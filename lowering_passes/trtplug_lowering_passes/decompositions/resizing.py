"""Antialiased resizing: a matrix product along each axis, with weights that are known where the sizes are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table, constant

aten = torch.ops.aten

Kernel = Callable[[float], float]


def _triangle(x: float) -> float:
    return max(0.0, 1 - abs(x))


def _cubic(x: float) -> float:
    """Keys' cubic with a = -1/2."""
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def _weights(kernel: Kernel, reach: int, size: int, out: int, step: float) -> list[list[float]]:
    """Of each of `out` elements what it takes of each of `size` elements, `step` of which make one: rows of sum 1.

    Where one element stands for several, the kernel, which reaches so far, is stretched over them.
    """
    stretch = max(step, 1.0)
    rows = []
    for place in range(out):
        center, support = step * (place + 0.5), reach * stretch
        first, last = max(0, int(center - support + 0.5)), min(size, int(center + support + 0.5))
        row = [kernel((each + 0.5 - center) / stretch) if first <= each < last else 0.0 for each in range(size)]
        whole = sum(row)
        rows.append([weight / whole if whole else 0.0 for weight in row])
    return rows


def _step(size: int, out: int, align_corners: bool, scale: float | None) -> float:
    """How many elements of the input make one of the output."""
    if align_corners:
        return (size - 1) / (out - 1) if out > 1 else 0.0
    return 1 / scale if scale else size / out


def _antialiased(kernel: Kernel, reach: int) -> Callable[..., Tensor]:
    def resize(
        self: Tensor,
        output_size: Sequence[int],
        align_corners: bool,
        scales_h: float | None = None,
        scales_w: float | None = None,
    ) -> Tensor:
        """[N, C, H, W] to [N, C, *output_size]; the sizes are static."""
        x = self
        for axis, out, scale in ((-1, output_size[1], scales_w), (-2, output_size[0], scales_h)):
            size = self.size(axis)
            if not isinstance(size, int) or not isinstance(out, int):
                raise NotImplementedError("the weights depend on the sizes")
            weights = _weights(kernel, reach, size, out, _step(size, out, align_corners, scale))
            taken = constant(weights, self, self.dtype)
            x = torch.matmul(x, taken.mT) if axis == -1 else torch.matmul(taken, x)
        return x

    return resize


TABLE: Table = {
    aten._upsample_bilinear2d_aa.default: _antialiased(_triangle, 1),
    aten._upsample_bicubic2d_aa.default: _antialiased(_cubic, 2),
}
