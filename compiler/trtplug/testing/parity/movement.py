"""The layer table: layers that move elements, pick them, or make them from nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from trtplug._tensorrt import library, trt_dtype
from trtplug.testing.parity.sketch import (
    ALL,
    BF16,
    F16,
    F32,
    FLOATS,
    I32,
    I64,
    LayerCase,
    Sketch,
    ordinary,
    special_rows,
    table,
)  # fmt: skip

_SLICES = ("plain", "strided", "backwards", "empty", "FILL", "CLAMP", "REFLECT", "WRAP")
_PICKS = ("DEFAULT", "DEFAULT batched", "ELEMENT", "ND", "DEFAULT from the end", "ELEMENT from the end")


def cases() -> Iterator[LayerCase]:
    trt = library()
    yield from table("concatenation", ["", "with empty"], ALL, _concatenation)
    yield from table("shuffle", ["transpose reshape", "rank 8", "empty"], ALL, _shuffle)
    yield from table("squeeze", [""], ALL, _squeeze)
    yield from table("slice", _SLICES, ALL, _slice)
    yield from table("gather", _PICKS, ALL, _gather)
    yield from table("scatter", ["ELEMENT", "ND", "ELEMENT from the end"], ALL, _scatter)
    yield from table("one_hot", ["in range", "outside"], (F32, F16, I32, I64), _one_hot)
    yield from table("reverse_sequence", [""], (F32, F16), _reverse_sequence)
    yield from table("padding", [""], FLOATS, _padding)
    yield from table("fill", ["LINSPACE"], (F32, F16, BF16, I32, I64), _fill)
    yield from table("shape", [""], (F32,), _shape)
    yield from table("loop", ["sum over rows"], (F32,), _loop)
    yield from table("if", ["true", "false"], (F32,), _if)
    for interpolation in trt.InterpolationMode.__members__:
        for coordinates in trt.ResizeCoordinateTransformation.__members__:
            targets = ("x0.6", "x0.5", "x2", "x1.5", "to 3", "to 8", "to 1")
            modes = [f"{interpolation} {coordinates} {target}" for target in targets]
            yield from table("resize", modes, (F32,), _resize)
            yield from table("resize", modes[2:3] + modes[4:5], (F16, BF16), _resize)
    rounds = [f"{name} {size}" for name in trt.ResizeRoundMode.__members__ for size in (3, 4, 10)]
    yield from table("resize rounding", rounds, (F32,), _resize_rounding)
    grids = [
        f"{mode} {outside} {aligned}"
        for mode in trt.InterpolationMode.__members__
        for outside in ("FILL", "CLAMP", "REFLECT")
        for aligned in ("aligned", "unaligned")
    ]
    yield from table("grid_sample", grids, (F32,), _grid_sample)
    yield from table("grid_sample", grids[:1], (F16, BF16), _grid_sample)


def _mixed(s: Sketch, *shape: int, seed: int = 0) -> torch.Tensor:
    """Ordinary values with special ones at the front."""
    value = ordinary(s.dtype, *shape, seed=seed)
    if s.dtype.is_floating_point:
        special = special_rows(s.dtype)[2:9].flatten()[: value.numel() // 2]
        value.view(-1)[: len(special)] = special
    return value


def _concatenation(s: Sketch, mode: str) -> None:
    empty = [s.input(torch.ones(2, 0, dtype=s.dtype))] if mode else []
    parts = [s.input(_mixed(s, 2, 3)), *empty, s.input(_mixed(s, 2, 4, seed=1))]
    s.output(s.add("concatenation", parts, axis=1).get_output(0))


def _shuffle(s: Sketch, mode: str) -> None:
    if mode == "rank 8":
        layer = s.add("shuffle", s.input(_mixed(s, 2, 1, 2, 1, 3, 1, 2, 2)), first_transpose=(7, 6, 5, 4, 3, 2, 1, 0))
    elif mode == "empty":
        x = s.input(torch.ones(0, 6, dtype=s.dtype))
        layer = s.add("shuffle", x, zero_is_placeholder=False, reshape_dims=(3, 0, 2))
    else:
        x = s.input(_mixed(s, 4, 6))
        layer = s.add("shuffle", x, first_transpose=(1, 0), reshape_dims=(2, 12))
    s.output(layer.get_output(0))


def _squeeze(s: Sketch, mode: str) -> None:
    x = s.add("unsqueeze", s.input(_mixed(s, 2, 1, 3)), s.constant([0])).get_output(0)
    s.output(s.add("squeeze", x, s.constant([2])).get_output(0))


def _slice(s: Sketch, mode: str) -> None:
    x = s.input(_mixed(s, 3, 8))
    plain = {
        "plain": ((1, 2), (2, 4), (1, 1)),
        "strided": ((0, 1), (2, 3), (2, 3)),
        "backwards": ((0, 7), (3, 8), (1, -1)),
        "empty": ((0, 3), (3, 0), (1, 1)),
    }
    if mode in plain:
        s.output(s.add("slice", x, *plain[mode]).get_output(0))
    else:
        layer = s.add("slice", x, (0, -2), (3, 12), (1, 1), mode=s.enum("SampleMode", mode))
        s.output(layer.get_output(0))


def _gather(s: Sketch, mode: str) -> None:
    x = s.input(_mixed(s, 4, 8))
    name = mode.split()[0]
    low = -4 if "from the end" in mode else 0
    shape = (4, 2) if name != "DEFAULT" or "batched" in mode else (3,)
    index = s.input(torch.arange(shape[0] * (shape[1] if len(shape) > 1 else 1)).reshape(shape) % 4 + low)
    layer = s.add("gather_v2", x, index, s.enum("GatherMode", name))
    if name != "ND":
        layer.axis = 1
    if "batched" in mode:
        layer.num_elementwise_dims = 1
    s.output(layer.get_output(0))


def _scatter(s: Sketch, mode: str) -> None:
    x, name = s.input(_mixed(s, 4, 8)), mode.split()[0]
    low = -8 if "from the end" in mode else 0
    if name == "ELEMENT":
        index = s.input(torch.tensor([[0, 3, 7], [1, 2, 5], [6, 4, 0], [7, 1, 3]]) + low)
        layer = s.add("scatter", x, index, s.input(_mixed(s, 4, 3, seed=1)), s.trt.ScatterMode.ELEMENT, axis=1)
    else:
        index = s.input(torch.tensor([[0, 1], [3, 7], [2, 2]]))
        layer = s.add("scatter", x, index, s.input(_mixed(s, 3, seed=1)), s.trt.ScatterMode.ND)
    s.output(layer.get_output(0))


def _one_hot(s: Sketch, mode: str) -> None:
    index = torch.tensor([0, 2, 1] if mode == "in range" else [0, 2, -1, 3, -4], dtype=I32)
    values, depth = s.constant([5, 9], s.dtype), s.constant(torch.tensor(3, dtype=I32))
    s.output(s.add("one_hot", s.input(index), values, depth, -1).get_output(0))


def _reverse_sequence(s: Sketch, mode: str) -> None:
    x, lengths = s.input(ordinary(s.dtype, 4, 4, 3)), s.input(torch.tensor([1, 2, 3, 4], dtype=I32))
    s.output(s.add("reverse_sequence", x, lengths).get_output(0))


def _padding(s: Sketch, mode: str) -> None:
    s.output(s.add("padding_nd", s.input(_mixed(s, 1, 2, 4, 4)), (1, 0), (-1, 2)).get_output(0))


def _fill(s: Sketch, mode: str) -> None:
    layer = s.add("fill", (5,), s.trt.FillOperation.LINSPACE, trt_dtype(s.dtype))
    layer.alpha, layer.beta = 1, 2
    s.output(layer.get_output(0))


def _shape(s: Sketch, mode: str) -> None:
    s.output(s.add("shape", s.input(ordinary(s.dtype, 2, 3))).get_output(0))


def _loop(s: Sketch, mode: str) -> None:
    x, loop = s.input(ordinary(s.dtype, 4, 6)), s.builder.definition.add_loop()
    loop.add_trip_limit(s.constant(torch.tensor(4, dtype=I32)), s.trt.TripLimit.COUNT)
    row, total = loop.add_iterator(x, 0, False), loop.add_recurrence(s.constant(torch.zeros(6)))
    both = s.add("elementwise", row.get_output(0), total.get_output(0), s.trt.ElementWiseOperation.SUM)
    total.set_input(1, both.get_output(0))
    s.output(loop.add_loop_output(total.get_output(0), s.trt.LoopOutput.LAST_VALUE, 0).get_output(0))


def _if(s: Sketch, mode: str) -> None:
    x, choice = s.input(ordinary(s.dtype, 4, 6)), s.input(torch.tensor(mode == "true"))
    conditional = s.builder.definition.add_if_conditional()
    conditional.set_condition(choice)
    inner = conditional.add_input(x).get_output(0)
    yes = s.add("activation", inner, s.trt.ActivationType.RELU).get_output(0)
    no = s.add("unary", inner, s.trt.UnaryOperation.NEG).get_output(0)
    s.output(conditional.add_output(yes, no).get_output(0))


def _resize(s: Sketch, mode: str) -> None:
    interpolation, coordinates, *target = mode.split()
    x = (torch.arange(20, dtype=torch.float64).reshape(1, 1, 4, 5) ** 1.5).to(s.dtype)
    to_size = target[0] == "to"
    goal: dict[str, Any] = (
        {"shape": (1, 1, 4, int(target[1]))} if to_size else {"scales": [1, 1, 1, float(target[0][1:])]}
    )
    layer = s.add(
        "resize",
        s.input(x),
        **goal,
        resize_mode=s.enum("InterpolationMode", interpolation),
        coordinate_transformation=s.enum("ResizeCoordinateTransformation", coordinates),
    )
    s.output(layer.get_output(0))


def _resize_rounding(s: Sketch, mode: str) -> None:
    rounding, size = mode.split()
    layer = s.add(
        "resize",
        s.input(torch.arange(5, dtype=s.dtype).reshape(1, 1, 1, 5)),
        shape=(1, 1, 1, int(size)),
        coordinate_transformation=s.trt.ResizeCoordinateTransformation.HALF_PIXEL,
        nearest_rounding=s.enum("ResizeRoundMode", rounding),
    )
    s.output(layer.get_output(0))


def _grid_sample(s: Sketch, mode: str) -> None:
    interpolation, outside, aligned = mode.split()
    x, grid = s.input(ordinary(s.dtype, 1, 2, 4, 5)), s.input(ordinary(s.dtype, 1, 3, 3, 2, seed=1, span=1.5))
    layer = s.add(
        "grid_sample",
        x,
        grid,
        interpolation_mode=s.enum("InterpolationMode", interpolation),
        sample_mode=s.enum("SampleMode", outside),
        align_corners=aligned == "aligned",
    )
    s.output(layer.get_output(0))
