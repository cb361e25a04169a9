"""What `import trtplug` adds to `import torch`, and how soon `trtplug --help` answers, each in a fresh process.

Run: python benchmarks/imports.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

CODE = """
import os, sys, time
os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"  # Torch would load our op while it is imported itself
import torch
start = time.perf_counter()
import trtplug
from trtplug.stored_engine import register
register()
heavy = ("torch._dynamo", "tensorrt", "tensorrt_rtx")
print(time.perf_counter() - start, *[name for name in heavy if name in sys.modules])
"""

HELP = """
import sys, time
start = time.perf_counter()
from trtplug.cli import main
sys.argv = ["trtplug", "--help"]
try:
    main()
except SystemExit:
    print(time.perf_counter() - start, *[name for name in ("torch", "numpy") if name in sys.modules])
"""


def measured(code: str, repeats: int) -> tuple[float, str]:
    """Milliseconds, the median, and what was imported on the way, in words; from the last line that the code prints."""
    seconds, extra = [], set()
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        first, *names = done.stdout.splitlines()[-1].split()
        seconds.append(float(first))
        extra.update(names)
    return statistics.median(seconds) * 1000, ", ".join(sorted(extra))


def main(repeats: int = 5) -> None:
    ms, extra = measured(CODE, repeats)
    print(f"import trtplug after import torch: {ms:.0f} ms (median of {repeats})")
    print(f"pulled in: {extra or 'neither torch._dynamo nor TensorRT'}")
    ms, extra = measured(HELP, repeats)
    print(f"trtplug --help, from the import on: {ms:.0f} ms; pulled in: {extra or 'neither Torch nor NumPy'}")


if __name__ == "__main__":
    main()
