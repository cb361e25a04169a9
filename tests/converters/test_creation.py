from __future__ import annotations

from typing import Any

import pytest
import torch

from trtplug.convert import convert
from trtplug.testing import SizeOf, run_op
from trtplug_registry import Registry

aten = torch.ops.aten
X = torch.arange(12.0).reshape(3, 4)
ROWS = SizeOf((("self", 0),))


@pytest.mark.parametrize(
    ("op", "args", "expected"),
    [
        (aten.full.default, ([2, 3], 7.0), "SLICE"),
        (aten.full.default, ([1, 1], 7.0), ""),
        (aten.zeros_like.default, (X,), "SLICE"),
        (aten.scalar_tensor.default, (3,), ""),
        (aten.arange.start_step, (0, 10, 3), ""),
        (aten.tril.default, (X,), "ELEMENTWISE SUM, ELEMENTWISE GREATER, SELECT"),
        (aten.eye.default, (3,), "ELEMENTWISE EQUAL, CAST"),
    ],
)
def test_layers(layers: Any, op: Any, args: tuple[Any, ...], expected: str) -> None:
    assert layers(op, *args) == expected


@pytest.mark.parametrize(
    ("op", "args", "sizes"),
    [
        (aten.new_full.default, ([3, 2], 5.0), {"size[0]": ROWS}),
        (aten.new_full.default, ([2], 3), {"fill_value": ROWS}),
        (aten.full_like.default, (3,), {"fill_value": ROWS}),
        (aten.triu.default, (3,), {"diagonal": ROWS}),
        (aten.tril.default, (-1,), {}),
    ],
)
def test_sizes_and_numbers_may_be_symbolic(
    built_in: Registry, op: Any, args: tuple[Any, ...], sizes: dict[str, SizeOf]
) -> None:
    (result,) = run_op(built_in, op, (X, *args), symbolic={"self": [0]}, sizes=sizes)
    assert torch.equal(result, op(X, *args))


class Ranges(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        n = x.shape[0]
        return (
            torch.arange(n) + x.shape[1],
            torch.arange(1, n, 2) * 1,
            torch.arange(n, -3, -2) * 1,
            torch.eye(n) + x[:, :1],
        )


def test_ranges_of_symbolic_length(built_in: Registry) -> None:
    example = torch.rand(5, 4)
    rows = torch.export.Dim("rows", min=4, max=9)
    program = torch.export.export(Ranges(), (example,), dynamic_shapes=({0: rows},))
    network = convert(program.graph_module, lambda node: built_in.lookup(node).converter)
    for count in (4, 5, 9):
        x = torch.rand(count, 4)
        for ours, theirs in zip(network.lift()(x), Ranges()(x), strict=True):
            assert torch.equal(ours, theirs)


def test_refusals(refusal: Any) -> None:
    assert "not TensorRT types" in refusal(aten.zeros.default, [2], dtype=torch.float64)
    assert "at most 8 dimensions" in refusal(aten.ones.default, [1] * 9)
