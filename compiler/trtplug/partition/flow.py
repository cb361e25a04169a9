"""The analysis of a graph that `partition` and `link` work on: what each node is, and what has to run before it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx

from trtplug.partition.effects import Writes, find_effects, find_writes, is_random
from trtplug.partition.sizes import Sizes, expression
from trtplug.partition.value import Value, is_getitem, value_of


class Kind(enum.Enum):
    DEAD = enum.auto()
    INPUT = enum.auto()  # a placeholder, or an attribute that the graph writes to
    CONSTANT = enum.auto()  # depends on no activation, and TensorRT can compute it
    SIZE = enum.auto()  # size arithmetic whose symbols can be read elsewhere
    PART = enum.auto()  # getitem: belongs to the node that makes it
    TENSORRT = enum.auto()
    TORCH = enum.auto()
    SCALAR = enum.auto()  # size arithmetic that has to be computed where it stands, outside of blocks
    OUTPUT = enum.auto()


_READS_SHAPE = {
    torch.ops.aten.sym_size,
    torch.ops.aten.sym_numel,
    torch.ops.aten.sym_stride,
    torch.ops.aten.sym_storage_offset,
}


@dataclass
class Flow:
    """Lists are by position in the graph. Units (TENSORRT, TORCH, SCALAR) are what runs; `owner` is a node's unit."""

    nodes: list[fx.Node]
    index: dict[fx.Node, int]
    value: list[Value]
    kind: list[Kind]
    owner: list[int]  # -1: no unit makes it
    args: list[tuple[int, ...]]
    before: list[Sequence[int]]  # unit: the units that have to run before it
    reads: list[Sequence[int]]  # tensors made by units or coming in that it reads, itself or through constants
    rest: list[Sequence[int]]  # unit, constant or output: constants, sizes and numbers among its arguments
    sizes: Sizes = field(default_factory=Sizes)
    size_from_tensorrt: bool = False  # some size is known only from what a TensorRT node makes


def analyze(graph: fx.Graph, supported: Callable[[fx.Node], bool]) -> Flow:
    """Classify every node. Each live compute node is shown to `supported` at most once."""
    nodes = list(graph.nodes)
    n = len(nodes)
    index = {node: i for i, node in enumerate(nodes)}
    flow = Flow(
        nodes=nodes,
        index=index,
        value=[value_of(node) for node in nodes],
        kind=[Kind.DEAD] * n,
        owner=[-1] * n,
        args=[tuple([index[argument] for argument in node.all_input_nodes]) for node in nodes],
        before=[()] * n,
        reads=[()] * n,
        rest=[()] * n,
    )
    writes = find_writes(nodes, index)
    _find_sizes(flow)
    effects = find_effects(nodes)
    fixed = _fixed(flow, writes, effects)
    barred = _find_live(flow, effects)
    for i in writes.views:
        barred[i] = True
    last_effect = -1
    for i, node in enumerate(nodes):
        if node.op == "placeholder":
            flow.kind[i] = Kind.INPUT
        elif flow.kind[i] is Kind.DEAD:
            continue
        elif node.op == "get_attr":
            flow.kind[i] = Kind.INPUT if i in writes.storages or node.meta.get("written") else Kind.CONSTANT
        elif flow.kind[i] is not Kind.SIZE:
            free = not effects[i] or is_random(node)  # who claims a random op takes its numbers from elsewhere
            _place(flow, i, fixed[i], free and not barred[i] and _eligible(flow, i), supported)
            if i in writes.edges:
                flow.before[i] = [*flow.before[i], *(flow.owner[j] for j in writes.edges[i] if flow.owner[j] >= 0)]
            if effects[i] and flow.kind[i] is not Kind.TENSORRT:
                flow.before[i] = [*flow.before[i], *([last_effect] if last_effect >= 0 else [])]
                last_effect = i
    return flow


def _find_sizes(flow: Flow) -> None:
    """Mark size arithmetic: SIZE where earlier nodes show its symbols, SCALAR where not (it then shows them itself)."""
    nodes, kind = flow.nodes, flow.kind
    flow.sizes.add(*(node for node in nodes if node.op == "placeholder"))
    shown = 0
    for i, node in enumerate(nodes):
        if not _is_size_arithmetic(flow, i):
            continue
        expr = expression(node.meta.get("val"))
        if expr is not None and flow.sizes.resolve(expr) is None:
            for earlier in range(shown, i):  # symbols that come from data, not from the placeholders
                if nodes[earlier].op != "get_attr" and kind[earlier] is not Kind.SIZE:
                    flow.sizes.add(nodes[earlier])
            shown = i
        numeric = flow.value[i] is Value.NUMBER
        if numeric or flow.sizes.resolve(expr) is not None:
            kind[i] = Kind.SIZE
        elif not is_getitem(node) or kind[flow.args[i][0]] is Kind.SCALAR:
            kind[i] = Kind.SCALAR


def _is_size_arithmetic(flow: Flow, i: int) -> bool:
    node = flow.nodes[i]
    if node.op != "call_function":
        return False
    if flow.value[i] is Value.TENSOR or flow.value[i] is Value.OTHER:
        return getattr(node.target, "overloadpacket", None) in _READS_SHAPE
    return (
        is_getitem(node)
        or getattr(node.target, "overloadpacket", None) in _READS_SHAPE
        or all(flow.value[j] not in (Value.TENSOR, Value.OTHER) for j in flow.args[i])
    )


