"""Weight streaming on a GPU: memory and time of a large decoder, by how many bytes of its weights may stay there.

Run: python benchmarks/streaming.py [--layers 22] [--shares 1,0.5,0.1,0]. Memory is what the whole GPU has less of once
the engine has been called; the model itself is on the CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from memory import GIB, decoder

import trtplug
from trtplug.executors import prepared
from trtplug_registry import Executor, RunOptions, TrtplugError

CALLS = 10


def used() -> int:
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return total - free


def row(label: str, executor: Executor, engine: Any, options: RunOptions, args: tuple[Any, ...]) -> torch.Tensor:
    """Prints what an engine takes, and returns its first result."""
    before = used()
    run = prepared(executor, engine, options)
    (result, *_) = run(*args)
    times = []
    for _ in range(CALLS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run(*args)
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    print(f"| {label} | {(used() - before) / GIB:.2f} | {statistics.median(times):.2f} |", flush=True)
    return result.cpu()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--shares", default="1,0.5,0.1,0")
    chosen = parser.parse_args()
    model, args = decoder(chosen.layers, torch.float16)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    executor = next(found for found in trtplug.registry().executors if found.name == "tensorrt")
    given = tuple(x.cuda() for x in args)
    print(f"{weights / GIB:.2f} GiB of weights\n| weights on the GPU | memory, GiB | ms a call |\n|---|---|---|")
    found = []
    for streaming in (False, True):
        compiled = trtplug.compile(model, args, min_block_size=1, executor="reference", weight_streaming=streaming)
        (engine,) = compiled.engines
        if not streaming:
            found.append(row("all, built without streaming", executor, engine, RunOptions(), given))
            continue
        for share in map(float, chosen.shares.split(",")):
            for graphs in (False, True):
                options = RunOptions(graphs, weight_budget_bytes=int(share * weights))
                label = f"{share:.0%}{', CUDA graphs' if graphs else ''}"
                try:
                    found.append(row(label, executor, engine, options, given))
                except TrtplugError as problem:
                    print(f"| {label} | – | {' '.join(str(problem).split())[:200]} |")
    print("largest difference:", max(float((other - found[0]).abs().max()) for other in found[1:]))


if __name__ == "__main__":
    main()
