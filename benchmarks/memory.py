"""Peak memory of compiling a large decoder with random weights, on the CPU, stage by stage; each in a fresh process.

Run: python benchmarks/memory.py [--dtype float16] [--layers 22]. The default, 22 layers of 2,048, has 1.1 billion
parameters. Peaks are of the whole process (resident size, sampled, and the kernel's own maximum last).
"""

from __future__ import annotations

import argparse
import functools
import resource
import time
from typing import Any

import torch
from stages import PeakMemory, resident

import trtplug
from trtplug.cache.finished import Finished
from trtplug.compilation import Compilation
from trtplug.network import Network

GIB = 2**30


def decoder(layers: int, dtype: torch.dtype) -> tuple[torch.nn.Module, tuple[Any, ...]]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=4,
        vocab_size=32000,
        use_cache=False,
    )
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    with torch.device("meta"):
        model = LlamaForCausalLM(config).eval()
    rotary = type(model.model.rotary_emb)(config)  # computed, not learned: it has no value on the meta device
    model.to_empty(device="cpu")
    model.model.rotary_emb = rotary
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.02, 0.02) if parameter.dim() > 1 else parameter.fill_(1.0)
    torch.set_default_dtype(torch.float32)
    return model, (torch.randint(0, 32000, (1, 16)),)


class Watched:
    """Prints the peak of each stage above what the process had when the model stood."""

    def __init__(self) -> None:
        self.base = resident()

    def __call__(self, name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        start, before = time.perf_counter(), resident()
        with PeakMemory() as memory:
            result = function(*args, **kwargs)
        print(
            f"| {name} | {time.perf_counter() - start:.1f} | {(before - self.base) / GIB:.2f}"
            f" | {(memory.peak - self.base) / GIB:.2f} | {(resident() - self.base) / GIB:.2f} |",
            flush=True,
        )
        return result


def _seen(self: Any, watched: Watched, name: str, original: Any, *args: Any, **kwargs: Any) -> Any:
    return watched(name, original, self, *args, **kwargs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--layers", type=int, default=22)
    options = parser.parse_args()
    model, args = decoder(options.layers, getattr(torch, options.dtype))
    count = sum(parameter.numel() for parameter in model.parameters())
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    print(
        f"{count / 1e9:.2f} billion parameters in {options.dtype}, {weights / GIB:.2f} GiB; all else in GiB above them"
    )
    print("| stage | seconds | before | peak | after |\n|---|---|---|---|---|")
    watched = Watched()
    for owner, name in (
        (Compilation, "program"),
        (Compilation, "lower"),
        (Compilation, "_convert"),
        (Network, "build"),
        (Network, "lift"),
        (Finished, "keep"),
    ):
        original = getattr(owner, name)
        setattr(owner, name, functools.partialmethod(_seen, watched, name.strip("_"), original))
    compiled = watched("all", trtplug.compile, model, args, min_block_size=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report = compiled.report
    print(f"{report.summary()}; plans {sum(e.bytes for e in report.engines) / GIB:.2f} GiB")
    print(f"peak of the process: {peak / GIB:.2f} GiB, {peak / weights:.2f} x weights")


if __name__ == "__main__":
    main()
