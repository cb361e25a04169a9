"""Reading an image at computed places, between its elements too."""

from __future__ import annotations

from typing import Any

import torch

from trtplug_converters._shared import HALVES
from trtplug_registry import (
    Choose,
    Converter,
    ConverterContext,
    Domain,
    NetworkTensor,
    Only,
    Relation,
    Tensor,
    converter,
    same_dtype,
)

aten = torch.ops.aten

INTERPOLATION = ("LINEAR", "NEAREST", "CUBIC")
PADDING = ("FILL", "CLAMP", "REFLECT")
"""Torch's numbers for the modes are places in these."""


SINGLE = {
    "dtypes": "eager computes places in the half type itself, TensorRT in float32",
    "rank": "eager samples images and volumes",
}


def _fit_grid(call: dict[str, Any], choose: Choose) -> None:
    spatial = call["input"].rank - 2
    if spatial not in (2, 3):  # eager refuses it
        return
    if spatial != 2 and call["interpolation_mode"] == 2:
        call["interpolation_mode"] = 0
    batch = choose.integer(1, 2)
    image = (batch, choose.integer(1, 2), *(choose.integer(1, 4) for _ in range(spatial)))
    places = (batch, *(choose.integer(1, 3) for _ in range(spatial)), spatial)
    call["input"] = call["input"]._replace(shape=image, values=(-100, 100))
    call["grid"] = call["grid"]._replace(shape=places, values=(-2, 2))
    if call["grid"].dtype in HALVES:  # a place just outside the image, which a half type rounds to its edge
        edge = 1 + torch.finfo(call["grid"].dtype).eps
        call["input"] = call["input"]._replace(shape=(batch, 1, *(1,) * spatial), values=(1, 100))
        call["grid"] = call["grid"]._replace(values=(edge, edge))
        call.update(interpolation_mode=1, padding_mode=0, align_corners=False)


def _domain(low: int, high: int) -> Domain:
    return Domain(
        Relation("a grid of places in the image", ("grid", "input", "interpolation_mode"), None, _fit_grid),
        same_dtype("input", "grid"),
        input=Tensor((torch.float32,), rank=(low, high), because=SINGLE),
        grid=Tensor((torch.float32,), rank=(low, high), because=SINGLE),
        interpolation_mode=Only(0, 1, 2),
        padding_mode=Only(0, 1, 2),
        align_corners=Only(False, True),
    )


def grid_sample(
    ctx: ConverterContext,
    input: NetworkTensor,
    grid: NetworkTensor,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> NetworkTensor:
    """``grid_sampler_2d(Tensor input, Tensor grid, int interpolation_mode, int padding_mode, bool align_corners) ->
    Tensor``: a grid sample layer.
    """
    layer = ctx.add(
        "grid_sample",
        input,
        grid,
        interpolation_mode=getattr(ctx.trt.InterpolationMode, INTERPOLATION[interpolation_mode]),
        sample_mode=getattr(ctx.trt.SampleMode, PADDING[padding_mode]),
        align_corners=align_corners,
    )
    return layer.get_output(0)


CONVERTERS: tuple[Converter, ...] = (
    converter(aten.grid_sampler.default, _domain(4, 5))(grid_sample),
    converter(aten.grid_sampler_2d.default, _domain(4, 4))(grid_sample),
    converter(aten.grid_sampler_3d.default, _domain(5, 5))(grid_sample),
)
