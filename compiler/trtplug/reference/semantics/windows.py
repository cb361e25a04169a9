"""Sliding windows over the spatial axes (all after the first two): convolution, deconvolution, pooling."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from trtplug.reference.semantics.layout import flat_padding

Pads = tuple[list[int], list[int]]


def _same_padding(x: Tensor, window: list[int], stride: list[int], upper: bool) -> Pads:
    """Padding that makes ceil(size / stride) outputs; the odd one goes after (upper) or before."""
    totals = [max(0, (-(-n // s) - 1) * s + w - n) for n, w, s in zip(x.shape[2:], window, stride)]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (small, large) if upper else (large, small)


def _overhang(x: Tensor, pads: Pads, window: list[int], stride: list[int]) -> list[int]:
    """How far the last window sticks out where the number of outputs is rounded up."""
    sizes = [n + a + b for n, a, b in zip(x.shape[2:], *pads)]
    return [max(0, -(-(n - w) // s) * s + w - n) for n, w, s in zip(sizes, window, stride)]


def _padding(x: Tensor, mode: str, pre: list[int], post: list[int], window: list[int], stride: list[int]) -> Pads:
    if mode.startswith("SAME"):
        return _same_padding(x, window, stride, mode == "SAME_UPPER")
    return list(pre), list(post)


def convolution(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    stride: list[int],
    mode: str,
    pre: list[int],
    post: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """CONVOLUTION, 2-D or 3-D.

    Where:
        x: [N, C, …]; kernel: [K, C / groups, …]; bias: [K].
        mode: EXPLICIT_ROUND_DOWN, EXPLICIT_ROUND_UP (both with pre and post), SAME_UPPER or SAME_LOWER.
    """
    window = [(k - 1) * d + 1 for k, d in zip(kernel.shape[2:], dilation)]
    before, after = _padding(x, mode, pre, post, window, stride)
    if mode == "EXPLICIT_ROUND_UP":
        after = [a + b for a, b in zip(after, _overhang(x, (before, after), window, stride))]
    convolve = functional.conv2d if len(window) == 2 else functional.conv3d
    if before == after:
        return convolve(x, kernel, bias, stride, before, dilation, groups)
    return convolve(functional.pad(x, flat_padding(before, after)), kernel, bias, stride, 0, dilation, groups)


def deconvolution(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    stride: list[int],
    mode: str,
    pre: list[int],
    post: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """DECONVOLUTION, 2-D or 3-D: the full result cropped by the padding; SAME modes leave size * stride elements.

    Where:
        x: [N, C, …]; kernel: [C, K / groups, …]; bias: [K].
    """
    deconvolve = functional.conv_transpose2d if kernel.dim() == 4 else functional.conv_transpose3d
    y = deconvolve(x, kernel, None, stride, 0, 0, groups, dilation)
    if mode.startswith("SAME"):
        extra = [full - n * s for full, n, s in zip(y.shape[2:], x.shape[2:], stride)]
        small, large = [e // 2 for e in extra], [e - e // 2 for e in extra]
        pre, post = (small, large) if mode == "SAME_UPPER" else (large, small)
    y = functional.pad(y, flat_padding([-p for p in pre], [-p for p in post]))
    return y if bias is None else y + bias.reshape([1, -1] + [1] * (y.dim() - 2))


def _slide(pool: Callable[..., Tensor], x: Tensor, window: list[int], stride: list[int]) -> Tensor:
    """One of Torch's pooling functions on each channel by itself, since they take no tensor without channels."""
    y = pool(x.flatten(0, 1).unsqueeze(1), window, stride)
    return y.reshape(*x.shape[:2], *y.shape[2:])


def _max(x: Tensor, pads: Pads, window: list[int], stride: list[int]) -> Tensor:
    pool = functional.max_pool2d if len(window) == 2 else functional.max_pool3d
    return _slide(pool, functional.pad(x, flat_padding(*pads), value=-torch.inf), window, stride)


def _average(x: Tensor, pads: Pads, window: list[int], stride: list[int], inner: bool) -> Tensor:
    """Mean over each window, or (inner) over the part of it that lies on the input itself."""
    pool = functional.avg_pool2d if len(window) == 2 else functional.avg_pool3d
    mean = _slide(pool, functional.pad(x, flat_padding(*pads)), window, stride)
    if not inner or not any(pads[0] + pads[1]):
        return mean
    return mean / pool(functional.pad(torch.ones_like(x[:1, :1]), flat_padding(*pads)), window, stride)


def pooling(
    x: Tensor,
    kind: str,
    window: list[int],
    stride: list[int],
    mode: str,
    pre: list[int],
    post: list[int],
    excludes_padding: bool,
    blend: float,
) -> Tensor:
    """POOLING, 2-D or 3-D, of kind MAX, AVERAGE or MAX_AVERAGE_BLEND ((1 - blend) * max + blend * average).

    EXPLICIT_ROUND_UP keeps a last window that starts in the padding; what sticks out past it counts as padding.
    """
    before, after = _padding(x, mode, pre, post, window, stride)
    if mode == "EXPLICIT_ROUND_UP":
        after = [a + b for a, b in zip(after, _overhang(x, (before, after), window, stride))]
    if kind == "MAX":
        return _max(x, (before, after), window, stride)
    average = _average(x, (before, after), window, stride, excludes_padding)
    if kind == "AVERAGE":
        return average
    return (1 - blend) * _max(x, (before, after), window, stride) + blend * average
