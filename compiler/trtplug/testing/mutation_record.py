"""What became of mutants: read from a run, told in a table, kept in the record with why the survivors survive."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import json
import platform
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from trtplug._tensorrt import library


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one mutant.

    Attributes:
        function: that is changed, ``module.name:line``.
        id: of the mutant: the function, the kind of change, and the lines that differ.
        where: ``module.name:line``.
        killed_by: a law, in a line; "" where it survived.
    """

    function: str
    id: str
    where: str = ""
    killed_by: str = ""


def read(file: Path) -> list[Outcome]:
    """The outcomes in a file, a line of JSON each, the last of each mutant; none where there is no file."""
    lines = file.read_text().splitlines() if file.exists() else []
    return list({outcome.id: outcome for outcome in (Outcome(**json.loads(line)) for line in lines)}.values())


def report(found: Sequence[Outcome]) -> str:
    """A table of the functions, the survivors with their diffs, and the score."""
    by_function: dict[str, list[Outcome]] = collections.defaultdict(list)
    for outcome in found:
        by_function[outcome.function].append(outcome)
    lines = [f"{'killed':>7} {'of':>5}  function"]
    for name, results in by_function.items():
        lines.append(f"{sum(bool(o.killed_by) for o in results):>7} {len(results):>5}  {name}")
    survivors = [outcome for outcome in found if not outcome.killed_by]
    lines += ["", f"{len(survivors)} survivors"]
    lines += [f"  {o.where}: {_kind(o)}\n{textwrap.indent(_diff(o), '    ')}" for o in survivors]
    killed = len(found) - len(survivors)
    share = killed / len(found) if found else 1.0
    return "\n".join([*lines, "", f"{killed} of {len(found)} mutants killed: {share:.1%}"])


def recorded(found: Sequence[Outcome], every: Collection[str], before: Path) -> str:
    """The record of a run, as JSON; survivors keep the reasons that the record before gives.

    Args:
        found: the outcomes.
        every: the ids of all mutants that there are now; outcomes of others do not count.
        before: the record so far, if there is one.
    """
    known = json.loads(before.read_text()) if before.exists() else {"survivors": []}
    reasons = {f"{s['mutant']}\n{s['diff']}": s["why"] for s in known["survivors"]}
    found = [outcome for outcome in found if outcome.id in every]
    survivors = sorted(outcome.id for outcome in found if not outcome.killed_by)
    record: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tensorrt": f"{library().__name__} {library().__version__}",
        "mutants": len(every),
        "tried": len(found),
        "killed": len(found) - len(survivors),
        "by_tests": sum("::test_" in outcome.killed_by for outcome in found),
        "survivors": [
            {"mutant": mutant.partition("\n")[0], "diff": mutant.partition("\n")[2], "why": reasons.get(mutant, "")}
            for mutant in survivors
        ],
    }
    if "note" in known:
        record["note"] = known["note"]
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def _kind(outcome: Outcome) -> str:
    return outcome.id.partition("\n")[0].partition(": ")[2]


def _diff(outcome: Outcome) -> str:
    return outcome.id.partition("\n")[2]
