"""The layer table: layers that put elements together along axes."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from trtplug._tensorrt import library
from trtplug.testing.parity.sketch import (
    F16,
    F32,
    FLOATS,
    I32,
    I64,
    INTS,
    LayerCase,
    Sketch,
    ordinary,
    special_rows,
    table,
)  # fmt: skip

_NUMBERS = (*FLOATS, *INTS)
_NORMS = ("layer", "group", "instance")


def cases() -> Iterator[LayerCase]:
    trt = library()
    operations = [name for name in trt.ReduceOperation.__members__ if name != "NONE"]
    yield from table("reduce", operations, _NUMBERS, _reduce)
    yield from table("reduce large", ["SUM", "AVG", "PROD"], FLOATS, _reduce_large)
    yield from table("reduce empty", operations, (F32, I32, I64), _reduce_empty)
    modes = [f"{name} {k}" for name in trt.TopKOperation.__members__ for k in (1, 3)]
    yield from table("topk", modes, _NUMBERS, _topk)
    yield from table("topk indices", modes, _NUMBERS, _topk_indices)
    yield from table("topk long ties", ["MAX 5", "MIN 5"], (F32, I32), _topk_long)
    yield from table("cumulative", ["", "exclusive", "reverse", "exclusive reverse"], _NUMBERS, _cumulative)
    yield from table("softmax", ["last axis", "first axis"], FLOATS, _softmax)
    yield from table("ragged_softmax", [""], (F32,), _ragged_softmax)
    yield from table("normalization", [f"v1 {norm}" for norm in _NORMS], FLOATS, _normalization)
    yield from table("normalization", [f"v2 {norm}" for norm in _NORMS], FLOATS, _normalization)
    yield from table("normalization large mean", ["v1 layer", "v2 layer"], FLOATS, _normalization_large_mean)
    yield from table("lrn", [""], FLOATS, _lrn)
    yield from table("non_zero", [""], (F32, torch.bool), _non_zero)
    yield from table("nms", [""], (F32, F16), _nms)


def _reduce(s: Sketch, mode: str) -> None:
    s.output(s.add("reduce", s.input(special_rows(s.dtype)), s.enum("ReduceOperation", mode), 2, False).get_output(0))


def _reduce_large(s: Sketch, mode: str) -> None:
    x = ordinary(s.dtype, 3, 4000) if mode != "PROD" else 1 + ordinary(s.dtype, 3, 300, span=0.01)
    s.output(s.add("reduce", s.input(x), s.enum("ReduceOperation", mode), 2, True).get_output(0))


def _reduce_empty(s: Sketch, mode: str) -> None:
    x = s.input(torch.ones(3, 0, dtype=s.dtype))
    s.output(s.add("reduce", x, s.enum("ReduceOperation", mode), 2, False).get_output(0))


def _topk_layer(s: Sketch, mode: str, values: torch.Tensor) -> object:
    name, k = mode.split()
    return s.add("topk", s.input(values), s.enum("TopKOperation", name), int(k), 2)


def _topk(s: Sketch, mode: str) -> None:
    s.output(_topk_layer(s, mode, special_rows(s.dtype)).get_output(0))  # type: ignore[attr-defined]


def _topk_indices(s: Sketch, mode: str) -> None:
    s.output(_topk_layer(s, mode, special_rows(s.dtype)).get_output(1))  # type: ignore[attr-defined]


def _topk_long(s: Sketch, mode: str) -> None:
    x = torch.stack([torch.arange(2000) % 3, torch.zeros(2000), torch.arange(2000) // 100]).to(s.dtype)
    layer = _topk_layer(s, mode, x)
    s.output(layer.get_output(0), layer.get_output(1))  # type: ignore[attr-defined]


def _cumulative(s: Sketch, mode: str) -> None:
    x = s.input(torch.cat([special_rows(s.dtype), ordinary(s.dtype, 2, 4)]))
    axis, how = s.constant(torch.tensor(1, dtype=I32)), s.trt.CumulativeOperation.SUM
    s.output(s.add("cumulative", x, axis, how, "exclusive" in mode, "reverse" in mode).get_output(0))


def _softmax(s: Sketch, mode: str) -> None:
    x = special_rows(s.dtype) if mode == "last axis" else special_rows(s.dtype).T.contiguous()
    s.output(s.add("softmax", s.input(x), axes=2 if mode == "last axis" else 1).get_output(0))


def _ragged_softmax(s: Sketch, mode: str) -> None:
    x, bounds = (
        s.input(ordinary(s.dtype, 2, 3, 4)),
        s.input(torch.tensor([1, 2, 3, 4, 0, 2], dtype=I32).reshape(2, 3, 1)),
    )
    s.output(s.add("ragged_softmax", x, bounds).get_output(0))


def _normalization(s: Sketch, mode: str) -> None:
    version, norm = mode.split()
    kind = "normalization" if version == "v1" else "normalization_v2"
    shape: tuple[int, ...]
    if norm == "layer":
        x, shape, axes, groups = ordinary(s.dtype, 4, 3, 16), (1, 1, 16), 4, 1
    else:
        groups = 2 if norm == "group" else 1
        channels = 2 if norm == "group" and version == "v1" else 4
        x, shape, axes = ordinary(s.dtype, 2, 4, 5, 5), (1, channels, 1, 1), 12
    scale, bias = s.constant(ordinary(s.dtype, *shape, seed=1)), s.constant(ordinary(s.dtype, *shape, seed=2))
    s.output(s.add(kind, s.input(x), scale, bias, axes, num_groups=groups).get_output(0))


def _normalization_large_mean(s: Sketch, mode: str) -> None:
    kind = "normalization" if mode.startswith("v1") else "normalization_v2"
    one, zero = torch.ones(1, 1, 64, dtype=s.dtype), torch.zeros(1, 1, 64, dtype=s.dtype)
    x = ordinary(s.dtype, 2, 3, 64) + 100
    s.output(s.add(kind, s.input(x), s.constant(one), s.constant(zero), 4).get_output(0))


def _lrn(s: Sketch, mode: str) -> None:
    s.output(s.add("lrn", s.input(ordinary(s.dtype, 2, 6, 3, 3)), 3, 0.1, 0.75, 1.0).get_output(0))


def _non_zero(s: Sketch, mode: str) -> None:
    s.output(s.add("non_zero", s.input(ordinary(s.dtype, 4, 4))).get_output(0))


def _nms(s: Sketch, mode: str) -> None:
    boxes, scores = ordinary(s.dtype, 1, 10, 1, 4), ordinary(s.dtype, 1, 10, 2, seed=1)
    most = s.constant(torch.tensor(10, dtype=I32))
    s.output(s.add("nms", s.input(boxes), s.input(scores), most).get_output(0))
