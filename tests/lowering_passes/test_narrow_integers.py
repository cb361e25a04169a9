"""Integers become narrow where that is proven to change nothing, all that are connected or none."""

from __future__ import annotations

import pytest
import torch
from conftest_passes import apply, graph_of, targets
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.value_ranges import ValueRanges

import trtplug
from trtplug.lowering import lower
from trtplug.lowering.lift import lift
from trtplug_lowering_passes import fold_constants, narrow_integers, promote_types, remove_no_ops_early
from trtplug_lowering_passes._bounds import BoundsBook
from trtplug_lowering_passes._nodes import cast_value
from trtplug_registry import take_notes

X = torch.randn(5, 4)
TABLE = torch.randn(128, 4)
IDS = torch.tensor([[3, 1, 0, 7, 2], [1, 2, 3, 4, 5]])
MASK = torch.tensor([[True, True, False, True, True], [True] * 5])
FAR = 2**31


class Model(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.register_buffer("table", TABLE)
        self.register_buffer("index", torch.tensor([0, 4, 2]))
        self.register_buffer("far", torch.tensor([0, FAR, 2]))
        self.register_buffer("count", torch.tensor(0))

    def forward(self, x):
        return self.function(self, x)


def wide(graph):
    """How many values of 64 bits there are, but for inputs."""
    found = [node for node in graph.graph.nodes if node.op in ("call_function", "get_attr") and node.users]
    return sum(getattr(node.meta["val"], "dtype", None) == torch.int64 for node in found)


def narrowed(function, *args, dynamic=True):
    graph = graph_of(Model(function), *args, dynamic=dynamic)
    for item in (remove_no_ops_early, promote_types, fold_constants):
        item.function(graph)
    before, casts = wide(graph), targets(graph).count("_to_copy.default")
    changed = apply(narrow_integers, graph, *args)
    assert targets(graph).count("_to_copy.default") <= casts, "none is needed"
    return graph, before, changed


def positions(self, x):
    return x + nn.functional.embedding(torch.arange(x.shape[0]) + 2, self.table)


def causal(self, x):
    steps = torch.arange(x.shape[0])
    return x.sum() * (steps[None, :] <= steps[:, None])


def choices(self, x):
    steps = torch.arange(x.shape[0])
    return self.table[torch.where(steps > 2, (steps * 3 - 1).masked_fill(steps == 4, 5), -steps).clamp(min=0)] + x


def from_mask(self, mask):
    steps = (torch.cumsum(mask, 1) - 1).clamp(min=0)
    return nn.functional.embedding(steps, self.table) * mask.int().long().unsqueeze(-1)


def sizes(self, x):
    length = torch.full((), x.shape[0])
    return x * (torch.arange(x.shape[0]) < length - 1).unsqueeze(-1)


def constants(self, x):
    return x[:, self.index - 1], self.table.index_select(0, self.index) * 2


NARROW = {
    "positions": (positions, X),
    "causal": (causal, X),
    "choices": (choices, X),
    "sizes": (sizes, X),
    "constants": (constants, X),
    "of a mask": (from_mask, MASK),
}


@pytest.mark.parametrize("name", NARROW)
def test_narrow(name):
    graph, before, changed = narrowed(*NARROW[name])
    assert changed
    assert before > 0
    assert wide(graph) == 0
    assert take_notes(graph).applied["narrow-integers"] == before


WIDE = {
    "returned": lambda self, x: torch.arange(x.shape[0]) + 1,
    "of an input": lambda self, ids: nn.functional.embedding(ids + 1, self.table),
    "too large": lambda self, x: x * (torch.arange(x.shape[0]) * FAR > 1).unsqueeze(-1),
    "too large on the way": lambda self, x: x * ((torch.arange(x.shape[0]) + FAR - FAR) > 1).unsqueeze(-1),
    "compared with a large one": lambda self, x: x * (torch.arange(x.shape[0]) < FAR).unsqueeze(-1),
    "a large constant": lambda self, x: x * (self.far > x.sum().int().long())[1],
    "a constant that is written": lambda self, x: (self.count.add_(1), x * (self.count > 1))[1],
    "read by what wants 64 bits": lambda self, x: self.table.gather(0, torch.arange(x.shape[0]).unsqueeze(-1)),
    "connected with what is wide": lambda self, x: (
        x * ((s := torch.arange(x.shape[0])) < 3).unsqueeze(-1),
        s * 2,
    ),
    "from floats": lambda self, x: nn.functional.embedding((x[:, 0] * 2).long().clamp(0, 3), self.table),
}


@pytest.mark.parametrize("name", WIDE)
def test_wide(name):
    graph, before, changed = narrowed(WIDE[name], IDS if name == "of an input" else X)
    assert not changed
    assert wide(graph) == before > 0


def test_a_size_without_a_bound_may_be_anything():
    exported = torch.export.export(Model(positions), (X,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    assert not apply(narrow_integers, lift(exported).graph_module, X)


def test_in_an_engine():
    """With positions and a causal mask that are computed in each call: no integer of 64 bits is left in the graph."""

    def model(self, x):
        return positions(self, x) + causal(self, x)[:, :1]

    size = trtplug.Input(min_shape=(2, 4), opt_shape=(5, 4), max_shape=(64, 4))
    module = Model(model)
    program = trtplug.trace(module, inputs=[size])
    lowered = lower(program, trtplug.registry(), strict=True)
    assert wide(lowered.graph_module) == 0
    compiled = trtplug.compile(program)
    assert not compiled.report.torch_ops
    for length in (2, 5, 64):
        x = torch.randn(length, 4)
        torch.testing.assert_close(compiled(x), module(x))


def test_bounds_of_what_is_computed_in_thousands_of_steps():
    graph = torch.fx.Graph()
    node = graph.call_function(torch.ops.aten.full.default, ([2], 1))
    node.meta["val"] = torch.empty(2, device="meta")
    first = node
    for _ in range(3000):
        node = graph.call_function(torch.ops.aten.add.Tensor, (node, 1))
        node = graph.call_function(torch.ops.aten.sub.Tensor, (node, first))
    for each in graph.nodes:
        each.meta["val"] = first.meta["val"]
    book = BoundsBook(torch.fx.GraphModule(torch.nn.Module(), graph))
    assert book.of(node) == (1.0, 1.0)
    assert book.of(first.next) == (2.0, 2.0)


def test_a_value_made_narrow_fixes_no_size() -> None:
    """Torch asks whether a size is above 1, to say how the result lies in memory."""
    env = ShapeEnv()
    value = FakeTensorMode(shape_env=env, static_shapes=False).from_tensor(torch.ones(4, 2, 3, dtype=torch.int64))
    env.var_to_range.update(dict.fromkeys(env.var_to_range, ValueRanges(0, 5)))
    assert cast_value(value, torch.int32).shape == value.shape
    assert not env.guards
