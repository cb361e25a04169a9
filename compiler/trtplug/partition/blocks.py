"""The partition itself: ranks to blocks, with what goes in and out of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from torch import fx

from trtplug.partition import ranks
from trtplug.partition.flow import Flow, Kind, analyze, size_sources
from trtplug.partition.sizes import Sizes, expression
from trtplug.partition.value import Block, Partition, Value, is_getitem, tensor_bytes


def partition(
    graph_module_or_graph: fx.GraphModule | fx.Graph,
    supported: Callable[[fx.Node], bool],
    *,
    min_block_size: int = 1,
) -> Partition:
    """The fewest blocks that hold every compute node that `supported` accepts; near-linear in nodes and edges.

    `supported` is asked once about each `call_function` node that something reads, except getitems, size arithmetic,
    nodes with effects, views of tensors written in place, and nodes that a SymFloat, a SymBool or an object enters:
    these stay in Torch. Blocks of fewer than `min_block_size` compute nodes go back to Torch; the other blocks are
    then still minimal (see `ranks`), so one round is enough. Among the minimal partitions tried, the one that returns
    the fewest nodes to Torch is taken, then the one with the fewest bytes crossing, then the one that puts nodes
    earliest.

    Raises ValueError for a negative `min_block_size`.
    """
    if min_block_size < 0:
        raise ValueError(f"min_block_size={min_block_size}: expected 0 or more")
    graph = graph_module_or_graph.graph if isinstance(graph_module_or_graph, fx.GraphModule) else graph_module_or_graph
    flow = analyze(graph, supported)
    tensorrt = [i for i, kind in enumerate(flow.kind) if kind is Kind.TENSORRT]
    units = _units(flow)
    # where an engine makes data-dependent sizes, the bytes of moving their readers are not known before the blocks are
    tried = [(0, ranks.earliest(units))] if flow.size_from_tensorrt else ranks.candidates(units)

    def cost(candidate: tuple[int, list[int]]) -> tuple[int, int]:
        extra_bytes, rank = candidate
        counts = Counter(rank[i] for i in tensorrt)
        return sum(count for count in counts.values() if count < min_block_size), extra_bytes

    _, rank = min(tried, key=cost)
    counts = Counter(rank[i] for i in tensorrt)
    index = {r: b for b, r in enumerate(sorted(r for r, count in counts.items() if count >= min_block_size))}
    too_small = {flow.nodes[i]: counts[rank[i]] for i in tensorrt if rank[i] not in index}
    block_of = [-1] * len(flow.nodes)
    for i in tensorrt:
        block_of[i] = index.get(rank[i], -1)
    return _assemble(flow, block_of, len(index), too_small)


def _units(flow: Flow) -> ranks.Units:
    n = len(flow.nodes)
    makes: list[tuple[int, ...]] = [()] * n
    outside = [False] * n
    for i, kind in enumerate(flow.kind):
        if flow.owner[i] >= 0 and flow.value[i] is Value.TENSOR:
            makes[flow.owner[i]] += (i,)
        if kind in (Kind.TORCH, Kind.SCALAR, Kind.OUTPUT):
            for t in flow.reads[i]:
                outside[t] = True
    return ranks.Units(
        order=[i for i in range(n) if flow.owner[i] == i],
        tensorrt=[kind is Kind.TENSORRT for kind in flow.kind],
        before=flow.before,
        reads=flow.reads,
        makes=makes,
        maker=flow.owner,
        outside=outside,
        size=lambda t: tensor_bytes(flow.nodes[t]),
    )


def _constants(flow: Flow, start: Iterable[int]) -> list[int]:
    """The constants among the nodes, and those that they are made of."""
    todo = [c for c in start if flow.kind[c] is Kind.CONSTANT]
    found = set(todo)
    while todo:
        for c in flow.rest[todo.pop()]:
            if flow.kind[c] is Kind.CONSTANT and c not in found:
                found.add(c)
                todo.append(c)
    return sorted(found)


def _assemble(flow: Flow, block_of: list[int], count: int, too_small: dict[fx.Node, int]) -> Partition:
    members: list[list[int]] = [[] for _ in range(count)]
    units_outside: list[int] = []
    for i, kind in enumerate(flow.kind):
        owner = flow.owner[i]
        if owner >= 0:
            block_of[i] = block_of[owner]
        if block_of[i] >= 0:
            members[block_of[i]].append(i)
        elif owner == i or kind is Kind.OUTPUT:
            units_outside.append(i)

    taken: set[int] = set()  # whatever is read outside of the block that makes it
    parts = [_contents(flow, block_of, b, inside) for b, inside in enumerate(members)]
    for _, inputs, sizes in parts:
        taken.update(inputs)
        taken.update(source for j in sizes for source in size_sources(flow, j))
    for i in units_outside:
        taken.update(flow.reads[i])
        taken.update(source for j in flow.rest[i] for source in size_sources(flow, j))
    constants_outside = _constants(flow, (c for i in units_outside for c in flow.rest[i]))

    def nodes(indices: Iterable[int]) -> tuple[fx.Node, ...]:
        return tuple(flow.nodes[i] for i in indices)

    blocks = tuple(
        Block(
            index=b,
            nodes=nodes(members[b]),
            copies=nodes(copies),
            inputs=nodes(inputs),
            outputs=nodes(i for i in members[b] if i in taken),
            sizes=nodes(sizes),
        )
        for b, (copies, inputs, sizes) in enumerate(parts)
    )
    torch_nodes = [i for i in units_outside if flow.kind[i] in (Kind.TORCH, Kind.TENSORRT)]
    torch_nodes += [c for c in constants_outside if flow.nodes[c].op != "get_attr" and not is_getitem(flow.nodes[c])]
    return Partition(blocks, nodes(sorted(torch_nodes)), too_small, flow)


def _contents(flow: Flow, block_of: list[int], b: int, inside: list[int]) -> tuple[list[int], list[int], list[int]]:
    """A block's copies, tensor inputs and size inputs."""
    inputs = sorted({t for i in inside for t in flow.reads[i] if block_of[t] != b})
    copies = _constants(flow, (c for i in inside for c in flow.rest[i]))
    asked = {j for i in (*inside, *copies) for j in flow.rest[i] if flow.value[j] is Value.SIZE}
    sizes: list[int] = []
    local = Sizes()
    local.add(*(flow.nodes[t] for t in inputs if asked))
    for j in sorted(asked):
        expr = expression(flow.nodes[j].meta["val"])
        if local.resolve(expr) is None:
            local.add(*(flow.nodes[t] for t in size_sources(flow, j) if block_of[t] == b))
        if local.resolve(expr) is None:
            sizes.append(j)
            local.add(flow.nodes[j])
        elif flow.kind[j] in (Kind.SIZE, Kind.SCALAR):
            copies.append(j)
    return sorted(copies), inputs, sizes
