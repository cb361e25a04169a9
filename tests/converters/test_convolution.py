from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import trtplug
from trtplug.testing import run_op
from trtplug_converters.convolution import _folded_axis
from trtplug_registry import Registry

conv2d = torch.ops.aten.conv2d.default
torch.manual_seed(0)
transposed = torch.ops.aten.convolution.default
LINE, LINES = torch.randn(2, 4, 5), torch.randn(4, 3, 2)
IMAGE, KERNEL, BIAS = torch.randn(2, 3, 8, 12), torch.randn(5, 3, 4, 4), torch.randn(5)


@pytest.mark.parametrize("bias", [BIAS, None])
def test_windows_that_tile_an_image_are_rows_of_a_product(layers: Any, built_in: Registry, bias: Any) -> None:
    args = (IMAGE, KERNEL, bias, [4, 4])
    found = layers(conv2d, *args)
    assert "MATRIX_MULTIPLY" in found
    assert "CONVOLUTION" not in found
    (result,) = run_op(built_in, conv2d, args)
    torch.testing.assert_close(result, conv2d(*args), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_windows_tile_a_line_an_image_and_a_volume(layers: Any, built_in: Registry, axes: int) -> None:
    sizes = [2, 3, 4][-axes:]
    image, kernel = torch.randn(2, 3, *(2 * size for size in sizes)), torch.randn(5, 3, *sizes)
    args = (image, kernel, None, sizes, [0] * axes, [1] * axes, False, [0] * axes, 1)
    assert "CONVOLUTION" not in layers(transposed, *args)
    (result,) = run_op(built_in, transposed, args)
    torch.testing.assert_close(result, transposed(*args), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "kernel"), [(IMAGE[:1], KERNEL), (IMAGE, KERNEL[..., :2, :2]), (IMAGE[..., :1, :], KERNEL[..., :1, :])]
)
def test_small_windows_that_tile_an_image(layers: Any, image: torch.Tensor, kernel: torch.Tensor) -> None:
    assert "CONVOLUTION" not in layers(conv2d, image, kernel, None, list(kernel.shape[2:]))


@pytest.mark.parametrize(
    ("dtype", "constants", "bias", "found"),
    [
        (torch.bfloat16, ["input", "weight"], None, True),
        (torch.bfloat16, ["weight"], None, False),
        (torch.bfloat16, ["input", "weight"], torch.ones(3), False),
        (torch.float32, ["input", "weight"], None, False),
    ],
)
def test_a_deconvolution_of_a_constant_is_not_all_there_is_between_casts(
    layers: Any, dtype: torch.dtype, constants: list[str], bias: torch.Tensor | None, found: bool
) -> None:
    args = (LINE.to(dtype), LINES.to(dtype), None if bias is None else bias.to(dtype))
    given = layers(transposed, *args, [1], [0], [1], True, [0], 1, constants=constants)
    assert ("ACTIVATION LEAKY_RELU" in given) == found
    assert ("REDUCE SUM" in given) == (dtype == torch.bfloat16)


@pytest.mark.parametrize(
    "args",
    [
        (IMAGE, KERNEL, BIAS, [4, 2]),
        (IMAGE, KERNEL, BIAS, [4, 4], [1, 0]),
        (IMAGE[..., :10], KERNEL, BIAS, [4, 4]),
        (torch.randn(2, 8, 8, 8), torch.randn(5, 8, 4, 4), BIAS, [4, 4]),
        (torch.randn(2, 6, 8, 8), torch.randn(5, 3, 4, 4)[:4], BIAS[:4], [4, 4], [0, 0], [1, 1], 2),
        (IMAGE, KERNEL[..., :1, :1], BIAS),
    ],
    ids=["overlap", "padding", "a rest", "many channels", "groups", "1 × 1"],
)
def test_other_windows_are_a_convolution(layers: Any, args: Any) -> None:
    assert "CONVOLUTION" in layers(conv2d, *args)


