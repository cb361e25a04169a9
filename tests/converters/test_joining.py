from __future__ import annotations

from typing import Any

import pytest
import torch

from trtplug.testing import run_op
from trtplug_registry import Registry

aten = torch.ops.aten
X = torch.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("op", "args", "expected"),
    [
        (aten.cat.default, ([X, X], 1), "CONCATENATION"),
        (aten.cat.default, ([X],), ""),
        (aten.cat.default, ([torch.ones(0), X],), ""),
        (aten.stack.default, ([X, X],), "UNSQUEEZE, UNSQUEEZE, CONCATENATION"),
        (aten.split.Tensor, (X, 2, 1), "SLICE, SLICE"),
        (aten.chunk.default, (X, 2, -1), "SLICE, SLICE"),
        (aten.unbind.int, (X,), "GATHER, GATHER"),
        (aten.flip.default, (X, [0, -1]), "SLICE"),
        (aten.flip.default, (X, []), ""),
        (aten.roll.default, (X, [1, 2], [0, 1]), "SLICE, SLICE"),
        (aten.roll.default, (X, [1]), "SHUFFLE, SLICE, SHUFFLE"),
    ],
)
def test_layers(layers: Any, op: Any, args: tuple[Any, ...], expected: str) -> None:
    assert layers(op, *args) == expected


@pytest.mark.parametrize("least", [0, 1])
def test_only_what_may_be_empty_is_rolled_without_wrapping(layers: Any, least: int) -> None:
    found = layers(aten.roll.default, X, [1], [0], symbolic={"self": [0]}, least=least)
    assert ("CONCATENATION" in found) == (not least)
    assert found.endswith("SLICE")


def test_stack_refuses_a_ninth_dimension(refusal: Any) -> None:
    assert "at most 8 dimensions" in refusal(aten.stack.default, [torch.ones((1,) * 8)])


@pytest.mark.parametrize(
    ("op", "args", "shape"),
    [
        (aten.split.Tensor, (4,), (7, 2)),
        (aten.chunk.default, (2,), (7, 2)),
        (aten.chunk.default, (3,), (8, 2)),
        (aten.flip.default, ([0],), (5, 2)),
        (aten.roll.default, ([-3], [0]), (5, 2)),
        (aten.roll.default, ([3],), (5, 2)),
    ],
)
def test_the_divided_axis_may_be_symbolic(
    built_in: Registry, op: Any, args: tuple[Any, ...], shape: tuple[int, ...]
) -> None:
    x = torch.rand(shape)
    results = run_op(built_in, op, (x, *args), symbolic={"self": [0]})
    eager = op(x, *args)
    for ours, theirs in zip(results, eager if isinstance(eager, list | tuple) else [eager], strict=True):
        assert torch.equal(ours, theirs)
