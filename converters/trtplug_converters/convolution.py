"""Convolutions, plain and transposed, in one to three spatial dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from trtplug_converters._shared import spread, with_spatial_axes
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
    Relation,
    Spec,
    Static,
    Tensor,
    converter,
    same_dtype,
)

aten = torch.ops.aten

FLOATS_ONLY = {"dtypes": "TensorRT convolves floats only"}


class Windows(NamedTuple):
    """How the windows lie, one entry per spatial axis; `after` is the padding at the end."""

    stride: Sequence[int]
    before: Sequence[int]
    after: Sequence[int]
    dilation: Sequence[int]


def _with_unit_axis(windows: Windows) -> Windows:
    """The same windows in two dimensions, the first of size 1."""
    return Windows([1, *windows.stride], [0, *windows.before], [0, *windows.after], [1, *windows.dilation])


def _layer(
    ctx: ConverterContext, kind: str, input: Any, weight: Any, bias: Any, maps: int, windows: Windows, groups: int
) -> NetworkTensor:
    """A layer of this kind. Kernel and bias are tensors of the network: constants, or computed at run time."""
    spatial = ctx.rank(weight) - 2
    given, added = with_spatial_axes(ctx, input, spatial)
    if spatial == 1:
        weight, windows = ctx.unsqueeze(weight, [2]), _with_unit_axis(windows)
    layer = ctx.add(
        kind,
        given,
        maps,
        ctx.facts(weight).shape[2:],
        ctx.trt.Weights(input.dtype),
        inputs={1: weight} if bias is None else {1: weight, 2: bias},
        stride_nd=tuple(windows.stride),
        pre_padding=tuple(windows.before),
        post_padding=tuple(windows.after),
        dilation_nd=tuple(windows.dilation),
        num_groups=groups,
    )
    return ctx.squeeze(layer.get_output(0), added)


def _convolved(
    ctx: ConverterContext, input: Any, weight: Any, bias: Any, windows: Windows, groups: int
) -> NetworkTensor:
    if groups == 1 and _are_patches(ctx, input, weight, windows):
        return _patches(ctx, input, weight, bias)
    folded = _folded(ctx, input, weight, windows) if groups == 1 else None
    if folded is not None:
        input, weight, windows = folded
    return _layer(ctx, "convolution_nd", input, weight, bias, ctx.sizes(weight)[0], windows, groups)


FEW_CHANNELS = 8
"""Fewer input channels than this are padded by TensorRT's convolutions, which then mostly multiply zeros."""


def _are_patches(ctx: ConverterContext, input: Any, weight: Any, windows: Windows) -> bool:
    """Whether the windows tile an image of few channels, as where a vision transformer makes patches of it."""
    kernel: Any = ctx.facts(weight).shape[2:]
    given: Any = ctx.facts(input).shape
    if ctx.rank(input) != ctx.rank(weight) or given[1] >= FEW_CHANNELS or list(windows.stride) != list(kernel):
        return False
    plain = not any((*windows.before, *windows.after)) and set(windows.dilation) == {1}
    tiles = all(size > 0 and size % each == 0 for size, each in zip(given[2:], kernel, strict=True))
    return plain and tiles and given[0] != 0 and max(kernel) > 1


