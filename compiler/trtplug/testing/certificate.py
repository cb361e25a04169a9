"""Everything that is claimed, and what was tried to refute it, in one table.

``python -m trtplug.testing.certificate`` prints how many overloads are claimed and how many of core ATen, the cells of
the support matrix, how many examples every law tried of converters and of what is decomposed, how many mutants of the
converters the laws notice (from the record of a run of `trtplug.testing.mutate`), and the failures, which it shows. It
exits with 1 where there are any, or where something was not tried. ``TRTPLUG_LAWS=nightly`` tries more, and
``TRTPLUG_LAWS_SECONDS=2`` bounds each. ``--out FILE`` keeps every result, a line of JSON each; what is in the file is
not tried again, so that a run can be stopped and resumed, unless the source of the converter or the decomposition has
changed since: that of the files which hold it and what it reaches of its package, but not of the rest of the compiler.

Calls are drawn at random, so that what failed may pass on another draw, which mends nothing: it counts as failed until
its source changes. ``--again`` tries it again where anything else of trtplug, Torch or TensorRT has changed since, and
first the very call that failed, if it broke a law of equality: only when that passes can the case.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trtplug._tensorrt import library
from trtplug.testing.cases import LawCase, law_cases, profile_of_environment
from trtplug.testing.errors import NotApplicableError
from trtplug.testing.lowered import LoweredCase, lowered_cases
from trtplug.testing.processes import NO_ANSWER, Record, in_processes
from trtplug.testing.replay import still_fails, with_script
from trtplug.testing.sources import source_of, source_of_all
from trtplug_registry import Registry

Case = LawCase | LoweredCase


@dataclasses.dataclass(frozen=True)
class Tried:
    """What came of one case.

    Attributes:
        id: of the case.
        profile: how much was to be tried.
        examples: how many were.
        fates: what became of lowered ones.
        failure: how it failed, if it did.
        seconds: that it took.
        versions: of Torch and TensorRT.
        source: of what was tried; see `source_of`.
        rest: the source of all of trtplug and its plugins.
        mended: whether it had failed before, and what failed then was tried first, after something had changed.
    """

    id: str
    profile: str = ""
    examples: int = 0
    fates: Mapping[str, int] = dataclasses.field(default_factory=dict)
    failure: str = ""
    seconds: float = 0.0
    versions: str = ""
    source: str = ""
    rest: str = ""
    mended: bool = False

    @property
    def refutes(self) -> bool:
        """Whether it failed by more than taking too long, which the machine may have been too busy for."""
        return bool(self.failure) and not self.failure.startswith(NO_ANSWER)

    @property
    def may_pass_now(self) -> bool:
        """Whether it failed, and something has changed since."""
        return bool(self.failure) and not (self.refutes and (self.versions, self.rest) == (versions(), source_of_all()))


def tried(case: Case, failed: str = "") -> Tried:
    """Tries one case, and before that what failed the last time; never raises."""
    start = time.perf_counter()
    result = _to_try(case, failed)
    try:
        if failed and (failure := still_fails(case, failed)):
            return dataclasses.replace(result, failure=failure)
        found = case.check()
        counted = (found, {}) if isinstance(found, int) else (found.examples, dict(found.fates))
        result = dataclasses.replace(result, examples=counted[0], fates=counted[1])
    except NotApplicableError:
        pass
    except Exception as error:  # whatever it is, the certificate shows it
        result = dataclasses.replace(result, failure=with_script(f"{type(error).__name__}: {error}", failed))
    return dataclasses.replace(result, seconds=round(time.perf_counter() - start, 2))


def _to_try(case: Case, failed: str) -> Tried:
    return Tried(
        case.id,
        profile_in_words(),
        versions=versions(),
        source=source(case),
        rest=source_of_all(),
        mended=bool(failed),
    )


def versions() -> str:
    """Of Torch and TensorRT."""
    return f"torch {torch.__version__}, {library().__name__} {library().__version__}"


def source(case: Case) -> str:
    """Of the converter, or of the function that writes the op with others."""
    if isinstance(case, LawCase):
        return source_of(case.converter)
    return source_of(case.writer) if isinstance(case, LoweredCase) else ""


def profile_in_words() -> str:
    """Such as ``nightly, 2 s each``."""
    profile = profile_of_environment()
    return profile.name + (f", {profile.seconds:g} s each" if math.isfinite(profile.seconds) else "")


def try_all(
    cases: Sequence[Case],
    jobs: int,
    progress: Callable[[Tried], None] = lambda one: None,
    done: Collection[str] = (),
    seconds: float | None = None,
    patience: float = math.inf,
    failed: Mapping[str, str] | None = None,
) -> list[Tried]:
    """Every case but those done, in so many processes; see `in_processes` for the limits.

    Those that have failed, and how, are held to that first. One that ends its process, or is not over in time, is a
    failure; the others go on.
    """
    batches: dict[int, list[Case]] = collections.defaultdict(list)
    for case in cases:
        if case.id not in done:  # what shares a memory stays together: one law builds what another has drawn
            batches[id(getattr(case, "memory", case))].append(case)
    found = []
    source_of_all()  # once, and not in every process
    work = functools.partial(_try, failed or {})
    for record, ended in in_processes(work, list(batches.values()), jobs=jobs, seconds=seconds, patience=patience):
        if ended:
            record = {**record, "failure": with_script(ended, (failed or {}).get(record["id"], ""))}
        found.append(Tried(**record))
        progress(found[-1])
    return found


def _try(
    failed: Mapping[str, str], batch: Sequence[Case], done: Collection[str], trying: Callable[[Record], None]
) -> Iterator[Record]:
    for case in batch:
        if case.id not in done:
            how = failed.get(case.id, "")
            trying(dataclasses.asdict(_to_try(case, how)))
            yield dataclasses.asdict(tried(case, how))


def read(file: Path, profile: str) -> dict[str, Tried]:
    """What was tried with a profile, by a file with a line of JSON for each; the last of each case.

    But what refutes a case under any profile stays until its source changes or it is mended: no other draw outdoes it.
    """
    found: dict[str, Tried] = {}
    for one in (Tried(**json.loads(line)) for line in (file.read_text().splitlines() if file.exists() else [])):
        held = found.get(one.id)
        lucky = held is not None and held.refutes and held.source == one.source and not (one.failure or one.mended)
        if (one.profile == profile or one.refutes) and not lucky:
            found[one.id] = one
    return found


def claims(registry: Registry) -> dict[str, Any]:
    """What the registry claims, without trying anything."""
    from trtplug.covering import coverage
    from trtplug.covering.cells import Fate
    from trtplug.covering.markdown import cells_of

    core = coverage("core_aten", registry=registry)
    every = [cell for found in cells_of(core.ops, registry).values() for cell in found]
    return {
        "converted overloads": len(registry.targets),
        "decomposed overloads": len(registry.decompositions.keys() - set(registry.targets)),
        "core overloads": len(core.ops),
        "core overloads that run in TensorRT": sum(op.covered for op in core.ops),
        "core cells": len(every),
        "core cells that run": sum(cell.runs for cell in every),
        "core cells that run with symbolic sizes": sum(cell.runs and cell.dynamic for cell in every),
        "core cells that are refused with a reason": sum(
            cell.fate is Fate.REFUSED and bool(cell.why) for cell in every
        ),
        "core cells that eager has not": sum(cell.fate is Fate.NOT_APPLICABLE for cell in every),
        "core cells without an answer": sum(
            cell.fate is Fate.UNKNOWN or (cell.fate is Fate.REFUSED and not cell.why) for cell in every
        ),
    }


def certificate(
    registry: Registry, cases: Sequence[Case], results: Sequence[Tried], mutants: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The rows of the table, in order."""
    of_lowering = {case.id for case in cases if isinstance(case, LoweredCase)}
    lowered, converted = ([one for one in results if (one.id in of_lowering) is which] for which in (True, False))
    fates = collections.Counter[str]()
    for one in lowered:
        fates.update(one.fates)
    return {
        **claims(registry),
        "cases of laws of converters": len(converted),
        "examples of converters": sum(one.examples for one in converted),
        "cases of laws of decompositions": len(lowered),
        "examples of decompositions": sum(one.examples for one in lowered),
        **{f"lowered calls that ran {how}": fates[how] for how in ("whole", "in part")},
        "lowered calls that were refused": fates["refused"],
        **{
            f"mutants{words}": mutants[name] if mutants else "no record given"
            for name, words in (("mutants", ""), ("tried", " tried"), ("killed", " killed"))
        },
        "cases not tried": len(cases) - len(results),
        "failures": sum(bool(one.failure) for one in results),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 1 where something fails or was not tried."""
    import trtplug

    options = _parser().parse_args(arguments)
    registry = trtplug.registry()
    every: list[Case] = [*law_cases(registry), *lowered_cases(registry)]
    cases = {case.id: case for case in every if options.only in case.id}
    known = read(options.out, profile_in_words()) if options.out else {}
    before = {
        name: one
        for name, one in known.items()
        if name in cases and one.source == source(cases[name]) and not (options.again and one.may_pass_now)
    }
    failed = {name: one.failure for name, one in known.items() if one.refutes and name not in before}
    with contextlib.nullcontext() if options.out is None else options.out.open("a") as out:

        def progress(one: Tried) -> None:
            if out is not None:
                print(json.dumps(dataclasses.asdict(one)), file=out, flush=True)
            if sys.stderr.isatty():
                print("F" if one.failure else ".", end="", file=sys.stderr, flush=True)

        limits = (options.time_limit, options.patience)
        new_first = sorted(cases.values(), key=lambda case: case.id in known)
        now = try_all(new_first, options.jobs, progress, before.keys(), *limits, failed)
    results = [*before.values(), *now]
    record = json.loads(options.mutation_record.read_text()) if options.mutation_record else None
    found = {"profile": profile_in_words(), **certificate(registry, list(cases.values()), results, record)}
    failures = {one.id: one.failure for one in results if one.failure}
    print(json.dumps({**found, "failed": failures}, indent=1) if options.json else _table(found, failures))
    return int(bool(failures or found["cases not tried"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trtplug.testing.certificate", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose id contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--mutation-record", type=Path, metavar="FILE", help="what mutate --record FILE wrote")
    parser.add_argument("--out", type=Path, metavar="FILE", help="every result, a line each; those in it stay")
    parser.add_argument("--again", action="store_true", help="try again what has failed, if anything has changed since")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="stop then, done or not")
    parser.add_argument("--patience", type=float, default=math.inf, metavar="SECONDS", help="a case fails after this")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _table(found: Mapping[str, Any], failures: Mapping[str, str]) -> str:
    width = max(map(len, found))
    lines = [f"{case}\n{failure}\n" for case, failure in failures.items()]
    for name, value in found.items():
        lines.append(f"{name:<{width}}  {value:>16,}" if isinstance(value, int) else f"{name:<{width}}  {value:>16}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
