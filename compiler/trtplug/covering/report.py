"""The coverage report: one value that prints as a table, JSON or a page."""

from __future__ import annotations

import dataclasses
import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtplug.covering.ops import CandidateRecord, OpCoverage, OpStatus, reason_of
from trtplug.errors import SettingsError
from trtplug.page import share

if TYPE_CHECKING:
    from trtplug.report import CompilationReport

FORMAT, VERSION = "trtplug-coverage", 1


@dataclasses.dataclass(frozen=True)
class CoverageReport:
    """What of an opset, an op or a model TensorRT takes, and why not the rest.

    Attributes:
        subject: what was asked about, in the user's words.
        kind: ``"opset"``, ``"op"`` or ``"model"``.
        ops: every op, by name; for a model the ops of its exported graph, with the number of calls.
        versions: of trtplug, torch, TensorRT and every plugin.
        settings: what was chosen, where it is not the default.
        model: a model's partition, node by node; None for ops.
    """

    subject: str
    kind: str
    ops: tuple[OpCoverage, ...]
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model: CompilationReport | None = None

    @property
    def counts(self) -> Mapping[OpStatus, int]:
        """How many ops have each status; they add up to all of them."""
        found = Counter(op.status for op in self.ops)
        return {status: found[status] for status in OpStatus}

    @property
    def share(self) -> float:
        """The fraction that is covered: of a model's compute nodes, else of the ops; 1.0 of nothing."""
        if self.kind == "model":  # read from a file it has its ops only
            return 1 - self._left / self._calls if self._calls else 1.0
        return sum(op.covered for op in self.ops) / len(self.ops) if self.ops else 1.0

    @property
    def _calls(self) -> int:
        return sum(op.calls for op in self.ops)

    @property
    def _left(self) -> int:
        return sum(op.left for op in self.ops)

    @property
    def call_share(self) -> float | None:
        """The fraction of calls that covered ops have, where calls are counted."""
        calls = self._calls
        return sum(op.calls for op in self.ops if op.covered) / calls if calls else None

    @property
    def unsupported(self) -> tuple[OpCoverage, ...]:
        return tuple(op for op in self.ops if not op.covered)

    def summary(self) -> str:
        """One line."""
        if self.model is not None:
            return f"{self.subject}: {self.model.summary()}"
        if self.kind == "model":
            return f"{self.subject}: {self._calls - self._left} of {self._calls} compute nodes in TensorRT"
        if len(self.ops) == 1:
            return f"{self.ops[0].op} is {self.ops[0].status.value}"
        words = ", ".join(f"{count} {status.value}" for status, count in self.counts.items() if count)
        covered = len(self.ops) - len(self.unsupported)
        return f"{self.subject}: {covered} of {len(self.ops)} ops covered ({self.share:.1%}): {words}"

    def to_dict(self) -> dict[str, Any]:
        """Everything, as what JSON can say; ``docs/report.schema.json`` describes it."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "subject": self.subject,
            "kind": self.kind,
            "summary": self.summary(),
            "share": self.share,
            "counts": {status.value: count for status, count in self.counts.items()},
            "shares": self._shares(),
            "versions": dict(self.versions),
            "settings": {name: list(v) if isinstance(v, tuple) else v for name, v in self.settings.items()},
            "ops": [_op_to_dict(op) for op in self.ops],
            "model": None if self.model is None else self.model.to_dict(),
        }

    def _shares(self) -> list[dict[str, Any]]:
        found = [] if self.model is None else self.model.shares
        if self.ops:
            parts = {s.value: n / len(self.ops) for s, n in self.counts.items() if s is not OpStatus.UNSUPPORTED}
            covered = len(self.ops) - len(self.unsupported)
            found.append(share("ops", parts, f"{covered / len(self.ops):.1%} ({covered} of {len(self.ops)})"))
        if self.model is None and self.call_share is not None:
            found.append(share("calls", {"converted": self.call_share}, f"{self.call_share:.1%}"))
        return found

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict`, as text."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_html(self) -> str:
        """One self-contained page."""
        from trtplug.page import render_page

        return render_page(f"trtplug coverage: {self.summary()}", self.to_dict())

    def print(self, file: Any = None) -> None:
        """Prints the tables to a file, or to standard output."""
        from rich.console import Console

        from trtplug.covering.tables import render

        render(self, Console(file=file))

    def __str__(self) -> str:
        from rich.console import Console

        from trtplug.covering.tables import render

        text = io.StringIO()
        render(self, Console(file=text, width=120, color_system=None))
        return text.getvalue()


def read_ops(path: Path) -> CoverageReport:
    """A report that was saved as JSON, its ops only, for a comparison.

    Raises:
        SettingsError: the file is no such report, or one of another version.
    """
    try:
        data = json.loads(path.read_text())
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError("it was not written by `trtplug coverage --json`")
        if data["version"] != VERSION:
            raise ValueError(f"its version is {data['version']!r}, this trtplug reads {VERSION}")
        ops = tuple(_op_of(item) for item in data["ops"])
        return CoverageReport(data["subject"], data["kind"], ops, data["versions"], data["settings"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{path} is not a coverage report: {error}") from error


def _op_to_dict(op: OpCoverage) -> dict[str, Any]:
    made = {field.name: getattr(op, field.name) for field in dataclasses.fields(op)}
    return {
        **made,
        "status": op.status.value,
        "candidates": [_candidate_to_dict(candidate) for candidate in op.candidates],
        "decomposes_to": list(op.decomposes_to),
        "reasons": [reason.to_json() for reason in op.reasons],
    }


def _candidate_to_dict(candidate: CandidateRecord) -> dict[str, Any]:
    made = {field.name: getattr(candidate, field.name) for field in dataclasses.fields(candidate)}
    unavailable = candidate.unavailable.to_json() if candidate.unavailable else None
    lists = {name: list(value) for name, value in made.items() if isinstance(value, tuple)}
    return {**made, **lists, "unavailable": unavailable}


def _candidate_of(data: Mapping[str, Any]) -> CandidateRecord:
    found: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    found["unavailable"] = reason_of(data["unavailable"]) if data["unavailable"] else None
    return CandidateRecord(**found)


def _op_of(data: Mapping[str, Any]) -> OpCoverage:
    return OpCoverage(
        data["op"],
        data["schema"],
        OpStatus(data["status"]),
        tuple(_candidate_of(candidate) for candidate in data["candidates"]),
        decomposes_to=tuple(data["decomposes_to"]),
        by=data["by"],
        reasons=tuple(reason_of(reason) for reason in data["reasons"]),
        models=data["models"],
        calls=data["calls"],
        left=data["left"],
    )