def _patches(ctx: ConverterContext, input: Any, weight: Any, bias: Any) -> NetworkTensor:
    """Each patch as a row, times the kernels.

    Of 16 × 16 patches in float16, an H100 makes them four to six times as fast as the layer.
    """
    batch, image = ctx.sizes(input)[0], ctx.facts(input).shape[2:]
    shape: Any = ctx.facts(weight).shape
    maps, channels, *kernel = shape
    counts: list[Any] = [size // each for size, each in zip(image, kernel, strict=True)]
    axes, width = len(kernel), channels * math.prod(kernel)
    split = [size for pair in zip(counts, kernel, strict=True) for size in pair]
    order = [0, *range(2, 2 + 2 * axes, 2), 1, *range(3, 3 + 2 * axes, 2)]
    rows = ctx.permute(ctx.reshape(input, [batch, channels, *split]), order)
    rows = ctx.reshape(rows, [batch, math.prod(counts), width])
    result = ctx.matmul(rows, ctx.reshape(weight, [maps, width]), transpose=(False, True))
    result = result if bias is None else ctx.elementwise("SUM", result, bias)
    return ctx.reshape(ctx.permute(result, [0, 2, 1]), [batch, maps, *counts])


def _folded(ctx: ConverterContext, input: Any, weight: Any, windows: Windows) -> tuple[Any, Any, Windows] | None:
    """The same convolution with its strides folded into channels, where an image of few channels is strided over.

    Of a stride s, x[s i + r] becomes channel r at place i; a kernel of k elements, with zeros before and after it,
    becomes one of ⌈k / s⌉ or one more. ResNet's first layer has 3 channels and 7 × 7 elements, and then 12 and 4 × 4:
    of 32 pictures an H100 makes it in 0.23 instead of 0.50 ms. None where the strides do not divide the image, the
    kernel is not constant or would be zeros for more than a third, and in float32. The zeros meet pixels that the
    kernel did not, which matters for infinite ones only: those are not claimed.
    """
    known = ctx.frozen(weight)
    image: Any = ctx.facts(input).shape[2:]
    if known is None or known.dtype.itemsize != 2 or known.dim() != 4 or ctx.rank(input) != 4:
        return None
    if max(windows.stride) == 1:
        return None
    if known.shape[1] >= FEW_CHANNELS or set(windows.dilation) != {1} or 0 in ctx.facts(input).shape[:1]:
        return None
    found = [_folded_axis(*axis) for axis in zip(image, known.shape[2:], *windows[:3], strict=True)]
    axes = [axis for axis in found if axis is not None]
    if len(axes) < len(found):
        return None
    fronts, taps, before, after = (list(part) for part in zip(*axes, strict=True))
    steps = windows.stride
    if 3 * math.prod(known.shape[2:]) < 2 * math.prod(taps) * math.prod(steps):
        return None
    backs = [t * s - k - f for t, s, k, f in zip(taps, steps, known.shape[2:], fronts, strict=True)]
    padded = torch.nn.functional.pad(known, (fronts[1], backs[1], fronts[0], backs[0]))
    maps, channels = known.shape[:2]
    split = padded.reshape(maps, channels, taps[0], steps[0], taps[1], steps[1]).permute(0, 1, 3, 5, 2, 4)
    kernel = split.reshape(maps, -1, *taps).contiguous()
    counts: list[Any] = [size // step for size, step in zip(image, steps, strict=True)]  # all are ints: `_folded_axis`
    batch = ctx.sizes(input)[0]
    parts = ctx.reshape(input, [batch, channels, counts[0], steps[0], counts[1], steps[1]])
    folded = ctx.reshape(ctx.permute(parts, [0, 1, 3, 5, 2, 4]), [batch, kernel.shape[1], *counts])
    return folded, ctx.constant(kernel), Windows([1, 1], before, after, [1, 1])


def _folded_axis(size: Any, kernel: int, stride: int, before: int, after: int) -> tuple[int, int, int, int] | None:
    """Zeros before the kernel, its elements, padding before and after, for an axis whose stride becomes channels."""
    if not isinstance(size, int) or size <= 0 or size % stride:
        return None
    padding = -(-before // stride)
    front = padding * stride - before
    taps = -(-(front + kernel) // stride)
    results = (size + before + after - kernel) // stride + 1
    rest = results + taps - 1 - size // stride - padding
    return (front, taps, padding, rest) if rest >= 0 and results > 0 else None


def _deconvolved(
    ctx: ConverterContext, input: Any, weight: Any, bias: Any, windows: Windows, output_padding: list[int], groups: int
) -> NetworkTensor:
    """A deconvolution layer, and a sum. Output padding takes padding away at the end, or else adds zeros there.

    bfloat16, which TensorRT does not build, goes through float32; and what TensorRT 1.7 does not build is a
    deconvolution between casts that has a bias of its own. In one dimension the groups are layers of their own where
    sizes are symbolic: TensorRT-RTX 1.6 gives wrong numbers for all but the first item of a batch, on a GPU. A cast to
    bfloat16 that follows a deconvolution of few channels has no kernel in 1.6, and gives zeros in 1.4: the sum over one
    element keeps them apart.
    """
    dtype = ctx.dtype(input)
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    maps = ctx.sizes(weight)[1] * groups
    after = [pad - more for more, pad in zip(output_padding, windows.after, strict=True)]
    windows = windows._replace(after=[max(0, pad) for pad in after])
    given = ctx.cast(input, wide), ctx.cast(weight, wide)
    if groups > 1 and ctx.rank(weight) == 3 and not all(isinstance(n, int) for n in ctx.sizes(input)):
        result = _group_by_group(ctx, input, weight, wide, windows, groups)
    else:
        result = _layer(ctx, "deconvolution_nd", *given, None, maps, windows, groups)
    if wide != dtype:
        result = ctx.reduce("SUM", ctx.unsqueeze(result, [0]), [0], False)
    if min(after) < 0:
        result = _extended(ctx, result, [max(0, -pad) for pad in after])
    if bias is not None:
        result = ctx.elementwise("SUM", result, ctx.unsqueeze(ctx.cast(bias, wide), range(1, len(after) + 1)))
    elif wide != dtype and ctx.frozen(input) is not None:
        result = ctx.activation("LEAKY_RELU", result, alpha=1.0)  # of a constant, between casts, 1.7 does not build it
    return ctx.cast(result, dtype)


def _extended(ctx: ConverterContext, tensor: NetworkTensor, beyond: list[int]) -> NetworkTensor:
    """With that many zeros after the end of each of the last axes."""
    sizes = list(ctx.sizes(tensor))
    for place, count in enumerate(beyond, len(sizes) - len(beyond)):
        sizes[place] = ctx.size_math("SUM", sizes[place], count)
    return ctx.slice(tensor, [0] * len(sizes), sizes, [1] * len(sizes), mode=ctx.trt.SampleMode.FILL)


def _group_by_group(
    ctx: ConverterContext, input: Any, weight: Any, wide: torch.dtype, windows: Windows, groups: int
) -> NetworkTensor:
    """A deconvolution layer for each group of channels, axis 1, and their results side by side."""
    each, maps = ctx.sizes(weight)[0] // groups, ctx.sizes(weight)[1]
    results = []
    for group in range(groups):
        given = ctx.slice(input, [group * each], [each], [1], axes=[1])
        kernel = ctx.slice(weight, [group * each], [each], [1], axes=[0])
        operands = ctx.cast(given, wide), ctx.cast(kernel, wide)
        results.append(_layer(ctx, "deconvolution_nd", *operands, None, maps, windows, 1))
    return ctx.concat(results, 1)


# --- what a call looks like -------------------------------------------------------------------------------------------


def _fit_windows(call: dict[str, Any], choose: Choose) -> None:
    """Channels that the groups divide, windows that fit into the padded input, and an output that is not empty.

    Finite elements, too: whether padding times infinity is 0 or nan is up to each of eager's kernels.
    """
    spatial = call["weight"].rank - 2
    transposed, groups = bool(call.get("transposed")), choose.integer(1, 3)
    inner, outer = choose.integer(1, 2), choose.integer(1, 2)
    kernel, dilation, stride = ([choose.integer(1, most) for _ in range(spatial)] for most in (3, 2, 3))
    stride = [1] * spatial if call["padding"] == "same" else stride
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    padding = [choose.integer(0, r // 2 if transposed else 2) for r in reach]
    margins = [0] * spatial if isinstance(call["padding"], str) else padding
    sizes = [max(1, r + 1 - 2 * m) + choose.integer(0, 3) for r, m in zip(reach, margins, strict=True)]
    batch = call["input"].shape[:1] if call["input"].rank == spatial + 2 or "transposed" in call else ()
    call["input"] = call["input"]._replace(shape=(*batch, groups * inner, *sizes), values=(-1e3, 1e3))
    maps = (groups * inner, outer) if transposed else (groups * outer, inner)
    call["weight"] = call["weight"]._replace(shape=(*maps, *kernel), values=(-1e3, 1e3))
    if call["bias"] is not None:
        call["bias"] = call["bias"]._replace(shape=(groups * outer,))
    call.update(groups=groups, stride=_short(stride, choose), dilation=_short(dilation, choose))
    if not isinstance(call["padding"], str):
        call["padding"] = _short(padding, choose)
    if "output_padding" in call:
        call["output_padding"] = [choose.integer(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True)]


def _short(values: list[int], choose: Choose) -> list[int]:
    return values[:1] if len(set(values)) == 1 and choose.boolean() else values


def _is_strided_and_dilated(call: Call) -> bool:
    return bool(call["transposed"]) and any(s > 1 for s in call["stride"]) and any(d > 1 for d in call["dilation"])


def _not_dilated(call: dict[str, Any], choose: Choose) -> None:
    if _is_strided_and_dilated(call):
        axes = call["weight"].rank - 2
        call.update(dilation=[1] * axes, padding=[0] * axes, output_padding=[0] * axes)


NOT_STRIDED_AND_DILATED = Relation(
    "no stride together with a dilation where it is transposed",
    ("stride", "dilation", "transposed"),
    lambda call: not _is_strided_and_dilated(call),
    _not_dilated,
    because="TensorRT does not build strided and dilated deconvolutions",
)


def _domain(axes: tuple[int, int], unbatched: int = 0, **others: Spec) -> Domain:
    """Of a convolution with so many spatial axes, at least and at most."""
    low, high = axes
    per_axis = ListOf(Static(1), shortest=1, longest=high)
    shared: dict[str, Spec] = {
        "input": Tensor(FLOATS, rank=(low + 2 - unbatched, high + 2), because=FLOATS_ONLY),
        "weight": Tensor(
            FLOATS,
            rank=(low + 2, high + 2),
            zero_size=False,
            dynamic=False,
            because={**FLOATS_ONLY, "dynamic": "a kernel's size is part of the layer"},
        ),
        "bias": Optional(Tensor(FLOATS, rank=(1, 1), because=FLOATS_ONLY)),
        "stride": per_axis,
        "padding": ListOf(Static(0), shortest=1, longest=high),
        "dilation": per_axis,
        "groups": Static(1),
    }
    relations = [
        same_dtype("input", "weight", "bias"),
        Relation("windows that fit into the input", ("input", "weight", "padding"), arrange=_fit_windows),
    ]
    return Domain(*relations, *([NOT_STRIDED_AND_DILATED] if "transposed" in others else []), **{**shared, **others})


# --- converters -------------------------------------------------------------------------------------------------------


def _windows(weight_rank: int, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> Windows:
    per_axis = (spread(values, weight_rank - 2) for values in (stride, padding, padding, dilation))
    return Windows(*per_axis)


def _plain(target: Any, axes: int) -> Converter:
    ones, zeros = [1] * axes, [0] * axes

    @converter(target, _domain((axes, axes), unbatched=1))
    def conv(
        ctx: ConverterContext,
        input: NetworkTensor,
        weight: NetworkTensor,
        bias: NetworkTensor | None = None,
        stride: Sequence[int] = ones,
        padding: Sequence[int] = zeros,
        dilation: Sequence[int] = ones,
        groups: int = 1,
    ) -> NetworkTensor:
        """``conv2d(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=[1, 1], ...) -> Tensor``."""
        return _convolved(ctx, input, weight, bias, _windows(axes + 2, stride, padding, dilation), groups)

    return conv


def _padded_by_name(target: Any, axes: int) -> Converter:
    ones = [1] * axes

    @converter(target, _domain((axes, axes), unbatched=1, padding=Only("valid", "same")))
    def conv(
        ctx: ConverterContext,
        input: NetworkTensor,
        weight: NetworkTensor,
        bias: NetworkTensor | None = None,
        stride: Sequence[int] = ones,
        padding: str = "valid",
        dilation: Sequence[int] = ones,
        groups: int = 1,
    ) -> NetworkTensor:
        """``conv2d.padding(Tensor input, Tensor weight, Tensor? bias=None, ..., str padding="valid", ...) -> Tensor``.

        ``same`` puts the odd one of the padding at the end.
        """
        windows = _windows(axes + 2, stride, [0], dilation)
        if padding == "same":
            totals = [d * (k - 1) for d, k in zip(windows.dilation, ctx.sizes(weight)[2:], strict=True)]
            windows = windows._replace(before=[t // 2 for t in totals], after=[t - t // 2 for t in totals])
        return _convolved(ctx, input, weight, bias, windows, groups)

    return conv


@converter(
    aten.convolution.default,
    _domain(
        (1, 3),
        transposed=Only(False, True),
        output_padding=ListOf(Static(0), shortest=1, longest=3),
    ),
)
def convolution(
    ctx: ConverterContext,
    input: NetworkTensor,
    weight: NetworkTensor,
    bias: NetworkTensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> NetworkTensor:
    """``convolution(Tensor input, Tensor weight, Tensor? bias, SymInt[] stride, ...) -> Tensor``."""
    windows = _windows(ctx.rank(weight), stride, padding, dilation)
    if transposed:
        extra = spread(output_padding, ctx.rank(weight) - 2)
        return _deconvolved(ctx, input, weight, bias, windows, extra, groups)
    return _convolved(ctx, input, weight, bias, windows, groups)


CONVERTERS: tuple[Converter, ...] = (
    _plain(aten.conv1d.default, 1),
    _plain(aten.conv2d.default, 2),
    _plain(aten.conv3d.default, 3),
    _padded_by_name(aten.conv1d.padding, 1),
    _padded_by_name(aten.conv2d.padding, 2),
    _padded_by_name(aten.conv3d.padding, 3),
    convolution,
)