@pytest.mark.parametrize(
    ("args", "symbolic", "count"),
    [
        ((LINE, LINES, None, [1], [0], [1], True, [0], 2), {"input": (0,)}, 2),
        ((LINE, LINES, None, [1], [0], [1], True, [0], 2), {"input": (2,)}, 2),
        ((LINE, LINES, None, [1], [0], [1], True, [0], 2), None, 1),
        ((LINE, LINES, None, [1], [0], [1], True, [0], 1), {"input": (0,)}, 1),
        ((LINE[..., None], LINES[..., None], None, [1, 1], [0, 0], [1, 1], True, [0, 0], 2), {"input": (0,)}, 1),
    ],
    ids=["rows", "sizes", "static", "one group", "2-D"],
)
def test_groups_of_a_transposed_line_are_layers_of_their_own(
    layers: Any, built_in: Registry, args: Any, symbolic: Any, count: int
) -> None:
    found = layers(transposed, *args, symbolic=symbolic)
    assert found.count("DECONVOLUTION") == count
    assert ("SLICE" in found) == (count > 1)
    (result,) = run_op(built_in, transposed, args, symbolic=symbolic)
    torch.testing.assert_close(result, transposed(*args), rtol=1e-5, atol=1e-5)


def test_what_a_batch_norm_knows_is_computed_at_once(layers: Any) -> None:
    norm, parameters = torch.ops.aten.batch_norm.default, [torch.rand(3) + 1 for _ in range(4)]
    for given in (parameters, [None, None, *parameters[2:]]):
        names = ("weight", "bias", "running_mean", "running_var")
        constants = [name for name, value in zip(names, given) if value is not None]
        found = layers(norm, IMAGE, *given, False, 0.1, 1e-5, True, constants=constants)
        assert found == "ELEMENTWISE PROD, ELEMENTWISE SUM"  # and no axes are added to constants by layers


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "channels"),
    [
        *((7, 2, 3, 12), ((5, 1), (2, 1), (2, 0), 6), (4, (2, 1), (0, 1), 6), (6, 2, 0, 12)),
        *((5, 2, (1, 2), 12), (5, 2, (2, 1), 12)),  # zeros before the kernel along one axis only
        ((4, 3), (2, 3), (1, 0), 18),  # just not too many zeros
    ],
)
def test_strides_over_an_image_become_channels(kernel: Any, stride: Any, padding: Any, channels: int) -> None:
    model = torch.nn.Conv2d(3, 4, kernel, stride, padding).half()
    image = torch.randn(1 if kernel == 7 else 2, 3, 16, 24).half()
    compiled = trtplug.compile(model, (image,), min_block_size=1, executor="reference")
    torch.testing.assert_close(compiled(image), model(image), rtol=2e-3, atol=2e-3)
    kernels = [tensor.shape for tensor in compiled.engines[0].reference.buffers() if tensor.dim() == 4]
    assert [shape[1] for shape in kernels if shape[0] == 4] == [channels]


def test_an_axis_is_folded_where_its_last_elements_are_read() -> None:
    """Of a line of n elements, k of them times a kernel each s: the same by windows of s channels."""
    found = 0
    for size, kernel, stride, before, after in itertools.product(
        range(1, 7), (1, 2, 4, 5), (1, 2, 3), (0, 1, 2), (0, 1)
    ):
        windows = torch.nn.functional.pad(torch.arange(1.0, size + 1), (before, after))
        count = (len(windows) - kernel) // stride + 1
        reads = size % stride == 0 and count > 0 and (count - 1) * stride + kernel - before > size - stride
        folded = _folded_axis(size, kernel, stride, before, after)
        assert (folded is not None) == reads
        if folded is not None:
            found += 1
            front, taps, ahead, rest = folded
            weight = torch.arange(1.0, kernel + 1)
            wide = torch.nn.functional.pad(weight, (front, taps * stride - kernel - front)).reshape(taps, stride)
            blocks = torch.nn.functional.pad(torch.arange(1.0, size + 1).reshape(-1, stride), (0, 0, ahead, rest))
            results = torch.stack([(blocks[at : at + taps] * wide).sum() for at in range(len(blocks) - taps + 1)])
            assert results.equal(windows.unfold(0, kernel, stride) @ weight)
    assert found > 100


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (torch.nn.Conv2d(3, 4, 7, 2, 3), 16),
        (torch.nn.Conv2d(3, 4, 7, 2, 3).half(), 17),
        (torch.nn.Conv2d(3, 4, 3, 2, 1).half(), 16),
        (torch.nn.Conv2d(3, 4, 7, 2, 3, dilation=2).half(), 16),
        (torch.nn.Conv2d(8, 4, 7, 2, 3).half(), 16),
    ],
    ids=["float32", "a rest", "mostly zeros", "dilated", "many channels"],
)
def test_other_strides_stay(model: torch.nn.Conv2d, size: int) -> None:
    image = torch.randn(1, model.in_channels, size, size).to(model.weight.dtype)
    compiled = trtplug.compile(model, (image,), min_block_size=1, executor="reference")
    assert model.weight.shape in [tensor.shape for tensor in compiled.engines[0].reference.buffers()]
