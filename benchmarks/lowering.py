"""CPU seconds of lowering, beside what ``ExportedProgram.run_decompositions()`` alone takes on the same program.

Run: python benchmarks/lowering.py. Models have random weights; every row is the fastest of `--repeat` runs, one after
the other, in one process.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from stages import make
from torch import nn

import trtplug
from trtplug.lowering import lower


class Blocks(nn.Module):
    """A long model without much data: residual blocks of six calls each, one of them in place."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.count = calls // 6
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.count):
            y = torch.relu_(torch.nn.functional.linear(x, self.weight))
            y = y.reshape(2, 2, 4).softmax(-1).reshape(2, 8)
            x = x + y
        return x


def models() -> dict[str, Callable[[], tuple[nn.Module, tuple[Any, ...]]]]:
    named: dict[str, Any] = {
        "BERT-base": lambda: make("bert_base"),
        "ResNet-50, in place": lambda: _in_place(*make("resnet50")),
        "GPT-2": _gpt2,
    }
    for count in (2500, 5000, 10000, 20000):
        named[f"blocks, {count:,} nodes"] = lambda count=count: (Blocks(count), (torch.randn(2, 8),))
    return named


def _in_place(model: nn.Module, args: tuple[Any, ...]) -> tuple[nn.Module, tuple[Any, ...]]:
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    return model, args


def _gpt2() -> tuple[nn.Module, tuple[Any, ...]]:
    from transformers import GPT2Config, GPT2Model

    model = GPT2Model(GPT2Config(return_dict=False, use_cache=False)).eval()
    return model, (torch.randint(0, 50000, (1, 32)),)


def fastest(function: Callable[[], Any], repeat: int) -> float:
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def decompositions(program: Any, repeat: int) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own pytree
        return fastest(lambda: program.exported.run_decompositions(), repeat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose names contain this")
    options = parser.parse_args()
    torch.manual_seed(0)
    registry = trtplug.registry()
    print("| model | nodes | lower, CPU s | retraced | run_decompositions, CPU s | ratio | µs per node |")
    print("|---|---|---|---|---|---|---|")
    for name, build in models().items():
        if options.only not in name:
            continue
        program = trtplug.trace(*build())
        count = len(program.exported.graph.nodes)
        retraced = any(record.id == "lower:retrace" for record in lower(program, registry).passes)
        ours = fastest(lambda: lower(program, registry), options.repeat)  # noqa: B023
        theirs = decompositions(program, options.repeat) if count < 3000 else None  # minutes
        compared = "– | –" if theirs is None else f"{theirs:.2f} | {ours / theirs:.3f}"
        retraces = "yes" if retraced else "no"
        print(f"| {name} | {count:,} | {ours:.2f} | {retraces} | {compared} | {1e6 * ours / count:.0f} |", flush=True)


if __name__ == "__main__":
    main()
