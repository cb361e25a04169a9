"""``trtplug certify``: every law over one plugin, as tables or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trtplug.testing.certify import PluginCase, Status, Verdict

_SIGNS = {
    Status.HOLDS: ("✓", "green"),
    Status.VIOLATED: ("✗", "red"),
    Status.UNPROVEN: ("?", "yellow"),
    Status.NOT_APPLICABLE: ("–", "dim"),
}
_GRAVEST = (Status.VIOLATED, Status.UNPROVEN, Status.HOLDS, Status.NOT_APPLICABLE)


def judged(cases: Sequence[PluginCase], profile: str, executor: str, *, show: bool) -> list[Verdict]:
    """The verdicts; with `show`, progress on standard error."""
    from rich.progress import track

    console = Console(stderr=True)
    shown = track(cases, "certifying", console=console, transient=True, disable=not show)
    return [case.judge(profile, executor) for case in shown]


def summary(plugin: str, profile: str, executor: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "plugin": plugin,
        "profile": profile,
        "executor": executor,
        "counts": _counts(verdicts),
        "verdicts": [verdict.to_json() for verdict in verdicts],
    }


def _counts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    return {status.value: sum(verdict.status is status for verdict in verdicts) for status in Status}


def print_verdicts(plugin: str, verdicts: Sequence[Verdict]) -> None:
    console = Console(highlight=False)
    by_subject: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        by_subject.setdefault((verdict.kind, verdict.subject), []).append(verdict)
    table = Table(title=f"Laws of {plugin}", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("what", overflow="fold")
    table.add_column("laws", overflow="fold")
    table.add_column("s", justify="right", no_wrap=True)
    for (kind, subject), found in by_subject.items():
        seconds = sum(verdict.seconds for verdict in found)
        table.add_row(Text.assemble(subject, "\n", (kind, "dim")), _laws(found), f"{seconds:.1f}")
    console.print(table)
    for verdict in verdicts:
        if verdict.status in (Status.VIOLATED, Status.UNPROVEN):
            title = " ".join(filter(None, (verdict.subject, verdict.dtype, verdict.law)))
            console.print(Text(f"{verdict.status.value}: {title}", style=_SIGNS[verdict.status][1]))
            console.print(Text(f"{verdict.detail}\n"))
    console.print(", ".join(f"{count} {status}" for status, count in _counts(verdicts).items() if count))


def _laws(verdicts: Sequence[Verdict]) -> Text:
    """Each law with the gravest of what its dtypes gave, and the dtypes that violate it."""
    by_law: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_law.setdefault(verdict.law, []).append(verdict)
    parts = []
    for law, found in by_law.items():
        status = next(status for status in _GRAVEST if any(verdict.status is status for verdict in found))
        sign, color = _SIGNS[status]
        bad = [verdict.dtype for verdict in found if verdict.status is Status.VIOLATED and verdict.dtype]
        suffix = f" ({', '.join(bad)})" if bad else ""
        parts.append(Text(f"{sign}\u00a0{law}{suffix}", style=color))
    return Text("   ").join(parts)
