from __future__ import annotations

from typing import Any

import pytest
import torch

from trtplug.testing import SizeOf, run_op
from trtplug_registry import Registry

aten = torch.ops.aten
X = torch.arange(24.0).reshape(6, 4)
LARGEST = 2**63 - 1


@pytest.mark.parametrize(
    ("op", "args", "expected"),
    [
        (aten.slice.Tensor, (X, 0, 1, 3), "SLICE"),
        (aten.slice.Tensor, (X, 0, 0, LARGEST), ""),
        (aten.slice.Tensor, (X, 0, 0, LARGEST, 2), "SLICE"),
        (aten.select.int, (X, 0, -1), "GATHER"),
        (aten.narrow.default, (X, 1, -2, 1), "SLICE"),
        (aten.constant_pad_nd.default, (X, [1, -1, 0, 2], 7.0), "SLICE"),
        (aten.constant_pad_nd.default, (X, []), ""),
        (aten.pad.default, (X, [1, 1], "reflect"), "SLICE"),
        (aten.pad.default, (X, [1, 0], "circular"), "SLICE"),
        (aten.pad.default, (X, [-1, 1], "circular"), "SLICE, SLICE"),
        (aten.replication_pad1d.default, (X, [1, 1]), "SLICE"),
    ],
)
def test_layers(layers: Any, op: Any, args: tuple[Any, ...], expected: str) -> None:
    assert layers(op, *args) == expected


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [(None, None, 1), (1, None, 1), (-2, None, 1), (0, -1, 2), (2, 100, 3), (-100, 2, 1), (4, 2, 1), (50, 60, 1)],
)
@pytest.mark.parametrize("rows", [2, 6])
def test_slices_of_a_symbolic_axis(
    built_in: Registry, start: int | None, end: int | None, step: int, rows: int
) -> None:
    args = (X[:rows], 0, start, end, step)
    example, ranges = {"self": (5, 4)}, {"self": [(2, 9)]}
    if (start or 0) >= 4:  # a result that is always empty is no symbolic size
        example = {"self": (6, 4)}
    (result,) = run_op(built_in, aten.slice.Tensor, args, symbolic={"self": [0]}, example=example, ranges=ranges)
    assert torch.equal(result, aten.slice.Tensor(*args))


@pytest.mark.parametrize(
    ("op", "args", "place", "size"),
    [
        (aten.slice.Tensor, (0, 0, 5), "end", SizeOf((("self", 0),), offset=-1)),
        (aten.slice.Tensor, (0, -6, LARGEST), "start", SizeOf((("self", 0),), factor=-1)),
        (aten.select.int, (0, 5), "index", SizeOf((("self", 0),), offset=-1)),
        (aten.select.int, (0, -6), "index", SizeOf((("self", 0),), factor=-1)),
        (aten.narrow.default, (0, 1, 5), "length", SizeOf((("self", 0),), offset=-1)),
    ],
)
def test_places_may_be_symbolic(built_in: Registry, op: Any, args: tuple[Any, ...], place: str, size: SizeOf) -> None:
    (result,) = run_op(built_in, op, (X, *args), symbolic={"self": [0]}, sizes={place: size})
    assert torch.equal(result, op(X, *args))


def test_circular_padding_crops_first(built_in: Registry) -> None:
    args = (torch.arange(12.0).reshape(1, 2, 6), [2, -1], "circular")
    (result,) = run_op(built_in, aten.pad.default, args)
    assert torch.equal(result, aten.pad.default(*args))
