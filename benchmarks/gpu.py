"""Everything that needs a GPU, in one command, with one table last.

    python benchmarks/gpu.py [--families models,layers,calls] [--seconds 540] [--out FOLDER]
    python benchmarks/gpu.py pack FOLDER      # what a GPU machine without network needs for it: --help says more

Runs the layer table and the converters' calls on TensorRT against the reference executor and eager Torch, the models
against eager, and what a call costs the host. Each job runs in a process that may die of it: TensorRT can end one.
Results are written to FOLDER as they come, so that a run that is stopped keeps what it has.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import gpu_pack

if __name__ == "__main__" and sys.argv[1:2] == ["pack"]:  # before torch is asked for: who packs need not have it
    gpu_pack.main(sys.argv[2:])
    raise SystemExit

import gpu_breadth
import gpu_jobs
import gpu_sketches

from trtplug.testing.parity.pool import Job, Outcome, run_jobs

TABLES = ("layers", "calls", "dynamic", "lowered", "breadth")  # of the record
FAMILIES = ("overhead", "models", "contexts", "tf32", "tf32-override", "attention", "attention-override", *TABLES)
OVERRIDE = {"NVIDIA_TF32_OVERRIDE": "0"}  # of the processes of the families that end so
TOGETHER = (
    "tf32",
    "tf32-override",
    "attention",
    "attention-override",
    *TABLES,
)  # many processes at a time; what is timed has the GPU for itself

FLAGS: dict[str, dict[str, bool]] = {
    "defaults": {},
    "TF32 cleared": {"TF32": False},
    "TF32 cleared, STRICT_NANS": {"TF32": False, "STRICT_NANS": True},
    "TF32 cleared, DISTRIBUTIVE_INDEPENDENCE": {"TF32": False, "DISTRIBUTIVE_INDEPENDENCE": True},
    "TF32 cleared, level 5": {"TF32": False, "level5": True},
    "TF32 cleared, level 0": {"TF32": False, "level0": True},
    "TF32 cleared, no tactics": {"TF32": False, "no tactics": True},
}


def jobs(family: str, executor: str, device: str) -> Iterator[Job]:
    if family == "overhead":
        yield Job("gpu_jobs:overhead", (), 120)
    elif family == "contexts":
        yield Job("gpu_jobs:contexts", (), 180)
    elif family == "models":
        for name in gpu_jobs.MODELS:
            for dtype in ("float32", "float16"):
                yield Job("gpu_jobs:model", (name, dtype, executor, device, {}), 120)
    elif family == "tf32":
        for label, flags in FLAGS.items():
            yield Job("gpu_sketches:tf32", (label, flags), 60)
    elif family == "tf32-override":
        yield Job("gpu_sketches:tf32", ("TF32 cleared, NVIDIA_TF32_OVERRIDE=0", FLAGS["TF32 cleared"]), 60)
    elif family.startswith("attention"):
        for form in gpu_sketches.ATTENTION_FORMS:
            for dtype in ("float16", "bfloat16", "float32"):
                for layers, length, width in gpu_sketches.ATTENTION_SIZES:
                    yield Job("gpu_sketches:attention", (form, dtype, layers, length, width), 60)
    elif family == "layers":
        from trtplug.testing.parity.layers import layer_cases

        for case in layer_cases():
            yield Job("trtplug.testing.parity.jobs:layer", (case, executor), 60)
    else:
        cases = list(case_ids(family))
        random.Random(0).shuffle(cases)  # a run that is stopped has then seen some of everything
        module = "gpu_breadth" if family == "breadth" else "trtplug.testing.parity.jobs"
        for case in cases:
            yield Job(f"{module}:{family}", (case, executor), 90)


def case_ids(family: str) -> Iterable[str]:
    """Of a table of calls."""
    import trtplug
    from trtplug.testing import parity
    from trtplug.testing.parity import jobs as _defines_the_ops_of_quantized_decomposed  # noqa: F401  # named by cases

    if family == "breadth":
        return gpu_breadth.breadth_cases()
    of = {"calls": parity.call_cases, "dynamic": parity.dynamic_cases, "lowered": parity.lowered_calls}
    return of[family](trtplug.registry())


class Results:
    """Results as they come: each a line of ``results.jsonl``; and what the table says of them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = (folder / "results.jsonl").open("w")
        self.rows: dict[str, list[tuple[Outcome, Any]]] = collections.defaultdict(list)

    def add(self, family: str, outcome: Outcome) -> None:
        line = {
            "family": family,
            "arguments": outcome.job.arguments,
            "seconds": round(outcome.seconds, 2),
            "result": outcome.result,
            "error": outcome.error,
            "died": outcome.died,
        }
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        self.rows[family].append((outcome, outcome.result))


def verdict(family: str, outcome: Outcome) -> str:
    """One word for the table."""
    if outcome.died:
        return "crash"
    if outcome.error:
        return "error"
    if family == "layers":
        return str(outcome.result["verdict"])
    if family in TABLES:
        return (
            "differs" if outcome.result["wrong"] else "agrees" if outcome.result["compared"] else "nothing to compare"
        )
    if family == "models":
        return "agrees" if outcome.result["error_exact"] <= outcome.result["bound"] else "differs"
    return "done"


