"""What the laws cannot judge of a mutant, a plugin's own tests do: which layers a call becomes, and in which words."""

from __future__ import annotations

import contextlib
import functools
import io
import subprocess
import sys
from collections.abc import Iterator, Sequence

from trtplug.testing.mutants import Mutant, base_of
from trtplug_registry import Converter

OPTIONS = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist")


def killed_by_tests(mutant: Mutant, user: Converter, tests: Sequence[str]) -> str:
    """The name of a test that fails with a mutant, if one does, or "". It runs in this process, which is spoilt by it.

    Args:
        mutant: to be killed.
        user: a converter that uses the changed function.
        tests: files and folders, as pytest takes them.
    """
    import pytest

    failed: list[str] = []

    class Watch:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                failed.append(report.nodeid)

    with mutant.applied(user), _declared(mutant, user), contextlib.redirect_stdout(io.StringIO()):
        status = pytest.main([*OPTIONS, *tests], plugins=[Watch()])
    return failed[0] if failed else "" if status in (0, pytest.ExitCode.NO_TESTS_COLLECTED) else f"pytest: {status}"


def tests_pass(tests: Sequence[str]) -> bool:
    """Whether these tests pass as they are: others say nothing of a mutant."""
    return not tests or subprocess.run([sys.executable, "-m", "pytest", *OPTIONS, *tests], stdout=2).returncode == 0


@contextlib.contextmanager
def _declared(mutant: Mutant, user: Converter) -> Iterator[None]:
    """The plugin's own converters hold the mutant, too: a registry that is assembled now gets it."""
    changed = []
    for converter in _declarations(mutant.function.__module__.partition(".")[0]):
        function, row = base_of(converter)
        if function is mutant.function and (not mutant.row or converter.target_name == user.target_name):
            row = mutant.row or row
            changed.append((converter, converter.function))
            replacement = functools.partial(mutant.replacement, *row) if row else mutant.replacement
            object.__setattr__(converter, "function", replacement)
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
