"""Law 8 on random graphs: partitions are complete, convex, acyclic and minimal, leak no SymInt, and compute the same.

What a graph requires is worked out here a second time, without ranks: `Reference` searches for what depends on what,
and minimality is by trying every way to put the supported nodes into fewer blocks.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st
from test_partition_graphs import Maker, check_equal, check_runs, check_shape_of
from torch import fx

from trtplug.partition import Partition, partition, ranks

aten = torch.ops.aten
UNARY = (aten.relu.default, aten.sin.default, aten.neg.default)
STEPS = ("unary", "unary", "add", "add", "weight", "constant", "sort", "expand", "filled", "nonzero")

laws = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


@dataclass
class Plan:
    """A random graph, and which of its nodes are supported."""

    make: Maker = field(default_factory=Maker)
    refused: set[fx.Node] = field(default_factory=set)
    gm: fx.GraphModule = field(init=False)

    def supported(self, node: fx.Node) -> bool:
        return node not in self.refused

    def __str__(self) -> str:
        return f"{self.gm.graph}\nrefused: {sorted(node.name for node in self.refused)}"


@st.composite
def plans(draw: st.DrawFn, steps: tuple[str, ...] = STEPS, most: int = 7) -> Plan:
    """Tensors are (n, 4), n dynamic, or broadcast with that; every step reads one or two of the tensors so far."""
    plan = Plan()
    make = plan.make
    tensors = [make.input("x", (3, 4), dynamic=[0]), make.input("y", (1, 4))]
    constants = [make.weight("w", torch.linspace(-1, 2, 4)), make.weight("deep.v", torch.linspace(1, 2, 4))]
    sizes = [make.size(tensors[0], 0)]
    overlapping: set[fx.Node] = set()  # Torch refuses to write to a tensor that holds one element several times

    def pick(label: str, among: list[fx.Node]) -> fx.Node:
        return among[draw(st.integers(0, len(among) - 1), label=label)]

    def call(target: Any, *args: Any) -> fx.Node:
        node = make.call(target, *args)
        if draw(st.integers(0, 2), label=f"{node.name} is refused if 0") == 0:
            plan.refused.add(node)
        return node

    for kind in draw(st.lists(st.sampled_from(steps), min_size=1, max_size=most), label="steps"):
        a = pick("first", tensors)
        if kind == "unary":
            tensors.append(call(draw(st.sampled_from(UNARY), label="op"), a))
        elif kind == "add":
            tensors.append(call(aten.add.Tensor, a, pick("second", tensors)))
        elif kind == "weight":
            tensors.append(call(aten.mul.Tensor, a, pick("constant", constants)))
        elif kind == "constant":
            constants.append(call(aten.add.Tensor, pick("constant", constants), pick("constant", constants)))
        elif kind == "sort":
            both = call(aten.sort.default, a, 1)
            tensors += [make.call(operator.getitem, both, k) for k in (0, 1)]
        elif kind == "expand":
            tensors.append(call(aten.expand.default, a, [pick("size", sizes[:1]), 4]))
            overlapping.add(tensors[-1])
            sizes.append(make.call(operator.mul, make.size(tensors[-1], 0), 2))
        elif kind == "filled":
            one = call(aten.full.default, [pick("size", sizes), 4], 1.0)
            tensors.append(call(aten.add.Tensor, a, call(aten.sum.dim_IntList, one, [0], True)))
        elif kind == "nonzero":
            found = call(aten.nonzero.default, a)
            row = call(aten.sum.dim_IntList, pick("row", tensors), [0], True)
            tensors.append(
                call(aten.sum.dim_IntList, call(aten.expand.default, row, [make.size(found, 0), 4]), [0], True)
            )
        elif a not in overlapping:
            make.call(aten.add_.Tensor, a, 1)
            if draw(st.booleans(), label="view"):
                tensors.append(call(aten.slice.Tensor, a, 1, 0, 4))
    outputs = draw(st.lists(st.sampled_from([*tensors, *constants, *sizes]), min_size=1, max_size=4), label="outputs")
    plan.gm = make.done(*outputs, *(t for t in tensors if not t.users))
    note(str(plan))
    return plan


class Reference:
    """Which nodes have a rank, and what has to run before what: by plain search."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        graph = plan.gm.graph
        self.live = live = set[fx.Node]()
        for node in reversed(graph.nodes):
            if node.op == "output" or node in live:
                live.update(self.size_makers(node) if is_size(node) else node.all_input_nodes)
        self.ranked = [n for n in graph.nodes if n in live and self.has_rank(n)]
        self.tensorrt = [n for n in self.ranked if plan.supported(n)]
        self.before = {node: self.makers(node) for node in self.ranked}

    def has_rank(self, node: fx.Node) -> bool:
        if node.op != "call_function" or node.target is operator.getitem or is_size(node):
            return False
        return self.depends_on_activation(node)

    def depends_on_activation(self, node: fx.Node) -> bool:
        if node.op == "placeholder":
            return True
        if is_size(node):
            return any(symbol.name.startswith("u") for symbol in node.meta["val"].node.expr.free_symbols)
        return any(self.depends_on_activation(a) for a in node.all_input_nodes)

    def makers(self, node: fx.Node) -> set[fx.Node]:
        """The ranked nodes that the node reads, through getitems, sizes and constants."""
        found: set[fx.Node] = set()
        for argument in node.all_input_nodes:
            if is_size(argument):
                found |= self.size_makers(argument)
            else:
                found |= {argument} if self.has_rank(argument) else self.makers(argument)
        return found

    def size_makers(self, size: fx.Node) -> set[fx.Node]:
        """A size of the placeholders needs nothing; a data-dependent one needs the nonzero() that made it."""
        if not self.depends_on_activation(size):
            return set()
        symbols = size.meta["val"].node.expr.free_symbols
        makers = [n for n in self.plan.gm.graph.nodes if n.target is aten.nonzero.default]
        return {next(n for n in makers if n.meta["val"].shape[0].node.expr == symbol) for symbol in symbols}

    def acyclic(self, groups: list[list[fx.Node]]) -> bool:
        """Whether the graph has no cycle when each group is one node; this implies that the groups are convex."""
        group_of = {node: g for g, group in enumerate(groups) for node in group}
        key = {node: group_of.get(node, node) for node in self.ranked}
        edges: dict[Any, set[Any]] = {k: set() for k in key.values()}
        for node, earlier in self.before.items():
            edges[key[node]] |= {key[e] for e in earlier} - {key[node]}
        while edges:
            free = {k for k, earlier in edges.items() if not earlier}
            if not free:
                return False
            edges = {k: earlier - free for k, earlier in edges.items() if k not in free}
        return True


