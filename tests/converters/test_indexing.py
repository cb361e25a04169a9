from __future__ import annotations

from typing import Any

import pytest
import torch

from trtplug.testing import run_op
from trtplug_registry import Registry, TensorFacts

aten = torch.ops.aten
X = torch.arange(24.0).reshape(2, 3, 4)
I = torch.tensor([[0], [1]])  # noqa: E741
J = torch.tensor([1, 0, -1])
WRAPPED = "ELEMENTWISE LESS, ELEMENTWISE SUM, SELECT"


@pytest.mark.parametrize(
    ("op", "args", "expected"),
    [
        (aten.embedding.default, (X[0], I), "GATHER"),
        (aten.index_select.default, (X, 1, J.abs()), "GATHER"),
        (aten.index_select.default, (X, 1, torch.tensor(2)), "UNSQUEEZE, GATHER"),
        (aten.gather.default, (X, 1, torch.zeros(2, 1, 4, dtype=torch.int64)), "GATHER"),
        (aten.index.Tensor, (X, [None, J]), f"{WRAPPED}, GATHER"),
    ],
)
def test_layers(layers: Any, op: Any, args: tuple[Any, ...], expected: str) -> None:
    assert layers(op, *args) == expected


def test_places_that_are_known_are_counted_from_the_start(built_in: Registry) -> None:
    (result,) = run_op(built_in, aten.index.Tensor, (X, [None, J]), constants=["indices[1]"])
    assert torch.equal(result, X[:, J])


@pytest.mark.parametrize("indices", [[I, J], [I, None, J], [None, I, J], [I.int(), J]])
@pytest.mark.parametrize("symbolic", [None, {"self": [0, 1]}])
def test_several_indices(built_in: Registry, indices: list[Any], symbolic: Any) -> None:
    (result,) = run_op(built_in, aten.index.Tensor, (X, indices), symbolic=symbolic)
    assert torch.equal(result, aten.index.Tensor(X, indices))


CUBE, PLACES = torch.arange(120.0).reshape(2, 3, 4, 5), torch.tensor([0, 1])
APART = [[PLACES, PLACES, None, PLACES], [PLACES, None, PLACES], [None, PLACES, None, PLACES]]


@pytest.mark.parametrize("indices", APART)
def test_indices_that_are_not_side_by_side(built_in: Registry, indices: list[Any]) -> None:
    (result,) = run_op(built_in, aten.index.Tensor, (CUBE, indices))
    assert torch.equal(result, aten.index.Tensor(CUBE, indices))


@pytest.mark.parametrize("indices", [*APART, [None, PLACES, PLACES], [None, None, PLACES]])
def test_what_is_put_where_indices_are_not_side_by_side(built_in: Registry, indices: list[Any]) -> None:
    values = -torch.rand(aten.index.Tensor(CUBE, indices).shape)
    (result,) = run_op(built_in, aten.index_put.default, (CUBE, indices, values))
    assert torch.equal(result, aten.index_put.default(CUBE, indices, values))


@pytest.mark.parametrize(("places", "found"), [(PLACES, "GATHER"), (J, "GATHER")])
def test_what_is_known_is_counted_at_once(layers: Any, places: torch.Tensor, found: str) -> None:
    assert layers(aten.index_select.default, X, 1, places, constants=["index"]) == found
    assert layers(aten.index.Tensor, X, [None, places], constants=["indices[1]"]) == found


@pytest.mark.parametrize(("places", "from_its_end"), [(PLACES, False), (J, True)])
def test_what_is_known_of_a_symbolic_axis(layers: Any, places: torch.Tensor, from_its_end: bool) -> None:
    found = layers(aten.index.Tensor, X, [None, places], constants=["indices[1]"], symbolic={"self": (1,)})
    assert ("SELECT" in found) == from_its_end


def test_refuses_masks(built_in: Registry) -> None:
    converter = next(c for c in built_in.candidates(aten.index.Tensor) if c.name == "index")
    call = {"self": TensorFacts((2,), torch.float32), "indices": [TensorFacts((2,), torch.bool)]}
    assert "how many elements a mask selects" in str(converter.domain.refusal(call))


def test_refuses_a_ninth_dimension(refusal: Any) -> None:
    assert "at most 8 dimensions" in refusal(aten.index.Tensor, torch.ones((1,) * 8), [I])
    assert "at most 8 dimensions" in refusal(aten.embedding.default, X[0], I.reshape((2,) + (1,) * 7))
