"""The mutation run: how many small wrong changes of the converters do the laws notice?

``python -m trtplug.testing.mutate [--converter NAME]`` prints a table, a score, and every survivor with its diff.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import select
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trtplug.testing.drawing import dtypes_of
from trtplug.testing.errors import NotApplicableError
from trtplug.testing.laws import Law, check_converter
from trtplug.testing.mutants import Mutant, exchanged_rows, functions_of, mutants_of
from trtplug.testing.profiles import Profile
from trtplug_registry import Converter, Plugin, Registry, unknown_name

PROFILE = Profile("mutation", calls=20, values=2, dynamic_calls=5, points=1, builds=1, forced=1, shrink=False)
PATIENCE = 60
"""Seconds after which a mutant counts as killed: it hangs."""
MOST_USERS = 3
"""A helper that many converters share is tried with this many of them."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one mutant: killed, by what, or survived (``killed_by`` is "")."""

    mutant: str
    killed_by: str


@dataclasses.dataclass(frozen=True, eq=False)
class Unit:
    """One function of a plugin, with converters that use it."""

    function: types.FunctionType
    users: tuple[Converter, ...]


def units(registry: Registry, chosen: Sequence[Converter]) -> list[Unit]:
    """The functions that converters reach, each once."""
    users: dict[types.FunctionType, list[Converter]] = {}
    for converter in chosen:
        if converter.overloads():
            for function in functions_of(converter):
                users.setdefault(function, []).append(converter)
    return [Unit(function, tuple(_spread(found))) for function, found in users.items()]


