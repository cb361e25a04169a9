"""Operands meet in the dtype that Torch computes in; results keep theirs."""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest_passes import apply, graph_of, targets
from torch import fx

from trtplug_lowering_passes import promote_types

aten = torch.ops.aten

OPERATORS = {
    "add": torch.add,
    "mul": torch.mul,
    "true_divide": torch.true_divide,
    "floor_divide": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "remainder": torch.remainder,
    "pow": torch.pow,
    "maximum": torch.maximum,
    "eq": torch.eq,
    "lt": torch.lt,
    "atan2": torch.atan2,
    "where": lambda a, b: torch.where(torch.ones(3, dtype=torch.bool), a, b),
    "cat": lambda a, b: torch.cat([a.reshape(-1), b.reshape(-1)]),
    "clamp": lambda a, b: torch.clamp(a, b),
}
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)


def tensor(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return (torch.arange(3) + 1 if shape else torch.tensor(2)).to(dtype)


@pytest.mark.parametrize("name", OPERATORS)
def test_pairs_of_dtypes(name):
    """Every pair of dtypes, and of dimensioned and 0-d tensors."""
    tried = 0
    for one, two in itertools.product(DTYPES, DTYPES):
        for left, right in (
            (tensor(one, 3), tensor(two, 3)),
            (tensor(one, 3), tensor(two)),
            (tensor(one), tensor(two, 3)),
        ):
            if one == two and left.dim() == right.dim() and (one.is_floating_point or name != "true_divide"):
                continue
            try:
                OPERATORS[name](left, right)
            except (RuntimeError, NotImplementedError):
                continue
            graph = _direct(OPERATORS[name], left, right)
            apply(promote_types, graph, left, right)
            _assert_met(graph)
            tried += 1
    assert tried > 30


def _direct(function, left, right) -> fx.GraphModule:
    """A graph without export's second: traced under fake tensors."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes = mode.from_tensor(left), mode.from_tensor(right)
    with mode:
        graph = make_fx(lambda a, b: (function(a, b),), pre_dispatch=True)(*fakes)
    for node in graph.graph.nodes:
        node.meta.pop("tensor_meta", None)
    return graph


def _assert_met(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        packet = getattr(node.target, "overloadpacket", None)
        if packet in (aten._to_copy, aten.reshape, aten.view, aten.ones, None):
            continue
        sources = [source for source in node.all_input_nodes if source.target is not aten.ones.default]
        dtypes = {source.meta["val"].dtype for source in sources}
        assert len(dtypes) == 1, node.format_node()
        result = node.meta["val"].dtype
        assert result in (*dtypes, torch.bool), node.format_node()


@pytest.mark.parametrize(
    ("function", "given", "cast"),
    [
        (lambda x: x * 2.5, torch.int64, torch.float32),
        (lambda x: x / 2, torch.int64, torch.float32),
        (lambda x: x > 0.5, torch.int32, torch.float32),
        (lambda x: torch.exp(x), torch.int64, torch.float32),
        (lambda x: torch.sqrt(x), torch.bool, torch.float32),
        (lambda x: x.clamp(min=0.5), torch.int64, torch.float32),
        (lambda x: x**0.5, torch.int64, torch.float32),
        (lambda x: x + 1, torch.bool, torch.int64),
        (lambda x: x.sum(), torch.bool, torch.int64),
        (lambda x: x.cumsum(0), torch.int32, torch.int64),
        (lambda x: x * 2, torch.int32, None),
        (lambda x: x * 2.5, torch.float16, None),
        (lambda x: x * 2, torch.float16, None),
        (lambda x: x == 1, torch.float16, None),
        (lambda x: x.sum(dtype=torch.float32), torch.int32, None),
        (lambda x: torch.logical_and(x, x), torch.int32, None),
        (lambda x: x // 2, torch.int32, None),
    ],
)
def test_numbers_and_unary_ops(function, given, cast):
    value = torch.tensor([1, 0, 1]).to(given)
    graph = graph_of(lambda x: (function(x),), value)
    assert apply(promote_types, graph, value) is (cast is not None)
    casts = [node for node in graph.graph.nodes if node.target is aten._to_copy.default]
    assert [node.kwargs["dtype"] for node in casts] == ([] if cast is None else [cast])


def test_a_cast_is_shared_and_its_name_says_what_it_is():
    left, right = torch.ones(3), torch.ones(3, dtype=torch.int64)
    graph = graph_of(lambda x, i: (x + i, x * i), left, right)
    assert apply(promote_types, graph, left, right)
    assert targets(graph) == ["_to_copy.default", "add.Tensor", "mul.Tensor"]
    assert any(node.name.endswith("_float32") for node in graph.graph.nodes)
