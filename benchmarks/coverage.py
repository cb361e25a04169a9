"""How long questions take: an opset with imports, in a fresh process, and `explain` on a large program.

Budgets: an opset query 2 s with imports, `explain` on 20,000 nodes 5 s beyond loading the program.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import torch
from torch import nn

import trtplug

ASK = """
import time; start = time.perf_counter()
import torch; loaded = time.perf_counter() - start
import trtplug; trtplug.coverage("core_aten"); print(loaded, time.perf_counter() - start)
"""


class Blocks(nn.Module):
    """Elementwise calls, one in forty of which nobody takes."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for place in range(self.calls // 40):
            for step in range(13):
                x = (x * (step + 2)).sin() + place
            x = torch.linalg.matrix_exp(x)
        return x


def main(nodes: int = 20_000) -> None:
    runs = [list(map(float, _ask().split())) for _ in range(4)][1:]  # the first follows decompositions, and remembers
    torch_alone, whole = (statistics.median(column) for column in zip(*runs, strict=True))
    print(f"core_aten in a fresh process: {whole:.2f} s, of which `import torch` {torch_alone:.2f} s")
    start = time.perf_counter()
    program = trtplug.trace(Blocks(nodes), (torch.randn(4, 4),))
    count = len(program.exported.graph.nodes)
    print(f"torch.export of {count:,} nodes: {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    report = trtplug.explain(program, min_block_size=1)
    spent = time.perf_counter() - start
    stages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in report.stages.items())
    print(f"explain: {spent:.2f} s ({stages}); {report.summary()}; {len(report.suggestions)} suggestion(s)")


def _ask() -> str:
    return subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
