"""What is known of TensorRT against the reference executor: a table in a file, made by a run on a GPU.

Every case of the layer table has a line for each version that was run; calls, whatever table they are of, have
lines only where they do not agree. What does not agree has a decision, one of `DECISIONS`: why it is left as it is.
What TensorRT leaves open (`trtplug.reference.latitude`) agrees. ``python -m trtplug.testing.parity CASE`` reproduces a
line.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

PATH = Path(__file__).with_name("record.tsv")

DECISIONS: Mapping[str, str] = {
    "": "TensorRT agrees, or refuses to define or build it",
    "sizes": "a number computed from sizes that int32 does not hold ends the call with an error; eager wraps around",
    "build": "1.4 does not build it: an input of int8 or float8 that is dequantized. When a model is compiled, the "
    "block is left to Torch",
    "context": "TensorRT fails as it makes a context: in 1.4 a convolution of bfloat16 with one channel per group. "
    "When a model is compiled, the block is left to Torch",
    "range": "in 1.4, a maximum over nothing but -inf is the least finite number, and the largest float32 rounds to an "
    "infinite TF32",
    "version": "1.4 is wrong, or does not define it; 1.6 is right: transposed convolutions in three dimensions, a "
    "scalar bias of a bfloat16 product, grid samples of volumes, some top-k of many axes, a max pooling that fails",
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        table: ``layers``, ``calls``, ``dynamic``, ``lowered`` or ``breadth``.
        case: its id.
        version: of TensorRT.
        verdict: see `Finding`; of calls, ``differs`` or ``crash``.
        decision: a key of `DECISIONS`.
        how: in words, shortened.
    """

    table: str
    case: str
    version: str
    verdict: str
    decision: str = ""
    how: str = ""


def read(path: Path = PATH) -> dict[tuple[str, str, str], Entry]:
    """Every entry, by table, case and version."""
    lines = path.read_text().splitlines() if path.exists() else []
    entries = (Entry(*line.split("\t")) for line in lines if line and not line.startswith("#"))
    return {(entry.table, entry.case, entry.version): entry for entry in entries}


def write(entries: Iterable[Entry], path: Path = PATH) -> None:
    """Writes the file anew, in order."""
    lines = ["# table\tcase\tversion\tverdict\tdecision\thow; written by benchmarks/gpu.py --record"]
    for entry in sorted(entries, key=lambda e: (e.table, e.version, e.case)):
        lines.append("\t".join(dataclasses.astuple(entry)))
    path.write_text("\n".join(lines) + "\n")


def merged(known: Mapping[tuple[str, str, str], Entry], found: Iterable[Entry], version: str) -> list[Entry]:
    """The record with the entries of one version that were found again; a decision stays while the verdict does, else
    it is ``?``. Of calls that agree, none is kept.
    """
    new = {(entry.table, entry.case): entry for entry in found}
    others = [entry for entry in known.values() if entry.version != version or (entry.table, entry.case) not in new]
    kept = [entry for entry in new.values() if entry.table == "layers" or entry.verdict != "agrees"]
    return others + [dataclasses.replace(entry, decision=_decision(known, entry)) for entry in kept]


def _decision(known: Mapping[tuple[str, str, str], Entry], entry: Entry) -> str:
    if entry.verdict in ("agrees", "refused"):
        return ""
    same = [e for (table, case, _), e in known.items() if (table, case) == (entry.table, entry.case)]
    return next((e.decision for e in same if e.verdict == entry.verdict), "?")


@functools.cache
def _read_once() -> dict[tuple[str, str, str], Entry]:
    return read()


def expected(table: str, case: str, version: str) -> Entry | None:
    """What is known of a case in this version; None where the version has never been run."""
    known = _read_once()
    if not any(entry.version == version for entry in known.values()):
        return None
    return known.get((table, case, version), Entry(table, case, version, "unknown" if table == "layers" else "agrees"))