def _spread(converters: list[Converter]) -> list[Converter]:
    """A few of many, from all over."""
    step = max(1, len(converters) // MOST_USERS)
    return converters[::step][:MOST_USERS]


def mutants_in(registry: Registry, unit: Unit) -> Iterator[tuple[Mutant, tuple[Converter, ...]]]:
    """The unit's mutants, and the converters to try each with."""
    seen = set()
    for user in unit.users:
        for mutant in mutants_of(unit.function, user):
            key = (mutant.where, mutant.kind, mutant.diff)
            if key not in seen:
                seen.add(key)
                yield mutant, unit.users
    for user in unit.users:
        for mutant in exchanged_rows(user, registry):
            if mutant.function is unit.function:
                yield mutant, (user,)


def killed_by(registry: Registry, mutant: Mutant, users: Sequence[Converter], sound: set[tuple[Any, ...]]) -> str:
    """What kills a mutant, in a line; "" where it survives.

    Args:
        registry: that the converters belong to.
        mutant: to be killed.
        users: converters that use the changed function.
        sound: (converter id and name, law, dtype) that hold without the change; others cannot judge.
    """
    for converter in users:
        with mutant.applied(converter) as changed:
            for law, dtype in _trials(changed):
                if (converter.id, converter.name, law, dtype) in sound:
                    try:
                        _check(registry, changed, law, dtype)
                    except NotApplicableError:
                        continue
                    except Exception as error:  # whatever it is, it was noticed
                        return f"{law}, {dtype}: {type(error).__name__}"
    return ""


def sound_trials(registry: Registry, users: Sequence[Converter]) -> set[tuple[Any, ...]]:
    """The trials that hold for the converters as they are."""
    found = set()
    for converter in users:
        for law, dtype in _trials(converter):
            with contextlib.suppress(Exception):
                _check(registry, converter, law, dtype)
                found.add((converter.id, converter.name, law, dtype))
    return found


def _trials(converter: Converter) -> Iterator[tuple[Law, Any]]:
    dtypes = dtypes_of(converter.domain)
    yield from ((Law.EQUALS_EAGER, dtype) for dtype in dtypes)
    if converter.dynamic_shapes:
        yield Law.DYNAMIC, dtypes[0]


def _check(registry: Registry, converter: Converter, law: Law, dtype: Any) -> None:
    plugin = Plugin(converter.plugin or "tested", built_in=converter.built_in, converters=(converter,))
    alone = Registry([plugin], capabilities=registry.capabilities)
    with _patience():
        check_converter(alone, alone.converters[0], law, dtype=dtype, profile=PROFILE)


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    def give_up(signum: int, frame: Any) -> None:
        raise TimeoutError(f"no answer after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcomes(registry: Registry, unit: Unit, skip: int = 0) -> Iterator[Outcome]:
    """Tries every mutant of a unit, in this process, after the first `skip`."""
    sound = sound_trials(registry, unit.users)
    for mutant, users in itertools.islice(mutants_in(registry, unit), skip, None):
        yield Outcome(str(mutant), killed_by(registry, mutant, users, sound))


# --- the run, in processes of its own: a mutant may take its process down ---------------------------------------------


def run(
    registry: Registry,
    chosen: Sequence[Converter],
    jobs: int = 1,
    progress: Callable[[str, list[Outcome]], None] | None = None,
) -> dict[str, list[Outcome]]:
    """Tries every mutant of some converters. A mutant that crashes its process is killed; the rest goes on.

    Args:
        registry: that they belong to.
        chosen: the converters.
        jobs: processes at a time.
        progress: called with each function's name and outcomes as it is done.

    Returns:
        The outcomes by function, in the order of the registry.
    """
    waiting = units(registry, chosen)
    found: dict[str, list[Outcome]] = {_name(unit): [] for unit in waiting}
    running: dict[int, tuple[Unit, bytes]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            unit = waiting.pop(0)
            running[_fork(registry, unit, len(found[_name(unit)]))] = (unit, b"")
        ready, _, _ = select.select(list(running), [], [])
        for pipe in ready:
            unit, rest = running[pipe]
            data = os.read(pipe, 1 << 16)
            *lines, rest = (rest + data).split(b"\n")
            results = found[_name(unit)]
            done = False
            for line in lines:
                record = json.loads(line)
                if isinstance(record, str):
                    raise RuntimeError(f"{_name(unit)} cannot be mutated: {record}")
                done = done or record is None
                if record is not None:
                    results.append(Outcome(**record))
            running[pipe] = (unit, rest)
            if done or not data:
                del running[pipe]
                os.close(pipe)
                os.wait()
                if done and progress is not None:
                    progress(_name(unit), results)
                if not done:  # the process died of a mutant: count that one, and go on after it
                    results.append(Outcome(f"{_name(unit)}: number {len(results) + 1}", "the process died"))
                    waiting.insert(0, unit)
    return {name: results for name, results in found.items() if results}


def _fork(registry: Registry, unit: Unit, skip: int) -> int:
    """A process that writes an outcome a line, and null at the end; returns the pipe to read from."""
    read, write = os.pipe()
    if os.fork():
        os.close(write)
        return read
    os.close(read)
    with contextlib.suppress(BaseException), os.fdopen(write, "w") as out:
        try:
            for outcome in outcomes(registry, unit, skip):
                print(json.dumps(dataclasses.asdict(outcome)), file=out, flush=True)
            print("null", file=out, flush=True)
        except BaseException as error:
            print(json.dumps(f"{type(error).__name__}: {error}"), file=out, flush=True)
    os._exit(0)


def _name(unit: Unit) -> str:
    return f"{unit.function.__module__}.{unit.function.__qualname__}:{unit.function.__code__.co_firstlineno}"


def _show_progress(name: str, results: list[Outcome]) -> None:
    print(f"{sum(bool(o.killed_by) for o in results)} of {len(results)} {name}", file=sys.stderr, flush=True)


def report(found: dict[str, list[Outcome]]) -> str:
    """A table of the functions, the survivors with their diffs, and the score."""
    lines = [f"{'killed':>7} {'of':>5}  function"]
    for name, results in found.items():
        lines.append(f"{sum(bool(o.killed_by) for o in results):>7} {len(results):>5}  {name}")
    every = [outcome for results in found.values() for outcome in results]
    survivors = [outcome for outcome in every if not outcome.killed_by]
    lines += ["", f"{len(survivors)} survivors", *(f"  {outcome.mutant}" for outcome in survivors)]
    killed = len(every) - len(survivors)
    share = killed / len(every) if every else 1.0
    return "\n".join([*lines, "", f"{killed} of {len(every)} mutants killed: {share:.1%}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 1 where fewer than the demanded share of the mutants are killed."""
    import trtplug

    parser = argparse.ArgumentParser(prog="python -m trtplug.testing.mutate", description=__doc__)
    parser.add_argument("--converter", help="only converters whose id or function name contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--at-least", type=float, default=0.0, metavar="SHARE", help="fail below this share of kills")
    options = parser.parse_args(arguments)
    registry = trtplug.registry()
    chosen = [c for c in registry if not options.converter or options.converter in f"{c.id} {c.name}"]
    if not chosen:
        raise unknown_name("converter", options.converter, [c.id for c in registry])
    found = run(registry, chosen, options.jobs, _show_progress)
    print(report(found))
    every = [outcome for results in found.values() for outcome in results]
    return int(sum(bool(o.killed_by) for o in every) < options.at_least * len(every))


if __name__ == "__main__":
    sys.exit(main())
