"""Seconds of each stage and peak memory, on ResNet-50 and BERT-base shapes with random weights.

Run: python benchmarks/stages.py. Each model runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

MODELS = ("resnet50", "bert_base")


def make(name: str):
    import torch
    from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel

    torch.manual_seed(0)
    if name == "resnet50":
        model = ResNetModel(ResNetConfig(return_dict=False)).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # as after training, where they do something
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2.0)
        return model, (torch.randn(1, 3, 224, 224),)
    model = BertModel(BertConfig(return_dict=False), add_pooling_layer=True).eval()
    ids = torch.randint(0, 30000, (1, 128))
    return model, (ids, torch.ones_like(ids))


class PeakMemory:
    """The largest resident size while it runs, in bytes, sampled every millisecond."""

    def __enter__(self) -> PeakMemory:
        self.start = self.peak = resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.001):
            self.peak = max(self.peak, resident())

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, resident())


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def run(name: str) -> dict:
    import torch

    import trtplug
    from trtplug.convert import convert
    from trtplug.lowering import lower
    from trtplug.partition import extract, partition

    torch.set_num_threads(2)
    model, args = make(name)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    start = time.perf_counter()
    program = trtplug.trace(model, args)
    traced = time.perf_counter() - start
    registry = trtplug.registry()
    compiler = trtplug.compile  # its modules are loaded now
    start = time.perf_counter()
    compiled = compiler(program, registry=registry, min_block_size=1)
    whole, stages = time.perf_counter() - start, dict(compiled.report.stages)
    expected = model(*args)[0]
    difference = ((compiled(*args)[0] - expected).abs().max() / expected.abs().max()).item()
    engines, left = len(compiled.report.engines), len(compiled.report.torch_ops)
    nodes = len(compiled.report.nodes)
    del compiled
    lowered = lower(program, registry)
    parts = partition(lowered.graph_module, lambda node: bool(registry.lookup(node)))
    with PeakMemory() as memory:
        networks = []
        for block in parts.blocks:
            graph = extract(lowered.graph_module, block)
            verdicts = {node.name: registry.lookup(node).converter for node in (*block.nodes, *block.copies)}
            networks.append(convert(graph, lambda node: verdicts[node.name], ranges=lowered.ranges))  # noqa: B023
    return {
        "export": traced,
        **stages,
        "ours": whole - stages["build"],  # the lift runs beside the link, which may wait for it
        "nodes": nodes,
        "engines": engines,
        "left": left,
        "difference": difference,
        "memory": (memory.peak - memory.start) / weights,
        "weights": weights / 2**20,
    }


def main() -> None:
    columns = ("export", "lower", "partition", "convert", "lift", "link", "ours", "build", "memory")
    print("| model | nodes | engines | left to Torch | " + " | ".join(columns) + " | difference |")
    print("|---" * (len(columns) + 5) + "|")
    for name in MODELS:
        printed = subprocess.run([sys.executable, __file__, "--model", name], capture_output=True, text=True)
        if printed.returncode:
            sys.exit(printed.stderr)
        row = json.loads(printed.stdout.splitlines()[-1])
        cells = " | ".join(f"{row.get(column, 0):.2f}" for column in columns)
        counts = f"{row['nodes']} | {row['engines']} | {row['left']}"
        print(f"| {name} ({row['weights']:.0f} MiB) | {counts} | {cells} | {row['difference']:.1e} |")
    print(
        "Stages in seconds; difference: largest, over the largest value;\n"
        "memory: peak in conversion above the model's weights, as a multiple of them."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS)
    chosen = parser.parse_args().model
    if chosen:
        print(json.dumps(run(chosen)))
    else:
        main()
