"""What the laws cannot judge of a mutant, a plugin's own tests do: which layers a call becomes, and in which words."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence

from trtplug.testing.mutants import Mutant, base_of
from trtplug_registry import Converter

OPTIONS = ("-q", "-x", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:hypothesispytest")


PATIENCE = 120
"""Seconds after which a mutant counts as killed: the tests hang."""


def killed_by_tests(mutant: Mutant, user: Converter, tests: Sequence[str]) -> str:
    """The name of a test that fails with a mutant, in a process of its own; "" where none does.

    Args:
        mutant: to be killed.
        user: a converter that uses the changed function.
        tests: files and folders, as pytest takes them.

    Raises:
        RuntimeError: pytest does not get as far as a test.
    """
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        status = 1
        try:
            with mutant.applied(user), _declared(mutant, user):
                os.write(write_end, _first_failure(tests).encode() + b"\n")
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end) as said:
        answer = said.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status > 0:
        raise RuntimeError(f"pytest does not run: {' '.join(tests)}")
    return answer.strip() if status == 0 else f"the tests' process ended with {status}"


def _first_failure(tests: Sequence[str]) -> str:
    import pytest

    failed: list[str] = []

    class Watch:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                failed.append(report.nodeid)

    with contextlib.redirect_stdout(io.StringIO()):
        status = pytest.main([*OPTIONS, *tests], plugins=[Watch()])
    if status in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED) and not failed:
        raise RuntimeError(f"pytest ends with {status!r}")
    return failed[0] if failed else ""  # what ends pytest itself says nothing of the mutant


def tests_pass(tests: Sequence[str]) -> bool:
    """Whether these tests pass as they are: others say nothing of a mutant."""
    return not tests or subprocess.run([sys.executable, "-m", "pytest", *OPTIONS, *tests], stdout=2).returncode == 0


@contextlib.contextmanager
def _declared(mutant: Mutant, user: Converter) -> Iterator[None]:
    """The plugin's own converters hold the mutant, too: a registry that is assembled now gets it."""
    changed = []
    for converter in _declarations(mutant.function.__module__.partition(".")[0]):
        function, row = base_of(converter)
        values = mutant.row if mutant.row and converter.target_name == user.target_name else row
        values = tuple(mutant.replacement if value is mutant.function else value for value in values)
        body = mutant.replacement if function is mutant.function else function
        if (body, values) != (function, row):
            changed.append((converter, converter.function))
            object.__setattr__(converter, "function", functools.partial(body, *values) if values else body)
    try:
        yield
    finally:
        for converter, before in changed:
            object.__setattr__(converter, "function", before)


def _declarations(package: str) -> list[Converter]:
    """Every converter that a module of the package holds, by itself or in a tuple."""
    found: dict[int, Converter] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == package:
            for value in list(vars(module).values()):
                for item in value if isinstance(value, tuple) else (value,):
                    if isinstance(item, Converter):
                        found[id(item)] = item
    return list(found.values())