def size_sources(flow: Flow, i: int) -> list[int]:
    """The nodes that a SIZE node's symbols are read from; none for another node."""
    if flow.kind[i] is not Kind.SIZE:
        return []
    sources = flow.sizes.resolve(expression(flow.nodes[i].meta.get("val")))
    return [flow.index[source.node] for source in sources.values()] if sources else []


def _fixed(flow: Flow, writes: Writes, effects: list[bool]) -> list[bool]:
    """Which nodes depend on nothing but weights and the sizes of placeholders."""
    fixed = [False] * len(flow.nodes)
    for i, node in enumerate(flow.nodes):
        if i in writes.storages or effects[i]:
            continue
        if node.op == "get_attr":
            fixed[i] = not node.meta.get("written")  # set where calls write a new value to it
        elif node.op == "placeholder":
            fixed[i] = flow.value[i] in (Value.SIZE, Value.NUMBER)
        elif flow.kind[i] is Kind.SIZE:
            fixed[i] = all(flow.nodes[j].op == "placeholder" for j in size_sources(flow, i))
        elif node.op == "call_function" and flow.kind[i] is not Kind.SCALAR:
            for j in flow.args[i]:
                if not fixed[j]:
                    break
            else:
                fixed[i] = not is_random(node)
    return fixed


def _find_live(flow: Flow, effects: list[bool]) -> list[bool]:
    """Reset the kind of dead nodes; tell which nodes cannot be in a block because of how values pass between them.

    Only tensors and SymInts enter a block, only tensors leave it: a maker of several values that someone takes whole,
    or of a scalar that cannot be read elsewhere, stays in Torch, and so does who takes several values whole.
    """
    nodes, kind, value = flow.nodes, flow.kind, flow.value
    live = [False] * len(nodes)
    barred = [False] * len(nodes)
    for i in reversed(range(len(nodes))):
        node = nodes[i]
        if not (live[i] or effects[i] or node.op == "output"):
            kind[i] = Kind.DEAD
            continue
        if kind[i] is Kind.SIZE:
            for j in size_sources(flow, i):
                live[j] = True
            continue
        if kind[i] is Kind.DEAD:
            kind[i] = Kind.OUTPUT if node.op == "output" else Kind.PART if is_getitem(node) else Kind.TORCH
        whole = kind[i] is not Kind.PART
        for j in flow.args[i]:
            live[j] = True
            if whole and value[j] is Value.OTHER and nodes[j].op != "get_attr":
                barred[i] = barred[j] = True
        if kind[i] is Kind.PART and (barred[i] or value[i] in (Value.SIZE, Value.SCALAR)):
            barred[flow.args[i][0]] = True
    return barred


def _eligible(flow: Flow, i: int) -> bool:
    """Whether the node may be shown to `supported`: tensors come out, and no SymFloat, SymBool or object goes in."""
    node, value = flow.nodes[i], flow.value
    if node.op != "call_function" or value[i] in (Value.SIZE, Value.SCALAR, Value.NUMBER):
        return False
    for j in flow.args[i]:
        if value[j] is Value.TENSOR or value[j] is Value.SIZE or flow.nodes[j].op == "get_attr":
            continue
        if value[j] is not Value.NUMBER or flow.kind[j] not in (Kind.SIZE, Kind.INPUT):
            return False
    return True


def _place(flow: Flow, i: int, fixed: bool, eligible: bool, supported: Callable[[fx.Node], bool]) -> None:
    """Decide between TENSORRT, TORCH and CONSTANT, and note what the node reads."""
    kind, owner, args = flow.kind, flow.owner, flow.args[i]
    reads: list[int] = []
    rest: list[int] = []
    before: list[int] = []
    for j in args:
        if owner[j] >= 0:
            before.append(owner[j])
        else:
            before.extend(_makers(flow, j))
        if flow.value[j] is Value.TENSOR and (owner[j] >= 0 or kind[j] is Kind.INPUT):
            reads.append(j)
        else:
            rest.append(j)
            if kind[j] is Kind.CONSTANT:
                reads.extend(flow.reads[j])
    flow.rest[i] = tuple(rest)
    flow.reads[i] = tuple(dict.fromkeys(reads)) if rest else tuple(reads)
    flow.before[i] = tuple(dict.fromkeys(before)) if len(before) > 1 else tuple(before)
    if kind[i] is Kind.PART:
        if kind[args[0]] is Kind.CONSTANT:
            kind[i] = Kind.CONSTANT
        elif owner[args[0]] < 0:
            kind[i] = Kind.TORCH
        else:
            owner[i] = owner[args[0]]
    elif kind[i] is Kind.TORCH and eligible and supported(flow.nodes[i]):
        kind[i] = Kind.CONSTANT if fixed else Kind.TENSORRT
    if kind[i] in (Kind.TENSORRT, Kind.TORCH, Kind.SCALAR):
        owner[i] = i


def _makers(flow: Flow, j: int) -> Sequence[int]:
    """The units that have to run before node j can be read, which no unit makes."""
    if flow.kind[j] is Kind.CONSTANT:
        return flow.before[j]
    makers = [flow.owner[source] for source in size_sources(flow, j) if flow.owner[source] >= 0]
    flow.size_from_tensorrt |= any(flow.kind[maker] is Kind.TENSORRT for maker in makers)
    return makers
