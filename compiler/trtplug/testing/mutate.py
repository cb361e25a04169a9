"""The mutation run: how many small wrong changes of the converters do the laws notice?

``python -m trtplug.testing.mutate [--converter NAME]`` prints a table, a score, and every survivor with its diff.
``--out FILE`` keeps every outcome, a line of JSON each; what is in the file is not tried again, so that a run can be
stopped and resumed, or spread over machines by ``--shard``. ``--record FILE`` writes the score and the survivors, and
keeps what the file says of why they survive.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import random
import sys
import types
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from trtplug.testing.judging import THOROUGH, Judge, judges_of, killed_by
from trtplug.testing.mutants import Mutant, exchanged_rows, functions_of, mutants_of
from trtplug.testing.mutation_record import Outcome, read, recorded, report
from trtplug.testing.own_tests import killed_by_tests, tests_pass
from trtplug.testing.processes import Record, in_processes
from trtplug.testing.profiles import Profile
from trtplug_registry import Converter, Registry, unknown_name

MOST_USERS = 3
"""A helper that many converters share is tried with this many of them."""
MOST_OTHERS = 6
"""And what survives, where that is asked for, with so many others."""
TOGETHER = 4
"""Functions that a process tries one after the other: neighbours share converters, and so what was drawn of them."""


@dataclasses.dataclass(frozen=True, eq=False)
class Unit:
    """One function of a plugin, with converters that use it: a few, and all others."""

    function: types.FunctionType
    users: tuple[Converter, ...]
    more: tuple[Converter, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.function.__module__}.{self.function.__qualname__}:{self.function.__code__.co_firstlineno}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which mutants are tried, and with what.

    Attributes:
        sample: at most this many of each function, drawn at random; all where None.
        seed: of the draw.
        shard: (i, n): every n-th few functions from the i-th on.
        done: ids of mutants that are not tried again.
        thorough: whether what survives is tried with other converters that use the function, and many more calls.
        tests: files of the plugin's own tests, which judge what the laws let live; those named after the module of the
            function alone, if there are any.
    """

    sample: int | None = None
    seed: int = 0
    shard: tuple[int, int] = (0, 1)
    done: Collection[str] = ()
    thorough: bool = False
    tests: Sequence[str] = ()


def units(chosen: Sequence[Converter]) -> list[Unit]:
    """The functions that converters reach, each once."""
    users: dict[types.FunctionType, list[Converter]] = {}
    for converter in chosen:
        if converter.overloads():
            for function in functions_of(converter):
                users.setdefault(function, []).append(converter)
    few = {function: tuple(_spread(found)) for function, found in users.items()}
    return [
        Unit(function, few[function], tuple(user for user in found if user not in few[function]))
        for function, found in users.items()
    ]


