"""What `import trtplug` adds to `import torch`, each in a fresh process. Run: python benchmarks/imports.py"""

from __future__ import annotations

import statistics
import subprocess
import sys

CODE = """
import sys, time
import torch
start = time.perf_counter()
import trtplug
heavy = ("torch._dynamo", "tensorrt", "tensorrt_rtx")
print(time.perf_counter() - start, *[name for name in heavy if name in sys.modules])
"""


def main(repeats: int = 5) -> None:
    seconds, extra = [], set()
    for _ in range(repeats):
        printed = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
        ).stdout.split()
        seconds.append(float(printed[0]))
        extra.update(printed[1:])
    print(f"import trtplug after import torch: {statistics.median(seconds) * 1000:.0f} ms (median of {repeats})")
    print(f"pulled in: {', '.join(sorted(extra)) or 'neither torch._dynamo nor TensorRT'}")


if __name__ == "__main__":
    main()
