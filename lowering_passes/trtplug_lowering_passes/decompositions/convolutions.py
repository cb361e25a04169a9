"""Gradients of convolutions: one more convolution for the input's, a matrix product an element for the kernel's."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table, widened

aten = torch.ops.aten


def convolution_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of input, weight and bias, each where the mask asks for it.

    A convolution's input gradient is the transposed convolution of the output's gradient, and the other way round. An
    element of the kernel has met each element of the smaller image with one of the larger image, stride apart.
    """
    axes = weight.dim() - 2
    if grad_output.dim() != axes + 2 or not all(isinstance(size, int) for size in weight.shape):
        raise NotImplementedError("only batches, and kernels whose size is known")
    stride, padding, dilation = (_spread(values, axes) for values in (stride, padding, dilation))
    grad_input = grad_weight = grad_bias = None
    if output_mask[0]:
        beyond = [] if transposed else _beyond(grad_output, input, weight, stride, padding, dilation)
        given = (grad_output, weight, None, stride, padding, dilation, not transposed, beyond or [0] * axes, groups)
        grad_input = aten.convolution.default(*given)
    if output_mask[1]:
        large, small = (grad_output, input) if transposed else (input, grad_output)
        grad_weight = _kernel(large, small, weight, stride, padding, dilation, groups)
    if output_mask[2]:
        grad_bias = widened(grad_output).sum([0, *range(2, axes + 2)]).to(grad_output.dtype)
    return grad_input, grad_weight, grad_bias


def _spread(values: Sequence[int], count: int) -> list[int]:
    return list(values) * count if len(values) == 1 else list(values)


def _beyond(
    grad: Tensor, input: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int]
) -> list[int]:
    """The last elements of each axis of the input that no window reached."""
    found = []
    for axis, (s, p, d) in enumerate(zip(stride, padding, dilation, strict=True), 2):
        if s == 1:
            found.append(0)
            continue
        rest = input.size(axis) - ((grad.size(axis) - 1) * s - 2 * p + d * (weight.size(axis) - 1) + 1)
        if not isinstance(rest, int):
            raise NotImplementedError("how much of the input no window reached depends on sizes")
        found.append(rest)
    return found


def _kernel(
    large: Tensor,
    small: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """[rows, columns / groups, *kernel]: rows of the small image [N, rows, ...] by columns of the large one."""
    kernel = weight.shape[2:]
    pad = [size for p in reversed(padding) for size in (p, p)]
    large, small = torch.constant_pad_nd(widened(large), pad), widened(small)
    rows = _by_group(small, groups)
    elements = []
    for place in itertools.product(*map(range, kernel)):
        met = large
        for axis, (k, s, d) in enumerate(zip(place, stride, dilation, strict=True), 2):
            met = aten.slice.Tensor(met, axis, k * d, k * d + (small.size(axis) - 1) * s + 1, s)
        elements.append((rows @ _by_group(met, groups).mT).flatten(0, 1))
    return torch.stack(elements, -1).reshape(weight.shape).to(weight.dtype)


def _by_group(image: Tensor, groups: int) -> Tensor:
    """[N, C, ...] as [groups, C / groups, N ...]."""
    return image.transpose(0, 1).reshape(groups, image.size(1) // groups, -1)


def dilated_deconvolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """Transposed, strided and dilated, which TensorRT does not build: the kernel holds the zeros itself."""
    axes = weight.dim() - 2
    dilation = _spread(dilation, axes)
    if not transposed or max(dilation) == 1:
        raise NotImplementedError("the others have a converter")
    for axis, step in zip(range(-axes, 0), dilation, strict=True):
        if step > 1:
            apart = torch.constant_pad_nd(weight.movedim(axis, -1).unsqueeze(-1), [0, step - 1]).flatten(-2)
            weight = apart.narrow(-1, 0, apart.size(-1) - step + 1).movedim(-1, axis)
    one = [1] * axes
    result: Tensor = aten.convolution.default(
        input, weight, bias, stride, padding, one, transposed, output_padding, groups
    )
    return result


TABLE: Table = {
    aten.convolution.default: dilated_deconvolution,
    aten.convolution_backward.default: convolution_backward,
}