def _spread(converters: list[Converter]) -> list[Converter]:
    """A few of many, from all over."""
    step = max(1, len(converters) // MOST_USERS)
    return converters[::step][:MOST_USERS]


def mutants_in(registry: Registry, unit: Unit) -> Iterator[tuple[Mutant, tuple[Converter, ...]]]:
    """The unit's mutants, and the converters to try each with."""
    seen = set()
    for user in unit.users:
        for mutant in mutants_of(unit.function, user):
            if mutant.id not in seen:
                seen.add(mutant.id)
                yield mutant, unit.users
    for user in unit.users:
        for mutant in exchanged_rows(user, registry):
            if mutant.function is unit.function:
                yield mutant, (user,)


def outcomes(
    registry: Registry,
    batch: Sequence[Unit],
    choice: Choice | None = None,
    trying: Callable[[Outcome], None] = lambda outcome: None,
) -> Iterator[Outcome]:
    """Tries the mutants of some functions, in this process.

    Args:
        registry: that the converters belong to.
        batch: the functions.
        choice: of mutants.
        trying: called before each.
    """
    choice = choice or Choice()

    @functools.cache
    def judges(converter: Converter, profile: Profile | None = None) -> Sequence[Judge]:
        return judges_of(converter, profile)

    def thorough(converter: Converter) -> Sequence[Judge]:
        return judges(converter, THOROUGH)

    for unit in batch:
        found = list(mutants_in(registry, unit))
        if choice.sample is not None and choice.sample < len(found):
            found = random.Random(f"{choice.seed} {unit.name}").sample(found, choice.sample)
        for mutant, users in found:
            if mutant.id not in choice.done:
                outcome = Outcome(unit.name, mutant.id, mutant.where)
                trying(outcome)
                killer = killed_by(mutant, users, judges)
                if not killer and choice.tests:
                    killer = killed_by_tests(mutant, users[0], _about(unit.function, choice.tests))
                if not killer and choice.thorough and not mutant.row:
                    killer = killed_by(mutant, unit.more[:MOST_OTHERS], judges)
                if not killer and choice.thorough:
                    killer = killed_by(mutant, users, thorough)
                yield dataclasses.replace(outcome, killed_by=killer)


def _about(function: types.FunctionType, tests: Sequence[str]) -> list[str]:
    """The files about a function's module, or all where none is."""
    family = function.__module__.rpartition(".")[2].strip("_")
    return [test for test in tests if Path(test).stem == f"test_{family}"] or list(tests)


def run(
    registry: Registry,
    chosen: Sequence[Converter],
    jobs: int = 1,
    choice: Choice | None = None,
    seconds: float | None = None,
) -> Iterator[Outcome]:
    """Tries the mutants of some converters, each outcome as it comes. One that crashes its process is killed.

    Args:
        registry: that they belong to.
        chosen: the converters.
        jobs: processes at a time.
        choice: of mutants.
        seconds: after which the run stops, done or not; None for never.

    Raises:
        RuntimeError: a process ended that was not trying a mutant.
    """
    choice = choice or Choice()
    every = units(chosen)
    batches = [every[at : at + TOGETHER] for at in range(0, len(every), TOGETHER)][choice.shard[0] :: choice.shard[1]]

    def work(batch: Sequence[Unit], done: Collection[str], trying: Callable[[Record], None]) -> Iterator[Record]:
        left = dataclasses.replace(choice, done=done)
        for outcome in outcomes(registry, batch, left, lambda outcome: trying(dataclasses.asdict(outcome))):
            yield dataclasses.asdict(outcome)

    for record, ended in in_processes(work, batches, jobs=jobs, done=choice.done, seconds=seconds):
        yield dataclasses.replace(Outcome(**record), **({"killed_by": ended} if ended else {}))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 1 where fewer than the demanded share of the mutants are killed."""
    import trtplug

    options = _parser().parse_args(arguments)
    registry = trtplug.registry()
    chosen = [c for c in registry if not options.converter or options.converter in f"{c.id} {c.name}"]
    if not chosen:
        raise unknown_name("converter", options.converter, [c.id for c in registry])
    if not tests_pass(options.tests):
        raise SystemExit("--tests: they fail as they are, and so say nothing of a mutant")
    found = read(options.out) if options.out else []
    if options.again:
        found = [outcome for outcome in found if outcome.killed_by]
    choice = Choice(options.sample, options.seed, options.shard, {o.id for o in found}, options.thorough, options.tests)
    with contextlib.nullcontext() if options.out is None else options.out.open("a") as out:
        for outcome in run(registry, chosen, options.jobs, choice, options.time_limit):
            found.append(outcome)
            if out is not None:
                print(json.dumps(dataclasses.asdict(outcome)), file=out, flush=True)
            if len(found) % 50 == 0:
                print(f"{len(found)} mutants, {sum(not o.killed_by for o in found)} alive", file=sys.stderr, flush=True)
    print(report(found))
    if options.record is not None:
        every = {mutant.id for unit in units(chosen) for mutant, _ in mutants_in(registry, unit)}
        options.record.write_text(recorded(found, every, options.record))
    return int(sum(bool(o.killed_by) for o in found) < options.at_least * len(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trtplug.testing.mutate", description=__doc__)
    parser.add_argument("--converter", help="only converters whose id or function name contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--at-least", type=float, default=0.0, metavar="SHARE", help="fail below this share of kills")
    parser.add_argument("--sample", type=int, metavar="K", help="at most K mutants of each function, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--shard", type=_shard, default=(0, 1), metavar="I/N", help="the I-th of N parts, from 0")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="stop then, done or not")
    parser.add_argument("--out", type=Path, metavar="FILE", help="every outcome, a line each; those in it stay")
    parser.add_argument("--again", action="store_true", help="try those again that the file says have survived")
    parser.add_argument("--thorough", action="store_true", help="try what survives with more converters and calls")
    parser.add_argument(
        "--tests", nargs="*", default=[], metavar="FILE", help="try what survives with these tests, too"
    )
    parser.add_argument("--record", type=Path, metavar="FILE", help="the score, and why the survivors survive")
    return parser


def _shard(text: str) -> tuple[int, int]:
    number, _, parts = text.partition("/")
    try:
        found = int(number), int(parts)
    except ValueError:
        found = (0, 0)
    if not 0 <= found[0] < found[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 0 <= I < N, as 0/4")
    return found


if __name__ == "__main__":
    sys.exit(main())
