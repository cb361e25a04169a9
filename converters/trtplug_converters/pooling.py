"""Maximum and average pooling, over windows and adaptive, in one to three spatial dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from trtplug_converters._shared import spread, static_axes, widened, with_spatial_axes
from trtplug_registry import (
    FLOATS,
    Call,
    Choose,
    Converter,
    ConverterContext,
    Domain,
    ListOf,
    NetworkTensor,
    Only,
    Optional,
    OutputsUsed,
    Relation,
    Spec,
    Static,
    Tensor,
    Tolerance,
    converter,
)

aten = torch.ops.aten

FLOATS_ONLY = {"dtypes": "TensorRT pools floats only"}


class Windows(NamedTuple):
    """How the windows lie, one entry per spatial axis."""

    kernel: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    ceil_mode: bool


def _windows(axes: int, kernel: Any, stride: Any, padding: Any, ceil_mode: bool) -> Windows:
    kernel = spread(kernel, axes)
    return Windows(kernel, spread(stride, axes) if stride else kernel, spread(padding, axes), ceil_mode)


# --- the layer --------------------------------------------------------------------------------------------------------


def _never_drops(windows: Windows) -> bool:
    """Whether with ceil_mode every last window starts before the padding at the end, for whatever size.

    There Torch drops the last window and TensorRT keeps it.
    """
    return all(s + p <= k for k, s, p in zip(*windows[:3], strict=True))


def _static_sizes(ctx: ConverterContext, tensor: NetworkTensor, windows: Windows) -> list[int]:
    """The sizes of the spatial axes, static where the domain needs them to be."""
    return [size for size in ctx.sizes(tensor)[-len(windows.kernel) :] if isinstance(size, int)]


def _end_padding(ctx: ConverterContext, input: NetworkTensor, windows: Windows) -> list[int]:
    """Padding at the end of each axis with which as many windows fit, rounded down, as Torch has with ceil_mode."""
    ends = []
    for size, k, s, p in zip(_static_sizes(ctx, input, windows), *windows[:3], strict=True):
        count = -(-(size + 2 * p - k) // s)
        count -= count * s >= size + p
        ends.append(max(p, count * s + k - size - p))
    return ends


def _pooled(
    ctx: ConverterContext, kind: str, input: Any, windows: Windows, end: Sequence[int] | None, **attributes: Any
) -> NetworkTensor:
    """A pooling layer, of at least two spatial axes; without `end`, rounded up where ceil_mode says so."""
    kernel, stride, padding, ceil_mode = windows
    given, added = with_spatial_axes(ctx, input, len(kernel))
    unit, zero = ([1], [0]) if len(kernel) == 1 else ([], [])
    mode = "EXPLICIT_ROUND_UP" if ceil_mode and end is None else "EXPLICIT_ROUND_DOWN"
    layer = ctx.add(
        "pooling_nd",
        given,
        getattr(ctx.trt.PoolingType, kind),
        (*unit, *kernel),
        stride_nd=(*unit, *stride),
        pre_padding=(*zero, *padding),
        post_padding=(*zero, *(padding if end is None else end)),
        padding_mode=getattr(ctx.trt.PaddingMode, mode),
        **attributes,
    )
    return ctx.squeeze(layer.get_output(0), added)


def _end(ctx: ConverterContext, input: NetworkTensor, windows: Windows) -> list[int] | None:
    """None where TensorRT's own way of rounding up has as many windows as Torch's."""
    return _end_padding(ctx, input, windows) if windows.ceil_mode and not _never_drops(windows) else None


def _maximum(ctx: ConverterContext, input: NetworkTensor, windows: Windows) -> NetworkTensor:
    return _pooled(ctx, "MAX", input, windows, _end(ctx, input, windows))


def _counts_overhang(windows: Windows, include_pad: bool) -> bool:
    """Whether TensorRT counts what sticks out past the padding at the end, which Torch does not."""
    return windows.ceil_mode and include_pad and any(windows.padding)


def _average(
    ctx: ConverterContext, input: NetworkTensor, windows: Windows, include_pad: bool, divisor: int | None
) -> NetworkTensor:
    """The layer's own average where its divisors are Torch's; else the mean over whole windows, in float32, scaled."""
    end = _end(ctx, input, windows)
    if divisor is None and not _counts_overhang(windows, include_pad):
        inner = not include_pad or not any(windows.padding)
        return _pooled(ctx, "AVERAGE", input, windows, end, average_count_excludes_padding=inner)
    wide = widened(ctx, input)
    mean = _pooled(ctx, "AVERAGE", wide, windows, end, average_count_excludes_padding=False)
    volume = math.prod(windows.kernel)
    scale = volume / divisor if divisor is not None else ctx.constant(volume / _counts(ctx, input, windows, mean))
    return ctx.cast(ctx.elementwise("PROD", mean, scale), ctx.dtype(input))


def _counts(ctx: ConverterContext, input: Any, windows: Windows, result: Any) -> torch.Tensor:
    """How many places of each window lie in the input or its padding, of the shape of the spatial axes."""
    counts = torch.ones(())
    sizes = (_static_sizes(ctx, tensor, windows) for tensor in (input, result))
    for size, count, k, s, p in zip(*sizes, *windows[:3], strict=True):
        start = torch.arange(count) * s - p
        counts = counts.unsqueeze(-1) * (torch.clamp(start + k, max=size + p) - start)
    return counts


# --- what a call looks like -------------------------------------------------------------------------------------------


def _fit_windows(axes: int) -> Callable[[dict[str, Any], Choose], None]:
    """Windows that fit into the padded input, and padding of at most half a window (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        kernel = [choose.integer(1, 3) for _ in range(axes)]
        stride = [choose.integer(1, 3) for _ in range(axes)] if choose.integer(0, 3) else []
        padding = [choose.integer(0, k // 2) for k in kernel]
        least = kernel if axes == 3 else [max(1, k - 2 * p) for k, p in zip(kernel, padding, strict=True)]
        sizes = [size + choose.integer(0, 4) for size in least]  # in 3-D eager leaves the padding out of account
        facts = call["self"]
        lead = facts.shape[: facts.rank - axes]
        call["self"] = facts._replace(shape=(*lead[:-1], max(1, lead[-1]), *sizes))
        alike = all(len(set(values)) < 2 for values in (kernel, stride, padding))
        cut = 1 if alike and choose.boolean() else axes
        if call.get("divisor_override") == 0:
            call["divisor_override"] = 5
        call.update(kernel_size=kernel[:cut], stride=stride[:cut], padding=padding[:cut])

    return arrange


def _rounds_alike(axes: int) -> Callable[[Call], bool]:
    def holds(call: Call) -> bool:
        if not call["ceil_mode"] or static_axes(call, "self", axes):
            return True
        windows = _windows(axes, call["kernel_size"], call["stride"], call["padding"], True)
        counts_overhang = _counts_overhang(windows, call.get("count_include_pad", False))
        return _never_drops(windows) and (call.get("divisor_override") is not None or not counts_overhang)

    return holds


def _domain(axes: int, *more: Any, **others: Spec) -> Domain:
    per_axis = ListOf(Static(1), shortest=1, longest=axes)
    return Domain(
        Relation("windows that fit into the input", ("self", "kernel_size"), arrange=_fit_windows(axes)),
        Relation(
            "with ceil_mode and symbolic sizes, stride + padding of at most the kernel, and no padding that counts",
            ("ceil_mode", "self", "kernel_size", "stride", "padding"),
            _rounds_alike(axes),
            because="TensorRT keeps a last window that starts in the padding, and counts what sticks out past it",
        ),
        *more,
        self=Tensor(FLOATS, rank=(axes + 1, axes + 2), because=FLOATS_ONLY),
        kernel_size=per_axis,
        stride=ListOf(Static(1), longest=axes),
        padding=ListOf(Static(0), shortest=1, longest=axes),
        ceil_mode=Only(False, True),
        **others,
    )


# --- converters -------------------------------------------------------------------------------------------------------


DIVISOR = Optional(Static())
NOT_DILATED = "TensorRT's pooling windows have no dilation"


def _max_pool(target: Any, axes: int, with_indices: bool) -> Converter:
    ones, zeros = [1] * axes, [0] * axes
    unused = [OutputsUsed((0,), because="TensorRT's pooling does not say where the maximum is")] * with_indices

    @converter(target, _domain(axes, *unused, dilation=ListOf(Only(1, because=NOT_DILATED), 1, axes)), keeps_nan=False)
    def max_pool(
        ctx: ConverterContext,
        self: NetworkTensor,
        kernel_size: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = zeros,
        dilation: Sequence[int] = ones,
        ceil_mode: bool = False,
    ) -> Any:
        """``max_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, ...) -> Tensor``."""
        result = _maximum(ctx, self, _windows(axes, kernel_size, stride, padding, ceil_mode))
        return (result, None) if with_indices else result

    return max_pool


def _avg_pool(target: Any, axes: int) -> Converter:
    zeros = [0] * axes

    @converter(target, _domain(axes, count_include_pad=Only(False, True), divisor_override=DIVISOR))
    def avg_pool(
        ctx: ConverterContext,
        self: NetworkTensor,
        kernel_size: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = zeros,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> NetworkTensor:
        """``avg_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, ...) -> Tensor``."""
        windows = _windows(axes, kernel_size, stride, padding, ceil_mode)
        return _average(ctx, self, windows, count_include_pad, divisor_override)

    return avg_pool


@converter(aten.avg_pool1d.default, _domain(1, count_include_pad=Only(False, True)))
def avg_pool1d(
    ctx: ConverterContext,
    self: NetworkTensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> NetworkTensor:
    """``avg_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0, ...) -> Tensor``."""
    return _average(ctx, self, _windows(1, kernel_size, stride, padding, ceil_mode), count_include_pad, None)


def _fit_output(call: dict[str, Any], choose: Choose) -> None:
    facts, axes = call["self"], len(call["output_size"])
    counts = [choose.integer(1, 3 if facts.rank <= axes + 2 else 1) for _ in range(axes)]
    sizes = [count * choose.integer(1, 3) for count in counts]
    lead = facts.shape[: facts.rank - axes]
    call["self"] = facts._replace(shape=(*lead[:-1], max(1, lead[-1]), *sizes))
    call["output_size"] = counts


def _divides(call: Call) -> bool:
    return all(
        count == 1 or (type(size) is int and size % count == 0)
        for size, count in zip(call["self"].shape[-len(call["output_size"]) :], call["output_size"], strict=True)
    )


def _adaptive(axes: int) -> Domain:
    return Domain(
        Relation(
            "an output size of 1, or one that divides a static input size",
            ("output_size", "self"),
            _divides,
            _fit_output,
            because="windows of unequal size have no layer",
        ),
        self=Tensor(FLOATS, rank=(axes + 1, 3 if axes == 1 else 8), because=FLOATS_ONLY),
        output_size=ListOf(Static(1), axes, axes),
    )


ACCUMULATED = {
    torch.float16: Tolerance(1e-2, 5e-3, "eager's 3-D kernel adds up in float16"),
    torch.bfloat16: Tolerance(8e-2, 4e-2, "eager's 3-D kernel adds up in bfloat16"),
}


def _adaptive_average(target: Any, axes: int) -> Converter:
    @converter(target, _adaptive(axes), tolerance=ACCUMULATED if axes == 3 else None)
    def adaptive_avg_pool(ctx: ConverterContext, self: NetworkTensor, output_size: Sequence[int]) -> NetworkTensor:
        """``adaptive_avg_pool2d(Tensor self, SymInt[2] output_size) -> Tensor``: means, and windows side by side."""
        rank = ctx.rank(self)
        whole = [rank - axes + place for place, count in enumerate(output_size) if count == 1]
        mean = ctx.reduce("AVG", self, whole, True)
        if len(whole) == axes:
            return mean
        sizes = ctx.facts(mean).shape[-axes:]
        kernel = [size // count for size, count in zip(sizes, output_size, strict=True)]  # type: ignore[operator]
        return _pooled(ctx, "AVERAGE", mean, Windows(kernel, kernel, [0] * axes, False), None)

    return adaptive_avg_pool


CONVERTERS: tuple[Converter, ...] = (
    _max_pool(aten.max_pool1d.default, 1, with_indices=False),
    _max_pool(aten.max_pool2d.default, 2, with_indices=False),
    _max_pool(aten.max_pool3d.default, 3, with_indices=False),
    _max_pool(aten.max_pool2d_with_indices.default, 2, with_indices=True),
    _max_pool(aten.max_pool3d_with_indices.default, 3, with_indices=True),
    avg_pool1d,
    _avg_pool(aten.avg_pool2d.default, 2),
    _avg_pool(aten.avg_pool3d.default, 3),
    _adaptive_average(aten.adaptive_avg_pool1d.default, 1),
    _adaptive_average(aten.adaptive_avg_pool2d.default, 2),
    _adaptive_average(aten.adaptive_avg_pool3d.default, 3),
    _adaptive_average(aten._adaptive_avg_pool2d.default, 2),
    _adaptive_average(aten._adaptive_avg_pool3d.default, 3),
)
