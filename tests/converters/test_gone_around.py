"""What TensorRT-RTX computes wrongly on a GPU, and which layers go around it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trtplug.convert import convert
from trtplug.testing import run_op
from trtplug_registry import Registry

aten = torch.ops.aten
FEW, MANY, HALF = torch.ones(2, 3, 4), torch.ones(8, 8, 8), torch.bfloat16
LEAST = torch.iinfo(torch.int32).min
WHOLE = torch.arange(3, dtype=torch.int32)


@pytest.mark.parametrize(
    ("op", "args", "how", "expected"),
    [
        pytest.param(aten.sum.dim_IntList, (FEW, [0, 1]), {}, "UNSQUEEZE, REDUCE SUM", id="sums along few"),
        pytest.param(aten.sum.dim_IntList, (FEW, [0, 1], True), {}, "UNSQUEEZE, REDUCE SUM, SQUEEZE", id="kept axes"),
        pytest.param(aten.sum.dim_IntList, (FEW, [1]), {}, "REDUCE SUM", id="one axis"),
        pytest.param(aten.sum.dim_IntList, (FEW.to(HALF), [1]), {}, "UNSQUEEZE, REDUCE SUM", id="one of bfloat16"),
        pytest.param(aten.sum.dim_IntList, (FEW.long(), [0, 1]), {}, "REDUCE SUM", id="integers"),
        pytest.param(aten.sum.dim_IntList, (MANY, [0, 1]), {}, "REDUCE SUM", id="many elements"),
        pytest.param(
            aten.sum.dim_IntList, (FEW, [0, 1]), {"symbolic": {"self": [0]}}, "REDUCE SUM", id="a symbolic size"
        ),
        pytest.param(
            aten.mm.default,
            (torch.ones(1, 3, dtype=HALF), torch.ones(3, 2, dtype=HALF)),
            {},
            "CONCATENATION, MATRIX_MULTIPLY, SLICE",
            id="one row of bfloat16",
        ),
        pytest.param(
            aten.mm.default,
            (torch.ones(2, 3, dtype=HALF), torch.ones(3, 1, dtype=HALF)),
            {},
            "CONCATENATION, MATRIX_MULTIPLY, SLICE",
            id="one column of bfloat16",
        ),
        pytest.param(aten.mm.default, (torch.ones(1, 3), torch.ones(3, 1)), {}, "MATRIX_MULTIPLY", id="of float32"),
        pytest.param(aten.add.Scalar, (WHOLE, LEAST), {}, "ELEMENTWISE SUM, ELEMENTWISE SUM", id="the least integer"),
        pytest.param(aten.sub.Scalar, (WHOLE, LEAST), {}, "ELEMENTWISE SUM, ELEMENTWISE SUM", id="less the least"),
        pytest.param(aten.add.Scalar, (WHOLE, LEAST + 1), {}, "ELEMENTWISE SUM", id="the last but one"),
    ],
)
def test_layers(layers: Any, op: Any, args: tuple[Any, ...], how: dict[str, Any], expected: str) -> None:
    assert layers(op, *args, **how) == expected


@pytest.mark.parametrize("number", [LEAST, LEAST + 1, -LEAST])
@pytest.mark.parametrize("op", [aten.add.Scalar, aten.sub.Scalar])
def test_sums_with_the_least_integer_wrap_around(built_in: Registry, op: Any, number: int) -> None:
    x = torch.tensor([LEAST, LEAST + 1, -2, -1, 0, 1, 2, -LEAST - 1], dtype=torch.int32)
    (result,) = run_op(built_in, op, (x, number))
    assert torch.equal(result, op(x, number))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 3), (3, 1)])
def test_products_of_one_row_or_column(built_in: Registry, rows: int, columns: int, transposed: bool) -> None:
    left = torch.arange(rows * 4).reshape(rows, 4).to(HALF)
    right = torch.arange(columns * 4).reshape(columns, 4).to(HALF)
    op, args = (aten.linear.default, (left, right)) if transposed else (aten.mm.default, (left, right.T.contiguous()))
    (result,) = run_op(built_in, op, args)
    torch.testing.assert_close(result, op(*args))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
@pytest.mark.parametrize("shape", [(4, 0), (0, 9), (0, 0)])
def test_an_empty_index_may_be_longer_than_the_data(built_in: Registry, shape: Any, dtype: torch.dtype) -> None:
    data, index = torch.arange(12).reshape(3, 4).to(dtype), torch.zeros(shape, dtype=torch.int64)
    for op, args in (
        (aten.gather.default, (data, 1 if shape[1] == 0 else 0, index)),
        (aten.scatter.value, (data, 1 if shape[1] == 0 else 0, index, 7)),
    ):
        (result,) = run_op(built_in, op, args)
        assert torch.equal(result, op(*args))


@pytest.mark.parametrize(("first", "last"), [(1, "IDENTITY"), (2, "CONCATENATION")])
def test_a_result_that_may_be_an_input_in_pieces_is_copied(built_in: Registry, first: int, last: str) -> None:
    """TensorRT-RTX takes it for the input, and writes nothing. Of another input's parts it does not."""

    class Pieces(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.cat([x[:first], (x if first == 1 else y)[1:]])

    x = torch.arange(6.0).reshape(3, 2)
    graph = torch.export.export(Pieces(), (x, x + 1)).graph_module
    definition = convert(graph, lambda node: built_in.lookup(node).converter).definition  # type: ignore[union-attr]
    assert str(definition.get_layer(definition.num_layers - 1).type).endswith(last)
