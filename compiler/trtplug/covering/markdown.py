"""The support matrix as Markdown: ``trtplug coverage SUBJECT --markdown``; ``docs/support-matrix.md`` is made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from trtplug.covering.cells import DTYPES, Cell, Fate, cells
from trtplug.covering.memory import remembered
from trtplug.covering.ops import OpCoverage, OpStatus
from trtplug.covering.opsets import overload
from trtplug.covering.report import CoverageReport
from trtplug_registry import Registry

LEGEND = """\
A dtype's cell, for static and symbolic sizes: ● a converter takes both, ○ static ones only; ◆ it is decomposed into ops
that are taken, for both, ◇ for static ones only; ✗ it is refused, and the last column says why; – eager has no such
call; ? nobody knows: no call could be guessed. The dtype is that of the leading tensor, or of the result where there is
none. What the restrictions of a converter leave out is written with other ops, where the last column says so: a
call is then taken if those are.
"""

OTHERWISE = "*otherwise written with other ops*"

_MARKS: Mapping[Fate, tuple[str, str]] = {
    Fate.CONVERTED: ("○", "●"),
    Fate.DECOMPOSED: ("◇", "◆"),
    Fate.REFUSED: ("✗", "✗"),
    Fate.NOT_APPLICABLE: ("–", "–"),
    Fate.UNKNOWN: ("?", "?"),
}


def matrix(report: CoverageReport, registry: Registry) -> str:
    """One row for each op: what becomes of it, in which dtypes, for which shapes, and what restricts it.

    Args:
        report: of an opset or an op.
        registry: that it is of; asked about each dtype.
    """
    found = cells_of(report.ops, registry)
    heads = ["op", "status", *DTYPES, "restrictions, what it becomes, or why not"]
    lines = [line(heads), line(["---", "---", *[":-:"] * len(DTYPES), "---"])]
    lines += [row(op, found[op.op], registry) for op in report.ops]
    rows = "\n".join(lines)
    return f"{report.summary()}. {summary([cell for each in found.values() for cell in each])}\n\n{rows}\n"


def cells_of(ops: Iterable[OpCoverage], registry: Registry) -> dict[str, tuple[Cell, ...]]:
    """The cells of each op, by its name; what is found out is kept for the next time."""
    with remembered(registry) as known:
        return {op.op: cells(registry, found, known) for op in ops if (found := overload(op.op)) is not None}


def summary(every: Sequence[Cell]) -> str:
    """How many cells of each kind, in words."""
    count = {fate: sum(cell.fate is fate for cell in every) for fate in Fate}
    runs = [cell for cell in every if cell.runs]
    unknown = f", {count[Fate.UNKNOWN]} unknown" if count[Fate.UNKNOWN] else ""
    return (
        f"{len(every)} cells: {count[Fate.CONVERTED]} converted and {count[Fate.DECOMPOSED]} decomposed"
        f" ({sum(cell.dynamic for cell in runs)} of these with symbolic sizes too), {count[Fate.REFUSED]} refused,"
        f" {count[Fate.NOT_APPLICABLE]} that eager has not{unknown}."
    )


def line(parts: Iterable[str]) -> str:
    return f"| {' | '.join(part.replace('|', '/') for part in parts)} |"


def row(op: OpCoverage, found: Sequence[Cell], registry: Registry) -> str:
    """An op's line of the table; the registry says whether what a converter does not take is written with others."""
    written = overload(op.op) in registry.decompositions
    usable = [candidate for candidate in op.candidates if candidate.unavailable is None]
    marks = [_MARKS[cell.fate][cell.dynamic] for cell in found]
    return line([f"`{op.op}`", op.status.value, *marks, _words(op, [c.because for c in usable], found, written)])


def _words(op: OpCoverage, because: Iterable[Mapping[str, str]], found: Sequence[Cell], written: bool) -> str:
    refused: dict[str, list[str]] = {}
    for cell in found:
        if cell.fate is Fate.REFUSED:
            refused.setdefault(cell.why, []).append(cell.dtype)
    why = [f"✗ {', '.join(dtypes)}: {text}" for text, dtypes in refused.items()]
    if op.status is OpStatus.DECOMPOSED:
        return "; ".join(["→ " + ", ".join(f"`{name}`" for name in op.decomposes_to), *why])
    if op.reasons:
        return "; ".join(reason.because or reason.seen for reason in op.reasons)
    said = dict.fromkeys(f"{name}: {words}" for each in because for name, words in each.items())
    restricts = any(name != "nan" for each in because for name in each)
    return "; ".join([*said, *[OTHERWISE] * (written and restricts), *why]) or (
        op.by if op.status is OpStatus.FOLDED else ""
    )
