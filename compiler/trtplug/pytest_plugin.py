"""The pytest plugin: ``pytest --trtplug-plugin NAME`` tries every law on an installed plugin, a test for each.

Loaded into every pytest run where trtplug is installed, so it imports nothing until one of its options is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from trtplug.testing.certify import PluginCase


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("trtplug", "laws of trtplug plugins")
    group.addoption(
        "--trtplug-plugin",
        action="append",
        default=[],
        metavar="NAME",
        help="also try every law on this installed trtplug plugin (may be repeated)",
    )
    group.addoption(
        "--trtplug-executor",
        default="reference",
        metavar="NAME",
        help="the executor that runs the networks of --trtplug-plugin (default: reference)",
    )
    group.addoption(
        "--trtplug-profile",
        default=None,
        metavar="NAME",
        help="how much --trtplug-plugin tries: ci (default) or nightly; TRTPLUG_LAWS does the same",
    )


@pytest.hookimpl(tryfirst=True)  # before -k and -m pick
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    for name in config.getoption("--trtplug-plugin"):
        items.extend(_items(session, config, name))


def _items(session: pytest.Session, config: pytest.Config, name: str) -> Iterator[pytest.Item]:
    from trtplug.testing import plugin_cases
    from trtplug_registry import TrtplugError

    profile = config.getoption("--trtplug-profile")
    try:
        cases = plugin_cases(name, profile=profile)
    except TrtplugError as error:
        raise pytest.UsageError(f"--trtplug-plugin={name}: {error}") from error
    for case in cases:
        yield LawItem.from_parent(session, name=case.id, case=case, profile=profile)


EXAMPLES = "trtplug-examples"
"""The property of a test's report that says how many examples it tried."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == EXAMPLES and report.when == "call"
    ]
    if counts:
        terminalreporter.write_line(f"trtplug: {sum(counts):,} examples in {len(counts):,} laws")


class LawItem(pytest.Item):
    """One law on one thing that a plugin brings."""

    def __init__(self, *, case: PluginCase, profile: str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.case, self.profile = case, profile

    def runtest(self) -> None:
        from trtplug.testing import NotApplicableError, UnprovenError

        try:
            tried = self.case.check(self.profile, self.config.getoption("--trtplug-executor"))
            self.user_properties.append((EXAMPLES, tried))
        except UnprovenError as error:
            pytest.skip(f"unproven: {error}")
        except NotApplicableError as error:
            pytest.skip(str(error))

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        from trtplug_registry import TrtplugError

        if isinstance(excinfo.value, TrtplugError):  # the message says all
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, self.name
