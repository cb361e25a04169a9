"""Of windows, of what is resized and of pixels that are shuffled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from trtplug.testing.arrangements import YES_NO, arranged
from trtplug.testing.windows import (
    convolved,
    folded,
    of_convolution,
    of_windows,
    per_axis,
    pooled,
    same_images,
    unequal_windows,
    unpooled,
    windows,
)
from trtplug_registry import FLOATS, INTS, Domain, ListOf, Only, Relation, Spec, Static, Tensor, same_dtype

_WINDOWED = Tensor(FLOATS, rank=(3, 4), zero_size=False, static_axes=(-1, -2))
"""Whose windows are counted, and places in them, before the sizes are known to be others."""


def _resized(axes: int, **scales: Spec) -> Domain:
    return Domain(
        self=Tensor(FLOATS, rank=(axes + 2, axes + 2), zero_size=False, values=(-1e3, 1e3)),
        output_size=ListOf(Static(1, 6), shortest=axes, longest=axes),
        align_corners=YES_NO,
        **scales,
    )


TABLE: Mapping[str, Domain] = {
    **{f"aten::_adaptive_avg_pool{n}d": pooled(n) for n in (2, 3)},
    **{f"aten::adaptive_max_pool{n}d": pooled(n) for n in (2, 3)},
    "aten::adaptive_avg_pool1d": pooled(1),
    "aten::_adaptive_avg_pool2d_backward": Domain(
        same_dtype("grad_output", "self"),
        Relation("windows", ("grad_output", "self"), same_images, unequal_windows),
        grad_output=Tensor(FLOATS, rank=(3, 4), zero_size=False),
        self=Tensor(FLOATS, rank=(3, 4), zero_size=False),
    ),
    "aten::avg_pool2d_backward": Domain(
        same_dtype("self", "grad_output"),
        Relation("windows", ("self", "grad_output"), of_windows(2), windows(2, ["grad_output"])),
        grad_output=_WINDOWED,
        self=_WINDOWED,
        **per_axis(2),
        ceil_mode=YES_NO,
        count_include_pad=YES_NO,
        divisor_override=Only(None, 2, 3),
    ),
    **{
        f"aten::max_pool{n}d_with_indices": Domain(
            arranged("windows", windows(n), "self"),
            self=Tensor(FLOATS, rank=(n + 1, n + 2), zero_size=False),
            **per_axis(n),
            dilation=ListOf(Static(1, 2), shortest=n, longest=n),
            ceil_mode=YES_NO,
        )
        for n in (2, 3)
    },
    "aten::max_pool2d_with_indices_backward": Domain(
        same_dtype("self", "grad_output"),
        Relation("windows", ("self", "grad_output", "indices"), of_windows(2), windows(2, ["grad_output", "indices"])),
        grad_output=_WINDOWED,
        self=_WINDOWED,
        **per_axis(2),
        dilation=ListOf(Static(1, 2), shortest=2, longest=2),
        ceil_mode=YES_NO,
        indices=dataclasses.replace(_WINDOWED, dtypes=INTS[1:]),
    ),
    "aten::col2im": Domain(
        arranged("blocks", folded, "self"),
        self=Tensor(FLOATS, rank=(2, 3), zero_size=False),
        **{
            name: ListOf(Static(0), shortest=2, longest=2)
            for name in ("output_size", "kernel_size", "dilation", "padding", "stride")
        },
    ),
    "aten::convolution_backward": Domain(
        same_dtype("input", "weight", "grad_output"),
        Relation("windows", ("input", "weight", "grad_output"), of_convolution, convolved),
        grad_output=Tensor(FLOATS, rank=(3, 5), zero_size=False),
        input=Tensor(FLOATS, rank=(3, 5), zero_size=False),
        weight=Tensor(FLOATS, rank=(3, 5), zero_size=False),
        bias_sizes=ListOf(Static(1)),
        stride=ListOf(Static(1)),
        padding=ListOf(Static(0)),
        dilation=ListOf(Static(1)),
        transposed=YES_NO,
        output_padding=ListOf(Static(0)),
        groups=Static(1, 2),
        output_mask=Only([True, True, True], [True, False, True], [False, True, False]),
    ),
    "aten::_upsample_bicubic2d_aa": _resized(2),
    "aten::_upsample_bilinear2d_aa": _resized(2),
    "aten::upsample_linear1d": _resized(1),
    "aten::im2col": Domain(
        arranged("windows", windows(2), "self"),
        self=Tensor(FLOATS, rank=(3, 4), zero_size=False),
        **per_axis(2),
        dilation=ListOf(Static(1, 2), shortest=2, longest=2),
    ),
    **{
        f"aten::max_unpool{axes}d": Domain(
            arranged("a place for each plane", unpooled(axes), "self", "indices", "output_size"),
            self=Tensor(FLOATS, rank=(axes + 1, axes + 2), zero_size=False),
            indices=Tensor(INTS[1:], rank=(axes + 1, axes + 2), zero_size=False),
            output_size=ListOf(Static(1, 4), shortest=axes, longest=axes),
            **more,
        )
        for axes, more in {
            2: {},
            3: {"stride": Only([1, 1, 1]), "padding": Only([0, 0, 0])},
        }.items()
    },
}
