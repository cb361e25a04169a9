"""Everything that is claimed, and what was tried to refute it, in one table.

``python -m trtplug.testing.certificate`` prints how many overloads are claimed and how many of core ATen, the cells of
the support matrix, how many examples every law tried of converters and of what is decomposed, how many mutants of the
converters the laws notice (from the record of a run of `trtplug.testing.mutate`), and the failures, which it shows. It
exits with 1 where there are any. ``TRTPLUG_LAWS=nightly`` tries more.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trtplug.testing.cases import LawCase, law_cases, profile_of_environment
from trtplug.testing.errors import NotApplicableError
from trtplug.testing.lowered import LoweredCase, lowered_cases
from trtplug_registry import Registry

Case = LawCase | LoweredCase


@dataclasses.dataclass(frozen=True)
class Tried:
    """What came of one case: how many examples, what became of lowered ones, and how it failed, if it did."""

    case: str
    examples: int = 0
    fates: Mapping[str, int] = dataclasses.field(default_factory=dict)
    failure: str = ""


def tried(case: Case) -> Tried:
    """Tries one case; never raises."""
    try:
        found = case.check()
    except NotApplicableError:
        return Tried(case.id)
    except Exception as error:  # whatever it is, the certificate shows it
        return Tried(case.id, failure=f"{type(error).__name__}: {error}")
    return Tried(case.id, found) if isinstance(found, int) else Tried(case.id, found.examples, found.fates)


def try_all(cases: Sequence[Case], jobs: int, progress: Callable[[Tried], None] | None = None) -> list[Tried]:
    """Every case, in so many processes. One that ends its process is a failure; the others go on."""
    found: list[Tried] = []
    for one in _in_processes(cases, jobs) if jobs > 1 else map(tried, cases):
        found.append(one)
        if progress is not None:
            progress(one)
    return found


def _in_processes(cases: Sequence[Case], jobs: int) -> Iterator[Tried]:
    """The cases dealt out to forked processes, which write what they found a line each."""
    fork = multiprocessing.get_context("fork")
    queue: Any = fork.SimpleQueue()
    parts = [list(range(number, len(cases), jobs)) for number in range(jobs)]
    running = {
        number: fork.Process(target=_work, args=(cases, part, number, queue)) for number, part in enumerate(parts)
    }
    for process in running.values():
        process.start()
    done: dict[int, int] = collections.Counter()
    while running:
        if queue.empty() and all(process.is_alive() for process in running.values()):
            next(iter(running.values())).join(0.05)
            continue
        while not queue.empty():
            number, one = queue.get()
            done[number] += 1
            yield one
        for number, process in list(running.items()):
            if process.is_alive() or not queue.empty():
                continue
            process.join()
            del running[number]
            rest = parts[number][done[number] :]
            if rest:  # it died of the next case
                yield Tried(cases[rest[0]].id, failure=f"the process ended with {process.exitcode}")
                done[number] += 1
                again = fork.Process(target=_work, args=(cases, rest[1:], number, queue))
                again.start()
                running[number] = again


def _work(cases: Sequence[Case], part: Iterable[int], number: int, queue: Any) -> None:
    for place in part:
        queue.put((number, tried(cases[place])))


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


def certificate(registry: Registry, results: Sequence[Tried], mutants: Mapping[str, Any] | None) -> dict[str, Any]:
    """The rows of the table, in order."""
    of_lowering = {case.id for case in lowered_cases(registry)}
    fates = collections.Counter[str]()
    for one in results:
        fates.update(one.fates)
    return {
        **claims(registry),
        "cases of laws of converters": sum(one.case not in of_lowering for one in results),
        "examples of converters": sum(one.examples for one in results if one.case not in of_lowering),
        "cases of laws of decompositions": sum(one.case in of_lowering for one in results),
        "examples of decompositions": sum(one.examples for one in results if one.case in of_lowering),
        **{f"lowered calls that ran {how}": fates[how] for how in ("whole", "in part")},
        "lowered calls that were refused": fates["refused"],
        "mutants": mutants["mutants"] if mutants else "no record given",
        "mutants killed": mutants["killed"] if mutants else "no record given",
        "failures": sum(bool(one.failure) for one in results),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 1 where something fails."""
    import trtplug

    parser = argparse.ArgumentParser(prog="python -m trtplug.testing.certificate", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose id contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--mutation-record", type=Path, metavar="FILE", help="what mutate --record FILE wrote")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    registry = trtplug.registry()
    cases: list[Case] = [*law_cases(registry), *lowered_cases(registry)]
    cases = [case for case in cases if options.only in case.id]
    results = try_all(cases, options.jobs, _show if sys.stderr.isatty() else None)
    record = json.loads(options.mutation_record.read_text()) if options.mutation_record else None
    found = {"profile": profile_of_environment().name, **certificate(registry, results, record)}
    failures = [one for one in results if one.failure]
    if options.json:
        print(json.dumps({**found, "failed": {one.case: one.failure for one in failures}}, indent=1))
        return int(bool(failures))
    for one in failures:
        print(f"{one.case}\n{one.failure}\n")
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:<{width}}  {value:>16,}" if isinstance(value, int) else f"{name:<{width}}  {value:>16}")
    return int(bool(failures))


def _show(one: Tried) -> None:
    print("F" if one.failure else ".", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
