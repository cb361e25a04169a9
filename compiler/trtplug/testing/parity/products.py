"""The layer table: layers that multiply and sum: products, windows, attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from trtplug._tensorrt import library
from trtplug.testing.parity.sketch import (
    BF16,
    F16,
    F32,
    FLOATS,
    I32,
    LayerCase,
    Sketch,
    ordinary,
    special_rows,
    table,
)  # fmt: skip

_CONVOLUTIONS = ("2d", "2d tensor kernel", "2d groups dilated strided", "2d uneven padding", "3d", "2d large")
_MASKS = ("no mask", "bool mask", "added mask", "causal")
_POOLS = ("EXPLICIT_ROUND_DOWN", "EXPLICIT_ROUND_UP", "SAME_UPPER", "SAME_LOWER")


def cases() -> Iterator[LayerCase]:
    trt = library()
    yield from table("convolution", _CONVOLUTIONS, FLOATS, _convolution)
    deconvolutions = ("2d", "2d groups", "3d", "2d SAME_UPPER", "2d SAME_LOWER")
    yield from table("deconvolution", deconvolutions, FLOATS, _deconvolution)
    operations = [f"{left} {right}" for left in ("NONE", "TRANSPOSE") for right in ("NONE", "TRANSPOSE")]
    yield from table("matrix_multiply", [*operations, "VECTOR NONE", "large"], FLOATS, _matmul)
    yield from table("matrix_multiply special", ["NONE NONE"], FLOATS, _matmul_special)
    yield from table("matrix_multiply empty", ["inner", "outer"], FLOATS, _matmul_empty)
    yield from table("einsum", ["bij,bjk->bik", "bij,bij->bi", "ij->ji"], FLOATS, _einsum)
    pools = [f"{kind} {mode}" for kind in trt.PoolingType.__members__ for mode in _POOLS]
    yield from table("pooling", [*pools, "AVERAGE counts padding", "MAX 3d", "AVERAGE 3d"], FLOATS, _pooling)
    yield from table("pooling special", ["MAX", "AVERAGE"], FLOATS, _pooling_special)
    forms = [f"{mask}{form}" for mask in _MASKS for form in ("", " decomposable")]
    yield from table("attention", forms, FLOATS, _attention)
    yield from table("rotary_embedding", ["", "interleaved"], FLOATS, _rotary)
    yield from table("kv_cache_update", [""], (F16, BF16, F32), _kv_cache)


def _convolution(s: Sketch, mode: str) -> None:
    nd = 3 if mode == "3d" else 2
    size, channels, maps = (6, 4, 8) if mode != "2d large" else (20, 64, 64)
    groups = 4 if "groups" in mode else 1
    x = s.input(ordinary(s.dtype, 2, channels, *(size,) * nd))
    kernel = ordinary(s.dtype, maps, channels // groups, *(3,) * nd, seed=1, span=0.5)
    if mode == "2d tensor kernel":
        layer = s.add("convolution_nd", x, maps, (3,) * nd, s.trt.Weights(), inputs={1: s.input(kernel)})
    else:
        given = [s.weights(f"network.convolution_nd.{name}", value) for name, value in
                 (("kernel", kernel), ("bias", ordinary(s.dtype, maps, seed=2)))]  # fmt: skip
        attributes: dict[str, Any] = {}
        if "groups" in mode:
            attributes = {"num_groups": groups, "dilation_nd": (2, 2), "stride_nd": (2, 1)}
        elif "padding" in mode:
            attributes = {"pre_padding": (1, 0), "post_padding": (2, 3)}
        layer = s.add("convolution_nd", x, maps, (3,) * nd, *given, **attributes)
    s.output(layer.get_output(0))


def _deconvolution(s: Sketch, mode: str) -> None:
    nd = 3 if mode == "3d" else 2
    groups = 2 if "groups" in mode else 1
    x = s.input(ordinary(s.dtype, 1, 4, *(4,) * nd))
    kernel = s.weights("network.deconvolution_nd.kernel", ordinary(s.dtype, 4, 6 // groups, *(3,) * nd, seed=1))
    attributes: dict[str, Any] = {"stride_nd": (2,) * nd, "num_groups": groups}
    if "SAME" in mode:
        attributes["padding_mode"] = s.enum("PaddingMode", mode.split()[1])
    s.output(s.add("deconvolution_nd", x, 6, (3,) * nd, kernel, **attributes).get_output(0))


def _matmul(s: Sketch, mode: str) -> None:
    none = s.trt.MatrixOperation.NONE
    if mode == "large":
        left, right = ordinary(s.dtype, 96, 512), ordinary(s.dtype, 512, 160, seed=1)
        s.output(s.add("matrix_multiply", s.input(left), none, s.input(right), none).get_output(0))
        return
    how = [s.enum("MatrixOperation", name) for name in mode.split()]
    shapes = [(2, 4, 8), (2, 8, 5)]
    if mode.startswith("VECTOR"):
        shapes[0] = (2, 8)  # type: ignore[assignment]  # a vector has one axis less
    values = [ordinary(s.dtype, *shape, seed=seed) for seed, shape in enumerate(shapes)]
    turned = [v.mT.contiguous() if name == "TRANSPOSE" else v for v, name in zip(values, mode.split())]
    s.output(s.add("matrix_multiply", s.input(turned[0]), how[0], s.input(turned[1]), how[1]).get_output(0))


def _matmul_special(s: Sketch, mode: str) -> None:
    none, right = s.trt.MatrixOperation.NONE, torch.eye(4, dtype=s.dtype) + 1
    s.output(s.add("matrix_multiply", s.input(special_rows(s.dtype)), none, s.input(right), none).get_output(0))


def _matmul_empty(s: Sketch, mode: str) -> None:
    shapes = ((3, 0), (0, 4)) if mode == "inner" else ((0, 3), (3, 4))
    left, right = (s.input(torch.ones(shape, dtype=s.dtype)) for shape in shapes)
    none = s.trt.MatrixOperation.NONE
    s.output(s.add("matrix_multiply", left, none, right, none).get_output(0))


def _einsum(s: Sketch, mode: str) -> None:
    shapes = {"bij,bjk->bik": ((2, 4, 8), (2, 8, 5)), "bij,bij->bi": ((2, 4, 8), (2, 4, 8)), "ij->ji": ((4, 8),)}[mode]
    operands = [s.input(ordinary(s.dtype, *shape, seed=seed)) for seed, shape in enumerate(shapes)]
    s.output(s.add("einsum", operands, mode).get_output(0))


def _pooling(s: Sketch, mode: str) -> None:
    kind, what = mode.split(maxsplit=1)
    nd = 3 if what == "3d" else 2
    x = s.input(ordinary(s.dtype, 1, 2, *(5,) * nd))
    attributes: dict[str, Any] = {"stride_nd": (2,) * nd, "padding_nd": (1,) * nd}
    if what in _POOLS:
        attributes["padding_mode"] = s.enum("PaddingMode", what)
    if what == "counts padding":
        attributes["average_count_excludes_padding"] = False
    s.output(s.add("pooling_nd", x, s.enum("PoolingType", kind), (3,) * nd, **attributes).get_output(0))


def _pooling_special(s: Sketch, mode: str) -> None:
    x = s.input(special_rows(s.dtype)[None, None])
    s.output(s.add("pooling_nd", x, s.enum("PoolingType", mode), (1, 2)).get_output(0))


def _attention(s: Sketch, mode: str) -> None:
    values = [s.input(ordinary(s.dtype, 2, 4, 8, 64, seed=seed, span=1.0)) for seed in range(3)]
    causal, decomposable = mode.startswith("causal"), "decomposable" in mode
    kind = s.trt.AttentionNormalizationOp.SOFTMAX
    layer = s.add("attention", *values, kind, causal, decomposable=decomposable)
    keep = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(3)) > 0.3
    keep[..., 0] = True
    if "bool" in mode:
        layer.mask = s.input(keep)
    elif "added" in mode:
        layer.mask = s.input(torch.zeros(keep.shape).masked_fill(~keep, -10.0).to(s.dtype))
    s.output(layer.get_output(0))


def _rotary(s: Sketch, mode: str) -> None:
    x = s.input(ordinary(s.dtype, 2, 4, 8, 16))
    angles = ordinary(F32, 2, 8, 8, seed=1)
    tables = s.input(angles.cos().to(s.dtype)), s.input(angles.sin().to(s.dtype))
    s.output(s.add("rotary_embedding", x, *tables, mode == "interleaved", 0).get_output(0))


def _kv_cache(s: Sketch, mode: str) -> None:
    cache, update = s.input(ordinary(s.dtype, 2, 4, 16, 16)), s.input(ordinary(s.dtype, 2, 4, 1, 16, seed=1))
    index = s.input(torch.tensor([3, 5], dtype=I32))
    s.output(s.add("kv_cache_update", cache, update, index, s.trt.KVCacheMode.LINEAR).get_output(0))
