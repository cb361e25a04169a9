"""Convolution, deconvolution, pooling, resize, grid sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.fx import Node

from trtplug._tensorrt import read_dims
from trtplug.reference.semantics import resampling, windows
from trtplug.reference.site import Rule, Site

SAMPLING = {"NEAREST": "nearest", "LINEAR": "bilinear", "CUBIC": "bicubic"}
OUTSIDE = {"FILL": "zeros", "CLAMP": "border", "REFLECT": "reflection"}


def _convolve(site: Site, target: Callable[..., Any], kernel_shape: list[int]) -> Node:
    layer = site.handle
    kernel = site.node(1) if site.has(1) else site.weights("kernel", kernel_shape)
    bias = site.node(2) if site.has(2) else site.weights("bias", [layer.num_output_maps])
    padding = layer.padding_mode.name, site.static("pre_padding"), site.static("post_padding")
    strides, dilation = site.static("stride_nd"), site.static("dilation_nd")
    return site.compute(target, site.node(0), kernel, bias, strides, *padding, dilation, layer.num_groups)


def convolution(site: Site) -> Node:
    maps, window = site.handle.num_output_maps, site.static("kernel_size_nd")
    return _convolve(site, windows.convolution, [maps, -1, *window])


def deconvolution(site: Site) -> Node:
    maps, window = site.handle.num_output_maps, site.static("kernel_size_nd")
    return _convolve(site, windows.deconvolution, [-1, maps // site.handle.num_groups, *window])


def pooling(site: Site) -> Node:
    layer = site.handle
    padding = layer.padding_mode.name, site.static("pre_padding"), site.static("post_padding")
    window, strides = site.static("window_size_nd"), site.static("stride_nd")
    average = bool(layer.average_count_excludes_padding), layer.blend_factor
    return site.compute(windows.pooling, site.node(0), layer.type.name, window, strides, *padding, *average)


def resize(site: Site) -> Node:
    layer = site.handle
    scales = None if site.has(1) else [float(s) for s in layer.scales] or None
    size = None if scales else site.ints(1) if site.has(1) else read_dims(layer, "shape")
    return site.compute(
        resampling.resize,
        site.node(0),
        size,
        scales,
        layer.resize_mode.name,
        layer.coordinate_transformation.name,
        layer.nearest_rounding.name,
        layer.selector_for_single_pixel.name == "UPPER",
        bool(layer.exclude_outside),
        layer.cubic_coeff,
    )


def grid_sample(site: Site) -> Node:
    layer = site.handle
    mode, outside = layer.interpolation_mode.name, layer.sample_mode.name
    if mode == "CUBIC" and len(site.dims(0)) != 4:
        raise site.refuse(f"cubic interpolation of an input of rank {len(site.dims(0))}")
    if outside not in OUTSIDE:
        raise site.refuse(f"sample mode {outside}")
    return site.compute(resampling.grid_sample, *site.nodes(), SAMPLING[mode], OUTSIDE[outside], layer.align_corners)


RULES: Mapping[str, Rule] = {
    "CONVOLUTION": convolution,
    "DECONVOLUTION": deconvolution,
    "GRID_SAMPLE": grid_sample,
    "POOLING": pooling,
    "RESIZE": resize,
}
