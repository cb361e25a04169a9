"""How long `partition` takes on random graphs, one node in four refused. Budget: 20,000 nodes in 0.5 s, growth linear.

python benchmarks/partition.py [nodes ...]
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

from trtplug.partition import Partition, partition

aten = torch.ops.aten


def random_graph(count: int, seed: int = 0) -> fx.Graph:
    """A graph of `count` compute nodes: they read recent ones, now and then an old one; every third has a weight."""
    draw = random.Random(seed)
    mode = FakeTensorMode()
    with mode:
        values = [torch.empty(8, 2**k) for k in range(4)]
    graph = fx.Graph()

    def add(node: fx.Node) -> fx.Node:
        node.meta["val"] = draw.choice(values)
        return node

    made = [add(graph.placeholder(f"x{k}")) for k in range(4)]
    for i in range(count):
        near = made[-draw.randint(1, min(8, len(made)))]
        if i % 3 == 0:
            add(weight := graph.create_node("get_attr", f"w{i}"))
            node = graph.call_function(aten.mul.Tensor, (near, weight))
        elif i % 3 == 1:
            far = draw.choice(made) if draw.random() < 0.02 else made[-draw.randint(1, min(64, len(made)))]
            node = graph.call_function(aten.add.Tensor, (near, far))
        else:
            node = graph.call_function(aten.relu.default, (near,))
        made.append(add(node))
    graph.output(tuple(node for node in made if not node.users))
    return graph


def measure(count: int, repeat: int = 3) -> tuple[float, int, Partition]:
    """The best of `repeat` times in seconds, how many compute nodes are live, and the partition."""
    graph = random_graph(count)
    draw = random.Random(1)
    refused = {node for node in graph.nodes if draw.random() < 0.25}
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        parts = partition(graph, lambda node: node not in refused)
        best = min(best, time.perf_counter() - start)
    live = len(parts.torch_nodes) + sum(len(block.compute_nodes) for block in parts.blocks)
    return best, live, parts


def main(sizes: Sequence[int] = (2_000, 20_000, 200_000)) -> None:
    """Print a table; growth is the ratio of seconds per node to the row before."""
    print(f"{'nodes':>9} {'live':>9} {'blocks':>7} {'in Torch':>9} {'seconds':>9} {'µs/node':>9} {'growth':>7}")
    before = None
    for count in sizes:
        seconds, live, parts = measure(count)
        each = seconds / count * 1e6
        growth = f"{each / before:.2f}" if before else ""
        print(
            f"{count:>9,} {live:>9,} {len(parts.blocks):>7,} {len(parts.torch_nodes):>9,}"
            f" {seconds:>9.3f} {each:>9.1f} {growth:>7}"
        )
        before = each


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or (2_000, 20_000, 200_000))
