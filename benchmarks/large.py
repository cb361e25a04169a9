"""Programs of up to 200,000 nodes: seconds and memory of lowering, verdicts, partition, explain and its JSON and page.

Run: python benchmarks/large.py [nodes ...]. A program is one exported block, repeated: torch.export itself takes two
milliseconds a node. Every row is a process of its own; seconds are of CPU; memory is the peak above the program.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import gc
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument


class Elementwise(nn.Module):
    """Calls of which nobody takes one in forty."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in range(13):
            x = (x * (step + 2)).sin() + 0.5
        return torch.linalg.matrix_exp(x)


class InPlace(nn.Module):
    """A residual block with weights, and a call in place."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu_(nn.functional.linear(x, self.weight))
        return x + y.reshape(2, 2, 4).softmax(-1).reshape(4, 4)


class Attention(nn.Module):
    """Attention that is written out, with a mask, as exported models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.register_buffer("mask", torch.zeros(1, 1, 4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).reshape(1, 4, 2, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        scores = (q @ k.transpose(-1, -2)) / 2 + self.mask
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(1, 4, 8)
        return x + nn.functional.gelu(y) * torch.rsqrt((y * y).mean(-1, keepdim=True) + 1e-6)


class Integers(nn.Module):
    """Positions, masks and parts, of which nothing is read as features."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([x[:, 2:] + 1, x[:, :2]], 1).clamp(0, 100)
        return torch.where(x > 50, x - 50, x.to(torch.int32).to(torch.int64)).reshape(2, 8).reshape(4, 4)


class Writes(nn.Module):
    """A cache that is written through slices."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cache = x.clone()
        cache[:, 1:3] = x[:, 0:2].sin()
        cache.add_(1)
        return cache


class Views(nn.Module):
    """Views of views, the last of which is the output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(0, 1).unsqueeze(0).reshape(2, 8).permute(1, 0).permute(1, 0).view(4, 4)


SQUARE = (torch.zeros(4, 4),)
BLOCKS: Mapping[str, tuple[Callable[[], nn.Module], tuple[torch.Tensor, ...], bool]] = {
    "elementwise": (Elementwise, SQUARE, False),
    "elementwise, dynamic": (Elementwise, (torch.zeros(3, 4, 4),), True),
    "in place": (InPlace, SQUARE, False),
    "attention": (Attention, (torch.zeros(1, 4, 8),), False),
    "integers": (Integers, (torch.zeros(4, 4, dtype=torch.int64),), False),
    "writes": (Writes, SQUARE, False),
    "views": (Views, SQUARE, False),
}


def repeated(block: ExportedProgram, nodes: int) -> ExportedProgram:
    """A block of one input and one output of its shape, as often one after the other as makes that many nodes."""
    (output,) = block.graph_signature.output_specs
    graph, image = fx.Graph(), dict[fx.Node, Any]()
    inputs = {spec.arg.name: spec.kind for spec in block.graph_signature.input_specs}
    for node in block.graph.find_nodes(op="placeholder"):
        image[node] = graph.node_copy(node)
    (entry,) = (node for node in image if inputs[node.name] is InputKind.USER_INPUT)
    calls = [node for node in block.graph.nodes if node.op == "call_function"]
    (end,) = block.graph.find_nodes(op="output")
    writes = any(node.target._schema.is_mutable for node in calls)
    for _ in range(max(1, nodes // len(calls))):
        for node in calls:
            new = image[node] = graph.node_copy(node, image.__getitem__)
            if writes:  # fake values that share memory where the real ones do, and nowhere else
                args, kwargs = fx.node.map_arg((new.args, new.kwargs), lambda item: item.meta["val"])
                with torch.no_grad():
                    new.meta["val"] = new.target(*args, **kwargs)
        image[entry] = image[end.args[0][0]]
    graph.output((image[entry],)).meta.update(end.meta)
    signature = copy.copy(block.graph_signature)
    signature.output_specs = [dataclasses.replace(output, arg=TensorArgument(name=image[entry].name))]
    return ExportedProgram(
        block.graph_module,
        graph,
        signature,
        block.state_dict,
        block.range_constraints,
        block.module_call_graph,
        block.example_inputs,
        block.constants,
        verifiers=block.verifiers,
    )


def program(name: str, nodes: int) -> ExportedProgram:
    make, args, dynamic = BLOCKS[name]
    shapes = ({0: torch.export.Dim("batch", min=2, max=64)},) if dynamic else None
    return repeated(torch.export.export(make().eval(), args, dynamic_shapes=shapes), nodes)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run(name: str, nodes: int) -> None:
    """Prints one row."""
    exported = program(name, nodes)
    import trtplug

    registry = trtplug.registry()
    trtplug.explain(program(name, 100), registry=registry)  # imports what is needed
    gc.collect()
    before, count = peak(), len(exported.graph.nodes)
    cells: list[str] = [f"{count:,}"]

    def timed(function: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = function()
        spent = time.process_time() - start
        cells.append(f"{spent:.2f} ({1e6 * spent / count:.0f})")
        return result

    stages(exported, registry, timed)
    report = timed(lambda: trtplug.explain(exported, registry=registry, min_block_size=1))
    cells.append(f"{peak() - before:.1f}")
    text = timed(lambda: report.to_json(indent=None))
    page = timed(report.to_html)
    cells += [f"{len(text) / 2**20:.0f}", f"{len(page) / 2**20:.0f}"]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def stages(exported: ExportedProgram, registry: Any, timed: Callable[[Callable[[], Any]], Any]) -> None:
    """Lowering, verdicts without and with memory, and the partition."""
    from trtplug.lowering import lower
    from trtplug.partition import partition
    from trtplug.tracing import as_program

    lowered = timed(lambda: lower(as_program(exported), registry))
    calls = [node for node in lowered.graph_module.graph.nodes if node.op == "call_function"]
    fresh = registry.having()
    for _ in range(2):
        timed(lambda: [fresh.lookup(node) for node in calls])
    timed(lambda: partition(lowered.graph_module, lambda node: bool(fresh.lookup(node))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes", type=int, nargs="*", default=[2_000, 20_000, 200_000])
    parser.add_argument("--only", choices=BLOCKS)
    parser.add_argument("--row", action="store_true", help="in this process")
    options = parser.parse_args()
    if options.row:
        run(options.only, options.nodes[0])
        return
    columns = ("nodes", "lower", "verdicts", "memoized", "partition", "explain", "GiB", "JSON", "page", "MiB", "MiB")
    print("CPU seconds (µs a node)")
    print(f"| blocks | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|", flush=True)
    for name in [options.only] if options.only else BLOCKS:
        for nodes in options.nodes:
            subprocess.run([sys.executable, __file__, str(nodes), "--only", name, "--row"], check=True)


if __name__ == "__main__":
    main()
