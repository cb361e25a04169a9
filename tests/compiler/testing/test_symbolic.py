"""Calls with symbolic sizes: what stays symbolic, what the metadata promises, and the single calls of the range."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trtplug.ranges import Range
from trtplug.testing import SizeOf, call_of, registry_of, run_op
from trtplug.testing.equality import call_at
from trtplug.testing.graphs import batch_graph, call_graph
from trtplug.testing.symbolic import Plan, SymbolicCall, corner_points, fitting_ranges, symbolic_call

aten = torch.ops.aten


def traced(op: Any, args: tuple[Any, ...], axes: dict[str, tuple[int, ...]], **sizes: SizeOf) -> SymbolicCall | None:
    call, tensors = call_of(op, args, {})
    return symbolic_call(
        call, tensors, (), Plan(axes, {name.replace("_", "[", 1) + "]": s for name, s in sizes.items()})
    )


def test_sizes_that_the_op_demands_equal_become_one_symbol() -> None:
    symbolic = traced(aten.add.Tensor, (torch.ones(3, 2), torch.ones(3, 2)), {"self": (0,), "other": (0,)})
    assert symbolic is not None
    assert len(symbolic.hints) == 1
    assert symbolic.shapes["self"] == symbolic.shapes["other"]


def test_sizes_that_the_op_compares_with_a_number_become_that_number() -> None:
    assert traced(aten.add.Tensor, (torch.ones(3), torch.ones(3)), {"self": (0,)}) is None


def test_asking_leaves_no_guard_in_the_graph_that_is_returned() -> None:
    symbolic = traced(aten.cat.default, ([torch.ones(2, 3), torch.ones(4, 3)], 0), {"tensors[0]": (0,)})
    assert symbolic is not None
    (symbol,) = symbolic.hints
    assert symbolic.promises({symbol: 7}, [(11, 3)])
    assert not symbolic.promises({symbol: 7}, [(10, 3)])
    assert not symbolic.promises({symbol: 7}, [(11,)])
    assert [int(s) for s in symbolic.at({symbol: 7}).tensors["tensors[0]"].shape] == [7, 3]


def test_a_size_argument_follows_the_sizes() -> None:
    symbolic = traced(
        aten.view.default, (torch.ones(3, 2, 4), [6, 4]), {"self": (0,)}, size_0=SizeOf((("self", 0),), factor=2)
    )
    assert symbolic is not None
    (symbol,) = symbolic.hints
    assert symbolic.at({symbol: 5}).arguments["size"] == [10, 4]
    assert symbolic.promises({symbol: 5}, [(10, 4)])


def test_ranges_stop_where_eager_or_the_promise_does() -> None:
    symbolic = traced(aten.squeeze.dim, (torch.ones(4, 3), 0), {"self": (0,)})  # at 1 the axis would go
    assert symbolic is not None
    (symbol,) = symbolic.hints
    ranges = fitting_ranges(symbolic, {symbol: (1, 6)}, lambda point: call_at(symbolic, point, {}) is not None)
    assert ranges == {symbol: Range(4, 4, 6)}
    assert corner_points(ranges) == [{symbol: 4}, {symbol: 6}]


def test_indices_fit_the_size_that_they_point_into() -> None:
    call, tensors = call_of(aten.gather.default, (torch.ones(5), 0, torch.zeros(2, dtype=torch.int64)), {})
    call = call.replace_tensors(lambda place, f: f._replace(values=(0, 4)) if place == "index" else f)
    symbolic = symbolic_call(call, tensors, (), Plan({"self": (0,)}))
    assert symbolic is not None
    (symbol,) = symbolic.hints
    assert symbolic.at({symbol: 3}).tensors["index"].values == (0, 2)
    assert symbolic.at({symbol: 8}).tensors["index"].values == (0, 7)


def test_constants_go_into_the_graph_and_results_come_out() -> None:
    x = torch.arange(6.0).view(2, 3)
    call, tensors = call_of(aten.topk.default, (x, 2), {})
    graph = call_graph(call, tensors, ())
    found = graph.module(*graph.inputs(tensors))
    expected = graph.expected(torch.topk(x, 2))
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    assert call_graph(call, tensors, (), allowed=(1,)).results == (1,)
    assert call_graph(call, tensors, ("self",)).places == ()


def test_calls_side_by_side_are_one_graph() -> None:
    graphs = [call_graph(*call_of(aten.exp.default, (torch.ones(n),), {}), ()) for n in (1, 2, 3)]
    module = batch_graph(graphs)
    assert [tuple(r.shape) for r in module(*(torch.ones(n) for n in (1, 2, 3)))] == [(1,), (2,), (3,)]


@pytest.mark.parametrize("sizes", [(2, 5), (7, 1)])
def test_run_op_with_symbolic_sizes(sizes: tuple[int, int]) -> None:
    import planted

    x = torch.randn(*sizes)
    (found,) = run_op(
        registry_of([planted.right_exp]),
        aten.exp.default,
        (x,),
        symbolic={"self": [0, 1]},
        example={"self": [3, 3]},
        ranges={"self": [(1, 8), (1, 8)]},
    )
    torch.testing.assert_close(found, x.exp())
