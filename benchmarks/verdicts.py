"""What a verdict costs, cold and memoized, over the nodes of real graphs. Run: python benchmarks/verdicts.py"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

import trtplug
from trtplug_registry import Registry


class Block(nn.Module):
    """A transformer block with the ops that fill real graphs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(batch, length, 3, 4, width // 4).permute(2, 0, 3, 1, 4).unbind(0)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(x))) * 0.5


def graph(depth: int, dynamic: bool) -> torch.fx.GraphModule:
    model = nn.Sequential(*[Block(32) for _ in range(depth)])
    shapes = ({0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("length", min=2, max=128)},)
    exported = torch.export.export(model, (torch.ones(3, 5, 32),), dynamic_shapes=shapes if dynamic else None)
    return exported.graph_module


def measure(registry: Registry, depth: int, dynamic: bool, repeats: int) -> tuple[int, float, float]:
    """Number of nodes; microseconds a verdict, cold and memoized (medians)."""
    cold, warm = [], []
    for _ in range(repeats):
        nodes = [node for node in graph(depth, dynamic).graph.nodes if node.op == "call_function"]
        for times in (cold, warm):
            start = time.perf_counter()
            for node in nodes:
                registry.lookup(node)
            times.append((time.perf_counter() - start) / len(nodes) * 1e6)
    return len(nodes), statistics.median(cold), statistics.median(warm)


def main(depth: int = 8, repeats: int = 5) -> None:
    registry = trtplug.registry()
    print(f"{len(registry)} converters, torch {torch.__version__}")
    print("| graph | nodes | cold µs | memoized µs |\n|---|---|---|---|")
    for dynamic in (False, True):
        count, cold, warm = measure(registry, depth, dynamic, repeats)
        print(f"| {'dynamic' if dynamic else 'static'} | {count} | {cold:.1f} | {warm:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    main(**vars(parser.parse_args()))
