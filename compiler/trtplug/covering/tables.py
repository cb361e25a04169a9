"""The coverage report as tables for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trtplug.covering.ops import OpCoverage, OpStatus
from trtplug.covering.report import CoverageReport

_COLOUR = {
    OpStatus.CONVERTED: "green",
    OpStatus.DECOMPOSED: "green",
    OpStatus.FOLDED: "magenta",
    OpStatus.UNSUPPORTED: "red",
}
MOST_ROWS = 40


def render(report: CoverageReport, console: Console) -> None:
    """Prints a report: for an op everything that is known, for a set what is not covered, for a model its partition."""
    if report.kind == "op":
        for op in report.ops:
            _op(op, console)
        return
    if report.model is not None:
        from trtplug.report_tables import render as render_model

        render_model(report.model, console)
    else:
        console.print(f"[bold]{escape(report.summary())}[/bold]")
    if report.model is None and report.call_share is not None:
        console.print(f"{report.call_share:.2%} of calls are of ops that are covered", highlight=False)
    if report.model is None and report.unsupported:
        console.print(_unsupported(report))
    decomposed = [op for op in report.ops if op.status is OpStatus.DECOMPOSED]
    if decomposed and report.model is None:
        console.print(_decomposed(decomposed))


def _unsupported(report: CoverageReport) -> Table:
    table = Table(title="Not covered", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("op", overflow="fold")
    if report.call_share is not None:
        table.add_column("calls", justify="right")
    table.add_column("why", overflow="fold")
    rows = sorted(report.unsupported, key=lambda op: (-op.calls, op.op))
    for op in rows[:MOST_ROWS]:
        calls = [f"{op.calls:,}"] if report.call_share is not None else []
        table.add_row(escape(op.op), *calls, escape("\n".join(map(str, op.reasons))))
    if len(rows) > MOST_ROWS:
        table.add_row(f"… {len(rows) - MOST_ROWS} more: --json or --html has all", *[""] * (len(table.columns) - 1))
    return table


def _decomposed(ops: list[OpCoverage]) -> Table:
    table = Table(title="Decomposed", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("op", "becomes", "by"):
        table.add_column(name, overflow="fold")
    for op in ops[:MOST_ROWS]:
        table.add_row(escape(op.op), escape(", ".join(op.decomposes_to)), escape(op.by))
    if len(ops) > MOST_ROWS:
        table.add_row(f"… {len(ops) - MOST_ROWS} more", "", "")
    return table


def _op(op: OpCoverage, console: Console) -> None:
    colour = _COLOUR[op.status]
    console.print(f"[bold]{escape(op.op)}[/bold] is [{colour}]{op.status.value}[/{colour}]", highlight=False)
    console.print(escape(op.schema), style="dim", highlight=False)
    if op.decomposes_to:
        console.print(f"it becomes {escape(', '.join(op.decomposes_to))} (by {escape(op.by)})", highlight=False)
    for reason in op.reasons:
        console.print(escape(str(reason)), highlight=False)
    for place, candidate in enumerate(op.candidates):
        table = Table(title_justify="left", box=box.SIMPLE_HEAD)
        table.title = escape(f"{place + 1}. {candidate.converter}{', asked first' if candidate.wins else ''}")
        for name in ("argument", "takes", "because"):
            table.add_column(name, overflow="fold")
        for name, words in candidate.domain.items():
            table.add_row(escape(name), escape(words), escape(candidate.because.get(name, "")))
        for relation in candidate.relations:
            table.add_row("", escape(relation), escape(candidate.because.get(relation, "")))
        table.add_row("shapes", "static and symbolic" if candidate.dynamic_shapes else "static only", "")
        if "nan" in candidate.because:
            table.add_row("nan", candidate.because["nan"], "")
        if candidate.unavailable is not None:
            table.add_row("not here", escape(str(candidate.unavailable)), "")
        console.print(table)
    console.print()