def is_size(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.SymInt)


def groupings(nodes: list[fx.Node], count: int) -> Iterator[list[list[fx.Node]]]:
    """Every way to put the nodes into `count` groups."""
    if not nodes:
        if not count:
            yield []
        return
    *rest, last = nodes
    for groups in groupings(rest, count - 1) if count else ():
        yield [*groups, [last]]
    for groups in groupings(rest, count):
        for g in range(len(groups)):
            yield [[*group, last] if i == g else group for i, group in enumerate(groups)]


def unmoved(plan: Plan) -> Partition:
    """The partition with every node at its earliest."""
    with mock.patch.object(ranks, "candidates", lambda units: [(0, ranks.earliest(units))]):
        return partition(plan.gm, plan.supported)


@laws
@given(plans())
def test_partitions_are_complete_convex_and_minimal(plan: Plan) -> None:
    """One law of three parts, since drawing a graph takes longer than all of them."""
    reference = Reference(plan)
    parts = partition(plan.gm, plan.supported)
    check_complete_acyclic_and_convex(plan, reference, parts)
    check_no_partition_has_fewer_blocks(reference, parts)
    check_moving_nodes_adds_no_bytes_and_no_block(parts, unmoved(plan))


def check_complete_acyclic_and_convex(plan: Plan, reference: Reference, parts: Partition) -> None:
    inside = {node for block in parts.blocks for node in block.compute_nodes}
    assert inside == set(reference.tensorrt)
    constants = {n for n in plan.gm.graph.nodes if n.op == "call_function"} - set(reference.ranked)
    assert set(parts.torch_nodes) - constants == set(reference.ranked) - inside
    assert reference.acyclic([list(block.compute_nodes) for block in parts.blocks])
    check_shape_of(plan.gm, parts)
    for block in parts.blocks:
        for node in block.copies:
            assert not reference.depends_on_activation(node) or is_size(node), node
        getitems = {n for n in reference.live if n.target is operator.getitem and n.args[0] in block.nodes}
        assert getitems <= set(block.nodes)


