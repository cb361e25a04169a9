"""What each lowering pass did on five models: nodes and engines with it and without it, and its time.

Run: python benchmarks/passes.py [--update]. ``--update`` writes the tables into docs/passes.md. Models have random
weights; nothing is built.
"""

from __future__ import annotations

import argparse
import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from stages import make
from torch import nn

import trtplug
from trtplug.lowering import Lowered, lower
from trtplug.partition import partition
from trtplug_registry import Registry

PAGE = Path(__file__).parents[1] / "docs" / "passes.md"
START, END = "<!-- tables by benchmarks/passes.py -->", "<!-- end of tables -->"


def _gpt2() -> tuple[nn.Module, tuple[Any, ...]]:
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(return_dict=False, use_cache=False, attn_implementation="eager")
    return GPT2Model(config).eval(), (torch.randint(0, 50000, (1, 32)),)


def _llama() -> tuple[nn.Module, tuple[Any, ...]]:
    from transformers import LlamaConfig, LlamaModel

    sizes = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8}
    config = LlamaConfig(
        **sizes, num_key_value_heads=4, return_dict=False, use_cache=False, attn_implementation="eager"
    )
    return LlamaModel(config).eval(), (torch.randint(0, 32000, (1, 32)), torch.ones(1, 32, dtype=torch.int64))


class Written(nn.Module):
    """Written out by hand, as research code is: casts, a running buffer, a cache, slices that are written to."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(64))
        self.projection = nn.Linear(64, 64)
        self.register_buffer("cache", torch.zeros(2, 32, 64))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.cache[:, :16].copy_(x)
        variance = self.cache.pow(2).mean(-1, keepdim=True)
        x = self.cache * torch.rsqrt(variance + 1e-6) * self.scale
        steps = torch.arange(32)[None, :].expand(2, 32)
        x = x + torch.sin(steps[..., None] / torch.pow(10000, torch.arange(64) / 64))
        x = torch.where(mask[..., None] > 0, x + mask[..., None], 0)
        x = nn.functional.dropout(self.projection(x.contiguous().view(2, 32, 64)), 0.1, self.training)
        return x * torch.sigmoid(x)


MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[Any, ...]]]] = {
    "ResNet-50": lambda: make("resnet50"),
    "BERT-base": lambda: make("bert_base"),
    "GPT-2, attention written out": _gpt2,
    "Llama of 8 layers, attention written out": _llama,
    "by hand": lambda: (Written().eval(), (torch.randn(2, 16, 64), torch.ones(2, 32, dtype=torch.int64))),
}


@functools.cache
def registry(without: str = "") -> Registry:
    return trtplug.registry(disable_passes=[without] if without else [])


def lowered_with(program: Any, without: str = "") -> tuple[Lowered, tuple[int, int, int]]:
    """The lowered program; its calls, its engines, and the nodes left to Torch."""
    chosen = registry(without)
    lowered = lower(program, chosen)
    parts = partition(lowered.graph_module, lambda node: bool(chosen.lookup(node)), min_block_size=1)
    calls = sum(node.op == "call_function" for node in lowered.graph_module.graph.nodes)
    return lowered, (calls, len(parts.blocks), len(parts.torch_nodes))


def rows(program: Any) -> list[str]:
    """One for each pass of one model; what it does not change is not shown."""
    lowered_with(program)  # warm
    lowered, with_it = lowered_with(program)
    found, idle = [], []
    for item in lowered.passes:
        name = item.id.partition(":")[2]
        if item.id.startswith("lower:"):
            continue
        if not item.changed:
            idle.append(f"`{name}`")
            continue
        _, without = lowered_with(program, item.id)
        rewritten = ", ".join(f"{rule} ×{count}" for rule, count in item.applied.items())
        counts = (f"{two} → {one}" if one != two else f"{one}" for one, two in zip(with_it, without))
        nodes = f"{item.nodes_before} → {item.nodes_after}"
        found.append(f"| `{name}` | " + " | ".join((nodes, rewritten, *counts, f"{item.seconds:.3f}")) + " |")
    seconds = sum(item.seconds for item in lowered.passes if item.id.partition(":")[2] in {n.strip("`") for n in idle})
    return [*found, "", f"Nothing to do, in {seconds:.3f} s together: {', '.join(idle) or 'none'}."]


def tables() -> str:
    torch.manual_seed(0)
    lines = []
    for name, build in MODELS.items():
        program = trtplug.trace(*build())
        lines += [
            f"### {name}, {len(program.exported.graph.nodes)} nodes exported",
            "",
            "| pass | nodes before → after | rules | calls | engines | left to Torch | seconds |",
            "|---|---|---|---|---|---|---|",
            *rows(program),
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", action="store_true", help="write the tables into docs/passes.md")
    options = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = tables()
    print(text)
    if options.update:
        page = PAGE.read_text()
        before, _, rest = page.partition(START)
        PAGE.write_text(f"{before}{START}\n\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
