"""The support matrix as Markdown: ``trtplug coverage SUBJECT --markdown``; ``docs/support-matrix.md`` is made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trtplug.covering.ops import OpCoverage, OpStatus
from trtplug.covering.report import CoverageReport

_DTYPES = ("float32", "float16", "bfloat16", "int32", "int64", "bool")


def matrix(report: CoverageReport) -> str:
    """One row for each op: what becomes of it, in which dtypes, for which shapes, and what restricts it.

    A dtype's cell is ``●`` where a converter takes symbolic sizes too, ``○`` where static ones only, and empty where
    the dtype is refused. Dtypes are those of the leading tensor argument, over all converters of the op.
    """
    heads = ["op", "status", *_DTYPES, "restrictions, what it becomes, or why not"]
    rows = [heads, ["---", "---", *[":-:"] * len(_DTYPES), "---"], *(_row(op) for op in report.ops)]
    lines = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    return f"{report.summary()}.\n\n{lines}\n"


def _row(op: OpCoverage) -> list[str]:
    cells = []
    usable = [candidate for candidate in op.candidates if candidate.unavailable is None]
    for dtype in _DTYPES:
        taking = [candidate for candidate in usable if dtype in candidate.dtypes]
        cells.append("" if not taking else "●" if any(c.dynamic_shapes for c in taking) else "○")
    return [f"`{op.op}`", op.status.value, *cells, _words(op, [c.because for c in usable])]


def _words(op: OpCoverage, because: Iterable[Mapping[str, str]]) -> str:
    if op.status is OpStatus.DECOMPOSED:
        return "→ " + ", ".join(f"`{name}`" for name in op.decomposes_to)
    if op.reasons:
        return "; ".join(reason.because or reason.seen for reason in op.reasons)
    found = dict.fromkeys(f"{name}: {why}" for each in because for name, why in each.items())
    return "; ".join(found) or (op.by if op.status is OpStatus.FOLDED else "")
