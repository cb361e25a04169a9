"""What decompositions compute, next to eager: everything runs in one engine, in every dtype that eager takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import trtplug

f, aten = torch.nn.functional, torch.ops.aten
INTS = (torch.int32, torch.int64)
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}

INDEX = torch.tensor([[0, 2, 1, 2], [2, 2, 0, 1]])
ROWS = torch.tensor([2, 0, 2])
MASK = torch.tensor([[True, False, False, True], [False, True, True, False], [True, True, False, False]])

Cases = dict[str, Callable[..., Any]]


def reductions(x: torch.Tensor, y: torch.Tensor) -> Cases:
    """Writes that meet at one place."""
    found: Cases = {}
    for reduce in ("sum", "prod", "mean", "amax", "amin"):
        for own in (True, False):
            found[f"scatter_reduce {reduce} {own}"] = lambda reduce=reduce, own=own: torch.scatter_reduce(
                x, 0, INDEX, y, reduce, include_self=own
            )
    for reduce in ("prod", "mean", "amax", "amin"):
        found[f"index_reduce {reduce}"] = lambda reduce=reduce: torch.index_reduce(x, 0, ROWS, y, reduce)
    return found | {
        "scatter_add": lambda: torch.scatter_add(x, 1, INDEX, y),
        "scatter add": lambda: torch.scatter(x, 0, INDEX, y, reduce="add"),
        "scatter multiply": lambda: torch.scatter(x, 0, INDEX, 2, reduce="multiply"),
        "index_add": lambda: torch.index_add(x, 0, ROWS, y),
    }


def writes(x: torch.Tensor, y: torch.Tensor) -> Cases:
    return {
        "index_put": lambda: x.index_put((ROWS[:2], ROWS[1:]), y[0, :2], accumulate=True),
        "index_put separated": lambda: aten.index_put(torch.stack((x, y)), [ROWS - 2, None, ROWS], y[:3, :3], True),
        "index_put mask": lambda: x.index_put((MASK,), y[0, 0]),
        "index_put mask of rows": lambda: x.index_put((MASK[:, 0],), y[0]),
        "scatter past the data": lambda: torch.scatter(x[:1], 0, INDEX * 0, y),
        "scatter a number": lambda: torch.scatter(x[:1], 0, INDEX * 0, 3),
        "index_copy": lambda: torch.index_copy(x, 0, ROWS[:2], y[:2]),
        "index_fill": lambda: torch.index_fill(x, 1, ROWS, 3),
        "put": lambda: torch.put(x, INDEX[:1], y[:1]),
        "masked_scatter": lambda: torch.masked_scatter(x, MASK, y),
        "as_strided_scatter": lambda: torch.as_strided_scatter(x, y[:2, :2].contiguous(), (2, 2), (4, 1), 1),
        "slice_scatter": lambda: torch.slice_scatter(x, y[:, :2], 1, 1, 3),
        "slice_scatter in steps": lambda: torch.slice_scatter(x, y[:, :2], 1, 0, 4, 2),
        "select_scatter": lambda: torch.select_scatter(x, y[0], 0, 1),
        "diagonal_scatter": lambda: torch.diagonal_scatter(x, y[0, :3], 1),
        "_unsafe_masked_index": lambda: aten._unsafe_masked_index(x, MASK[0], [None, ROWS[:1] + 9], 0),
    }


def orders(x: torch.Tensor, y: torch.Tensor) -> Cases:
    return {
        "sort": lambda: torch.sort(x, 0),
        "sort descending": lambda: torch.sort(x, descending=True, stable=True),
        "argsort": lambda: torch.argsort(y, 1),
        "topk": lambda: torch.topk(torch.cumsum(x[1:].abs() + 1, 1), 2, largest=False),
        "kthvalue": lambda: torch.kthvalue(x, 2, 1),
        "median": lambda: torch.median(y),
        "median along": lambda: torch.median(x, 1, True),
        "nanmedian": lambda: torch.nanmedian(y, 1),
        "cummax": lambda: torch.cummax(x, 1),
        "cummin": lambda: torch.cummin(x, 0),
        "searchsorted": lambda: torch.searchsorted(torch.sort(x[1:])[0], y[:2]),
        "bucketize": lambda: torch.bucketize(y, torch.sort(x[1])[0], right=True),
    }


def views(x: torch.Tensor, y: torch.Tensor) -> Cases:
    return {
        "diagonal": lambda: x.diagonal(1),
        "diagonal below": lambda: torch.stack((x, y)).diagonal(-1, 1, 2),
        "diagonal outside": lambda: x.diagonal(9),
        "unfold": lambda: x.unfold(1, 2, 2),
        "as_strided": lambda: x.as_strided((2, 3), (4, 1), 1),
        "copy": lambda: aten.copy(x, y[0]),
        "fill": lambda: aten.fill(x, y[0, 0]),
        "view_copy": lambda: aten.view_copy(x, [4, 3]),
        "split_copy": lambda: aten.split_copy(x, 2, 1),
        "block_diag": lambda: torch.block_diag(x, y),
    }


def halves_too(x: torch.Tensor, y: torch.Tensor) -> Cases:
    """Ops of floats."""
    image, zeros = torch.cat((x, y)).reshape(1, 1, 4, 6), (x[0, :3] * 0).to(torch.int64)
    blocks = torch.stack((x, y)).repeat(1, 2, 2)[:, :, :6]
    return {
        "atan2": lambda: torch.atan2(x, y),
        "hypot": lambda: torch.hypot(x, y),
        "copysign": lambda: torch.copysign(x, y),
        "fmax": lambda: torch.fmax(x, y),
        "fmin": lambda: torch.fmin(x, y),
        "remainder of 1": lambda: (x * 1e3) % 1,
        "remainder of -2": lambda: torch.remainder(x, -2),
        "fmod": lambda: torch.fmod(x * 7, 0.5),
        "floor": lambda: x // 0.25,
        "signbit": lambda: torch.signbit(-x),
        "erfc": lambda: torch.erfc(x),
        "isclose": lambda: torch.isclose(x, x + 1e-3, equal_nan=True),
        "round to tenths": lambda: torch.round(x, decimals=1),
        "logcumsumexp": lambda: torch.logcumsumexp(x, 1),
        "cumprod": lambda: torch.cumprod(x, 1),
        "cdist": lambda: torch.cdist(x.float(), y.float(), 3.0),
        "pdist": lambda: torch.pdist(x.float()),
        "bilinear": lambda: f.bilinear(x, y, torch.stack((x[:1].mT @ y[:1], y[:1].mT @ x[:1]))),
        "addmv": lambda: torch.addmv(x[:, 0], x, y[0], beta=0.5, alpha=2),
        "addbmm": lambda: torch.addbmm(x[:, :3], torch.stack((x, y)), torch.stack((y.mT, x.mT)), beta=0.5),
        "var": lambda: aten.var.dim(x, [1], False),
        "adaptive average": lambda: f.adaptive_avg_pool2d(image, (3, 4)),
        "adaptive maximum": lambda: f.adaptive_max_pool2d(image, (3, 4), return_indices=True),
        "maximum and where": lambda: f.max_pool2d(image, 3, 2, padding=1, return_indices=True),
        "dilated maximum": lambda: f.max_pool2d(image, 2, 1, dilation=2, ceil_mode=True),
        "fold": lambda: f.fold(blocks, (4, 5), (3, 2), stride=(1, 2), padding=(0, 1), dilation=(1, 2)),
        "batch norm": lambda: aten._native_batch_norm_legit.no_stats(image, None, None, True, 0.1, 1e-2)[0],
        "maxima, backward": lambda: aten.max_pool2d_with_indices_backward(
            image[..., ::2, ::2], image, [2], [2], [0], [1], False, torch.arange(0, 24, 4).reshape(1, 1, 2, 3)
        ),
        "averages, backward": lambda: aten.avg_pool2d_backward(
            image[..., ::2, ::2], image, [2], [2], [0], False, True, None
        ),
        "embedding, backward": lambda: aten.embedding_dense_backward(x, ROWS, 4, -1, False),
        "adaptive average, backward": lambda: aten._adaptive_avg_pool2d_backward(image[..., :2, :4], image),
        "all of a bag's results": lambda: [
            aten._embedding_bag(x, ROWS + zeros, ROWS.sort()[0] // 2 + zeros, False, mode) for mode in (1, 2)
        ],
        "embedding bags": lambda: f.embedding_bag(ROWS, x, torch.tensor([0, 1, 1]), mode="mean"),
        "largest of bags": lambda: f.embedding_bag(INDEX, x, mode="max"),
        "weighted bags": lambda: f.embedding_bag(INDEX, x, mode="sum", per_sample_weights=y[:2], padding_idx=2),
    }


def convolutions(x: torch.Tensor, y: torch.Tensor) -> Cases:
    """Gradients by input, weight and bias, of convolutions and transposed ones."""
    image, kernel = torch.stack((x, y)).repeat(2, 2, 2).reshape(2, 4, 3, 8), y.repeat(2, 2)[:4, :4].reshape(4, 2, 1, 2)
    found: Cases = {}
    for transposed in (False, True):
        for groups, stride, dilation, padding in ((2, [1, 1], [1, 2], [1, 0]), (2, [2, 3], [1, 1], [0, 1])):
            how: Any = (stride, padding, dilation, transposed, [0, 0], groups)
            output = aten.convolution(image, kernel, None, *how)
            found[f"{transposed} {stride}"] = lambda output=output, how=how: aten.convolution_backward(
                output, image, kernel, [output.size(1)], *how, [True, True, True]
            )
    return found


def bits(x: torch.Tensor, y: torch.Tensor) -> Cases:
    return {
        "and": lambda: x & y,
        "or": lambda: x | y,
        "xor": lambda: x ^ y,
        "and a number": lambda: x & -6,
        "left shift": lambda: x << y.abs(),
        "right shift": lambda: x >> y.abs(),
        "left shift by a number": lambda: x << 40,
        "right shift by a number": lambda: x >> 1,
        "cumprod": lambda: torch.cumprod(x, 1),
        "histc": lambda: torch.histc(x.float(), bins=4, min=-4, max=4),
        "one_hot": lambda: f.one_hot((x % 4).long(), 4),
    }


def attention(x: torch.Tensor, y: torch.Tensor) -> Cases:
    query = torch.stack((x, y, x + y, x - y)).unsqueeze(0)
    key, value = query[:, :2] * 2, query[:, 1:3]
    attend = f.scaled_dot_product_attention
    return {
        "plain": lambda: attend(query[:, :2], key, value, scale=0.3),
        "causal": lambda: attend(query[:, :2], key, value, is_causal=True),
        "mask": lambda: attend(query[:, :2], key, value, attn_mask=MASK[:, :3]),
        "added mask": lambda: attend(query[:, :2], key, value, attn_mask=x[:, :3]),
        "groups": lambda: attend(query, key, value, enable_gqa=True),
        "einsum": lambda: torch.einsum("bhld,bhsd->bhls", query, query),
        "baddbmm": lambda: torch.baddbmm(query[0], query[0], query[0, :, :1].mT @ y[:1], beta=0.5, alpha=2),
    }


def resizes(x: torch.Tensor, y: torch.Tensor) -> Cases:
    """Every mode, by size and by scale, with corners aligned or not."""
    image = torch.cat((x, y)).reshape(1, 2, 3, 4)
    row, volume = image.flatten(2), image.reshape(1, 2, 2, 3, 2)
    inputs = {
        "linear": (row, 7),
        "bilinear": (image, (5, 2)),
        "bicubic": (image, (2, 6)),
        "trilinear": (volume, (3, 2, 5)),
    }
    found: Cases = {"area": lambda: f.interpolate(image, size=(2, 3), mode="area")}
    for mode, (given, size) in inputs.items():
        for aligned in (False, True):
            how: dict[str, Any] = {"mode": mode, "align_corners": aligned}
            found[f"{mode} {aligned}"] = lambda given=given, size=size, how=how: f.interpolate(given, size=size, **how)
            found[f"{mode} {aligned} by scale"] = lambda given=given, how=how: f.interpolate(
                given, scale_factor=1.7, **how
            )
    for mode in ("nearest", "nearest-exact"):
        found[mode] = lambda mode=mode: f.interpolate(image, size=(5, 2), mode=mode)
        found[f"{mode} by scale"] = lambda mode=mode: f.interpolate(image, scale_factor=1.7, mode=mode)
        found[f"{mode} volume"] = lambda mode=mode: f.interpolate(volume, scale_factor=2.0, mode=mode)
    return found


class All(nn.Module):
    """Every case at once, so that one engine serves them all."""

    def __init__(self, cases: Callable[..., Cases]) -> None:
        super().__init__()
        self.cases = cases

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
        return {name: case() for name, case in self.cases(x, y).items()}


def operands(dtype: torch.dtype, edges: bool) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    x, y = (torch.randint(-9, 9, (3, 4), generator=random) for _ in range(2))
    if dtype.is_floating_point:
        x, y = x / 4, y / 4
        if edges:
            x[0, :3] = torch.tensor([math.nan, math.inf, -0.0])
            y[0, :3] = torch.tensor([-0.0, -math.inf, -1.0])
    return x.to(dtype), y.to(dtype)


def check(cases: Callable[..., Cases], dtype: torch.dtype, edges: bool = False) -> None:
    x, y = operands(dtype, edges)
    compiled = trtplug.compile(All(cases), (x, y), min_block_size=1)
    assert not compiled.report.torch_ops, str(compiled.report)
    results = compiled(x, y)
    for name, expected in All(cases)(x, y).items():
        tolerance = TOLERANCE.get(dtype, 1e-5)
        torch.testing.assert_close(
            results[name], expected, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.filterwarnings("ignore:index_reduce.. is in beta:UserWarning")
@pytest.mark.filterwarnings("ignore:The reduce argument of torch.scatter:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64], ids=str)
@pytest.mark.parametrize("cases", [reductions, writes, orders, views])
def test_any_numbers(cases: Callable[..., Cases], dtype: torch.dtype) -> None:
    check(cases, dtype, edges=cases is not reductions)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_floats(dtype: torch.dtype) -> None:
    check(halves_too, dtype)


@pytest.mark.parametrize("dtype", INTS, ids=str)
def test_integers(dtype: torch.dtype) -> None:
    check(bits, dtype)


@pytest.mark.parametrize("cases", [attention, convolutions, resizes])
def test_float32(cases: Callable[..., Cases]) -> None:
    check(cases, torch.float32)
