from __future__ import annotations

from typing import Any

import pytest
import torch

from trtplug.testing import SizeOf, run_op
from trtplug_registry import Registry

aten = torch.ops.aten
X = torch.arange(24.0).reshape(2, 3, 4)
ROWS = SizeOf((("self", 0),))


@pytest.mark.parametrize(
    ("op", "args", "expected"),
    [
        (aten.view.default, (X, [6, -1]), "SHUFFLE"),
        (aten.flatten.using_ints, (X, 1), "SHUFFLE"),
        (aten.flatten.using_ints, (X, 1, 1), ""),
        (aten.flatten.using_ints, (X, -2, 1), ""),
        (aten.permute.default, (X, [2, 0, 1]), "SHUFFLE"),
        (aten.permute.default, (X, [0, 1, 2]), ""),
        (aten.transpose.int, (X, 0, -1), "SHUFFLE"),
        (aten.squeeze.default, (X,), ""),
        (aten.squeeze.dim, (X[:1], 0), "SQUEEZE"),
        (aten.unsqueeze.default, (X, -1), "UNSQUEEZE"),
        (aten.expand.default, (X, [-1, 3, 4]), ""),
        (aten.expand.default, (X, [5, 2, 3, 4]), "UNSQUEEZE, SLICE"),
        (aten.repeat.default, (X, [2, 1, 3]), "SLICE"),
        (aten.movedim.int, (X, 0, -1), "SHUFFLE"),
    ],
)
def test_layers(layers: Any, op: Any, args: tuple[Any, ...], expected: str) -> None:
    assert layers(op, *args) == expected


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (aten.unsqueeze.default, (torch.ones((1,) * 8), 0)),
        (aten.view.default, (torch.ones(4), [1] * 8 + [4])),
        (aten.unflatten.int, (torch.ones((2,) * 8), 0, [1, 2])),
        (aten.repeat.default, (torch.ones(4), [1] * 9)),
    ],
)
def test_refuses_a_ninth_dimension(refusal: Any, op: Any, args: tuple[Any, ...]) -> None:
    assert "TensorRT tensors have at most 8 dimensions" in refusal(op, *args)


@pytest.mark.parametrize(
    ("op", "args", "symbolic", "sizes"),
    [
        (aten.view.default, ([-1, 12],), [0], {}),
        (aten.view.default, ([2, -1],), [0], {"size[0]": ROWS}),
        (aten.flatten.using_ints, (0, 1), [0, 1], {}),
        (aten.unflatten.int, (0, [-1, 1]), [0], {}),
        (aten.repeat.default, ([2, 1, 1, 3],), [0], {"repeats[0]": ROWS}),
        (aten.expand.default, ([2, -1, 3, 4],), [0], {"size[0]": ROWS}),
    ],
)
def test_sizes_may_be_symbolic(
    built_in: Registry, op: Any, args: tuple[Any, ...], symbolic: list[int], sizes: dict[str, SizeOf]
) -> None:
    (result,) = run_op(built_in, op, (X, *args), symbolic={"self": symbolic}, sizes=sizes)
    assert torch.equal(result, op(X, *args))


@pytest.mark.parametrize("least", [0, 1])
def test_only_what_may_be_empty_is_repeated_without_wrapping(layers: Any, least: int) -> None:
    found = layers(aten.repeat.default, X, [2, 1, 3], symbolic={"self": [0]}, least=least)
    assert ("SHUFFLE" in found) == (not least)
    assert found.endswith("SLICE")


def test_fewer_than_no_repeats_are_none(built_in: Registry) -> None:
    sizes: Any = {"symbolic": {"self": [0]}, "example": {"self": [3]}, "ranges": {"self": [(0, 4)]}}
    less = SizeOf((("self", 0),), offset=-2)
    (result,) = run_op(built_in, aten.repeat.default, (torch.ones(0), [3, -2]), sizes={"repeats[1]": less}, **sizes)
    assert result.shape == (3, 0)