def print_attention(family: str, rows: list[tuple[Outcome, Any]]) -> None:
    """For each form and dtype, how many sizes ran, and what was said of those that did not."""
    said: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for outcome, row in rows:
        words = outcome.died or outcome.error.strip()[-100:] or row.get("failed", "")
        found = re.search(r"[\w.]+:\d+: CHECK.*", words)
        said["{} {}".format(*outcome.job.arguments)][found.group()[:100] if found else words[:160] or "ran"] += 1
    for form, words in sorted(said.items()):
        print(family, form, "; ".join(f"{count}: {word}" for word, count in words.most_common()))


def print_table(results: Results, planned: dict[str, int]) -> None:
    for family in ("attention", "attention-override"):
        print_attention(family, results.rows[family])
    for family in ("tf32", "tf32-override", "contexts", "overhead", "models"):
        for outcome, rows in results.rows[family]:
            for row in rows if isinstance(rows, list) else [rows]:
                shown = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in (row or {}).items()}
                print(family, *(f"{k}={v}" for k, v in shown.items()) if row else (outcome.job.arguments, outcome.died))
                if outcome.error:
                    print("   ", outcome.error.strip().splitlines()[-1][:300])
    for family in TABLES:
        for outcome, _ in results.rows[family]:
            word = verdict(family, outcome)
            if word in ("crash", "error"):
                print(f"{word}: {outcome.job.arguments[0]}: {outcome.died} {outcome.error.strip()[-200:]}")
    print("\n| family | planned | run | " + " | ".join(WORDS) + " |")
    print("|---" * (len(WORDS) + 3) + "|")
    for family, count in planned.items():
        words = collections.Counter(verdict(family, outcome) for outcome, _ in results.rows[family])
        print(f"| {family} | {count} | {sum(words.values())} | " + " | ".join(str(words[w]) for w in WORDS) + " |")


def stands_out(table: str, case: str) -> bool:
    """Whether the record says of a case, in the TensorRT at hand, that it does not agree."""
    from trtplug._tensorrt import library
    from trtplug.testing.parity import record as records

    entry = records.expected(table, case, str(library().__version__))
    return entry is None or entry.verdict not in ("agrees", "refused")


def record(results: Results) -> None:
    """Layers and calls into the package's record. What does not agree and has no decision yet gets ``?``."""
    from trtplug._tensorrt import library
    from trtplug.testing.parity import record as records

    version = str(library().__version__)
    found = []
    for family in TABLES:
        for outcome, result in results.rows[family]:
            word, how = verdict(family, outcome), outcome.died
            if family == "layers" and result:
                how = result["how"]
            elif result and result["wrong"]:
                how = result["wrong"][0]["call"] + ": " + result["wrong"][0]["finding"]["how"]
            word = "agrees" if word == "nothing to compare" else word
            how = "" if word in ("agrees", "refused") else " ".join(how.split())[:160]
            if word != "error":
                found.append(records.Entry(family, str(outcome.job.arguments[0]), version, word, "", how))
    records.write(records.merged(records.read(), found, version))


WORDS = ("agrees", "differs", "fails", "refused", "unmodelled", "crash", "error", "nothing to compare", "done")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(FAMILIES), help="which, in this order (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=540, help="in all (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=14, help="that share the GPU (default: %(default)s)")
    parser.add_argument("--only", default="", help="a regular expression that a case or model must match")
    parser.add_argument("--again", action="store_true", help="only cases that do not agree by the record")
    parser.add_argument("--executor", default="tensorrt", help="under test (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write what was found into the package's record")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder (default: %(default)s)")
    chosen = parser.parse_args()
    deadline = time.monotonic() + chosen.seconds
    device = "cuda" if chosen.executor == "tensorrt" else "cpu"
    results, planned = Results(chosen.out), {}
    for family in chosen.families.split(","):
        if family not in FAMILIES:
            parser.error(f"no family {family!r}: choose among {', '.join(FAMILIES)}")
        todo = list(jobs(family, chosen.executor, device))
        if family in (*TABLES, "models") and chosen.only:
            todo = [job for job in todo if re.search(chosen.only, job.arguments[0])]
        if family in TABLES and chosen.again:
            todo = [job for job in todo if stands_out(family, job.arguments[0])]
        planned[family] = len(todo)
        start = time.monotonic()
        each = chosen.processes if family in TOGETHER else 1
        environment = OVERRIDE if family.endswith("-override") else None
        for outcome in run_jobs(todo, each, deadline=deadline, environment=environment):
            results.add(family, outcome)
        print(f"{family}: {len(results.rows[family])} of {len(todo)} in {time.monotonic() - start:.0f} s", flush=True)
    print_table(results, planned)
    if chosen.record:
        record(results)


if __name__ == "__main__":
    main()