def check_no_partition_has_fewer_blocks(reference: Reference, parts: Partition) -> None:
    if len(reference.tensorrt) > 8:
        return  # too many groupings to try
    count = len(parts.blocks)
    event(f"{count} blocks of {len(reference.tensorrt)} nodes")
    assert not reference.tensorrt or count
    for groups in groupings(reference.tensorrt, count - 1) if count > 1 else ():
        assert not reference.acyclic(groups), groups  # fewer still would do too: a valid block can always be cut in two


def check_moving_nodes_adds_no_bytes_and_no_block(moved: Partition, still: Partition) -> None:
    event(f"bytes saved: {moved.crossing_bytes < still.crossing_bytes}")
    assert len(moved.blocks) == len(still.blocks)
    assert moved.crossing_bytes <= still.crossing_bytes


@laws
@given(plans(most=20), st.sampled_from([1, 2, 3, 4]))
def test_linked_graphs_compute_the_same_and_small_blocks_leave_a_minimal_partition(plan: Plan, least: int) -> None:
    parts = partition(plan.gm, plan.supported, min_block_size=least)
    check_shape_of(plan.gm, parts)
    for rows in (3, 5):
        x = torch.linspace(-3, 3, rows * 4).reshape(rows, 4)
        check_runs(plan.gm, parts, x, torch.tensor([[1.0, 0.0, -2.0, 0.5]]))
    check_without_small_blocks(plan, least, parts)


def check_without_small_blocks(plan: Plan, least: int, parts: Partition) -> None:
    assert all(len(block.compute_nodes) >= least for block in parts.blocks)
    assert all(size < least for size in parts.too_small.values())
    assert set(parts.too_small) <= set(parts.torch_nodes)
    without = partition(plan.gm, lambda node: plan.supported(node) and node not in parts.too_small)
    assert len(without.blocks) == len(parts.blocks)
    kept = {node for block in without.blocks for node in block.compute_nodes}
    assert kept == {node for block in parts.blocks for node in block.compute_nodes}


@laws
@given(plans(steps=(*STEPS, "write", "write"), most=12))
def test_writes_in_place_are_seen_as_before(plan: Plan) -> None:
    parts = partition(plan.gm, plan.supported)
    check_shape_of(plan.gm, parts)
    x = torch.linspace(-3, 3, 20).reshape(5, 4)
    check_runs(plan.gm, parts, x, torch.tensor([[1.0, 0.0, -2.0, 0.5]]))


@laws
@given(plans(most=12))
def test_the_bytes_of_a_move_are_what_the_blocks_say(plan: Plan) -> None:
    tried: list[tuple[int, list[int]]] = []
    real = ranks.candidates
    with mock.patch.object(ranks, "candidates", lambda units: tried.extend(real(units)) or list(tried)):
        partition(plan.gm, plan.supported)
    for extra, rank in tried:
        with mock.patch.object(ranks, "candidates", lambda units, r=rank: [(0, r)]):
            at_rank = partition(plan.gm, plan.supported)
        assert at_rank.crossing_bytes - unmoved(plan).crossing_bytes == extra
        assert len(at_rank.blocks) == len(unmoved(plan).blocks)


def test_the_reference_knows_a_cycle() -> None:
    plan = Plan()
    x = plan.make.input("x", (3, 4), dynamic=[0])
    a = plan.make.call(UNARY[0], x)
    b = plan.make.call(UNARY[1], a)
    c = plan.make.call(aten.add.Tensor, a, b)
    plan.gm = plan.make.done(c)
    plan.refused = {b}
    reference = Reference(plan)
    assert reference.tensorrt == [a, c]
    assert not reference.acyclic([[a, c]])
    assert reference.acyclic([[a], [c]])
    with pytest.raises(AssertionError):
        check_equal([torch.ones(1)], [torch.zeros(1)])


@pytest.mark.parametrize(("count", "ways"), [(1, 1), (2, 15), (3, 25), (5, 1)])
def test_groupings_are_counted_by_stirling(count: int, ways: int) -> None:
    nodes = list(Maker().graph.nodes)
    graph = fx.Graph()
    nodes = [graph.placeholder(f"n{i}") for i in range(5)]
    assert len(list(groupings(nodes, count))) == ways
