"""What two coverage reports do not agree on: between plugin sets, versions, settings, or saved reports."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trtplug.covering.ops import OpCoverage, OpStatus
from trtplug.covering.report import CoverageReport

FORMAT, VERSION = "trtplug-coverage-diff", 1


@dataclasses.dataclass(frozen=True)
class OpChange:
    """An op that the two reports speak of differently; None where one does not hold it.

    Attributes:
        op: its qualified name.
        before, after: what each report says of it.
    """

    op: str
    before: OpCoverage | None
    after: OpCoverage | None

    @property
    def new_fallback(self) -> bool:
        """Whether it is left to Torch now, and was not before; in a model, whether more of its calls are."""
        if self.after is None or self.after.covered:
            return False
        return self.before is None or self.before.covered or self.after.left > self.before.left

    @property
    def domains(self) -> tuple[str, ...]:
        """How what its converters take has changed, in words; of an op that has converters on both sides."""
        one, two = _taken(self.before), _taken(self.after)
        found = [f"{name}: gone" for name in one.keys() - two.keys() if two]
        found += [f"{name}: new" for name in two.keys() - one.keys() if one]
        for converter in one.keys() & two.keys():
            was, now = one[converter], two[converter]
            for name in dict.fromkeys((*was, *now)):
                if was.get(name) != now.get(name):
                    place = f"{converter}, {name}" if name else converter
                    found.append(f"{place}: {was.get(name, 'not named')} → {now.get(name, 'not named')}")
        return tuple(sorted(found))

    @property
    def newly_covered(self) -> bool:
        return self.after is not None and self.after.covered and self.before is not None and not self.before.covered


@dataclasses.dataclass(frozen=True)
class CoverageDiff:
    """The comparison of two reports.

    Attributes:
        before, after: the reports.
        changes: the ops that differ in status, in what they become, in who decides or in what is taken; by name.
    """

    before: CoverageReport
    after: CoverageReport
    changes: tuple[OpChange, ...]

    @property
    def new_fallbacks(self) -> tuple[OpChange, ...]:
        return tuple(change for change in self.changes if change.new_fallback)

    def to_json(self, indent: int | None = 2) -> str:
        """The changes, as JSON."""

        def words(op: OpCoverage | None) -> dict[str, Any] | None:
            if op is None:
                return None
            return {
                "status": op.status.value,
                "by": op.by,
                "left": op.left,
                "reasons": [reason.to_json() for reason in op.reasons],
            }

        changes = [
            {
                "op": change.op,
                "before": words(change.before),
                "after": words(change.after),
                "new_fallback": change.new_fallback,
                "domains": list(change.domains),
            }
            for change in self.changes
        ]
        sides = {"before": self.before, "after": self.after}
        heads = {name: {"subject": side.subject, "summary": side.summary()} for name, side in sides.items()}
        head = {"format": FORMAT, "version": VERSION, **heads}
        return json.dumps({**head, "changes": changes, "new_fallbacks": len(self.new_fallbacks)}, indent=indent)

    def print(self, console: Console | None = None) -> None:
        """Prints the changes as a table."""
        out = console or Console()
        out.print(f"before: {escape(self.before.summary())}", highlight=False)
        out.print(f"after:  {escape(self.after.summary())}", highlight=False)
        if not self.changes:
            out.print("Nothing changed.")
            return
        table = Table(title=f"{len(self.changes)} changes", title_justify="left", box=box.SIMPLE_HEAD)
        for name in ("op", "before", "after", "why"):
            table.add_column(name, overflow="fold")
        for change in self.changes:
            colour = "red" if change.new_fallback else "green" if change.newly_covered else "default"
            left = change.after.reasons if change.after and not change.after.covered else ()
            why = "\n".join((*map(str, left), *change.domains))
            after = _said(change.after)
            table.add_row(
                escape(change.op), escape(_said(change.before)), f"[{colour}]{escape(after)}[/{colour}]", escape(why)
            )
        out.print(table)


def compare(before: CoverageReport, after: CoverageReport) -> CoverageDiff:
    """The ops on which two reports differ."""
    one, two = ({op.op: op for op in report.ops} for report in (before, after))
    changes = tuple(
        OpChange(name, one.get(name), two.get(name))
        for name in sorted(one.keys() | two.keys())
        if _key(one.get(name)) != _key(two.get(name))
    )
    return CoverageDiff(before, after, changes)


def _key(op: OpCoverage | None) -> Any:
    return None if op is None else (op.status, op.by, op.decomposes_to, op.left, _taken(op))


def _taken(op: OpCoverage | None) -> Mapping[str, Mapping[str, str]]:
    """What each converter of an op takes, where one can be used; several of one name are numbered."""
    found: dict[str, Mapping[str, str]] = {}
    for candidate in op.candidates if op is not None and op.status is OpStatus.CONVERTED else ():
        count = sum(name.partition(" ")[0] == candidate.converter for name in found)
        found[f"{candidate.converter} ({count + 1})" if count else candidate.converter] = candidate.taken
    return found


def _said(op: OpCoverage | None) -> str:
    if op is None:
        return "–"
    if op.left:
        return f"{op.left} of {op.calls} calls in Torch"
    return f"{op.status.value} by {op.by}" if op.by and op.covered else op.status.value
