"""``trtplug coverage``: of an opset, an op, a model; and the difference of two."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl

import typer

from trtplug_registry import TrtplugError, unknown_name

BELOW, NEW_FALLBACK = 3, 4
"""Exit statuses of --fail-under and --fail-on-new-fallback."""

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="SUBJECT | diff A B",
        help="core_aten, all, zoo, claimed, a namespace, an op, a model (.pt2 or FILE.py:FUNCTION) or a saved report"
        " (.json). Settings follow a question mark: 'core_aten?block=acme-ops', 'model.pt2?min_block_size=1'.",
    ),
]


def coverage(
    words: Words,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Also write one self-contained page.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the support matrix as Markdown.")] = False,
    fail_under: Annotated[
        float | None, typer.Option(metavar="PERCENT", help=f"Exit with {BELOW} if less is covered.")
    ] = None,
    fail_on_new_fallback: Annotated[
        bool,
        typer.Option("--fail-on-new-fallback", help=f"diff: exit with {NEW_FALLBACK} if B leaves an op that A took."),
    ] = False,
) -> None:
    """Show what of an opset, an op or a model TensorRT takes, and why not the rest; or what changed between two.

    Exit status: 0 all well, 1 an error, 2 wrong usage, 3 under --fail-under, 4 a new fallback.
    """
    if words[0] == "diff":
        _diff(words[1:], json, html, markdown, fail_under, fail_on_new_fallback)
        return
    if len(words) != 1:
        raise typer.BadParameter(f"one subject is expected, found {len(words)}: {' '.join(words)}")
    if fail_on_new_fallback:
        raise typer.BadParameter("--fail-on-new-fallback compares: trtplug coverage diff A B --fail-on-new-fallback")
    report = report_on(words[0])
    if html is not None:
        from trtplug.cli import write_page

        write_page(html, report)
    if json:
        typer.echo(report.to_json())
    elif markdown:
        from trtplug.assembly import registry_for
        from trtplug.covering.markdown import matrix
        from trtplug.settings import Settings

        if report.kind == "model":
            raise typer.BadParameter("--markdown is of ops; a model is shown as a table, with --json or with --html")
        typer.echo(matrix(report, registry_for(Settings.of(dict(report.settings)))), nl=False)
    else:
        report.print()
    _check_share(report, fail_under)


def _diff(
    sides: list[str], json: bool, html: Path | None, markdown: bool, fail_under: float | None, strict: bool
) -> None:
    from trtplug.covering.diff import compare

    if len(sides) != 2:
        raise typer.BadParameter(f"diff compares two: trtplug coverage diff A B; found {len(sides)}")
    if html is not None or markdown:
        raise typer.BadParameter("a diff is printed as a table or with --json")
    found = compare(report_on(sides[0]), report_on(sides[1]))
    if json:
        typer.echo(found.to_json())
    else:
        found.print()
    _check_share(found.after, fail_under)
    if strict and found.new_fallbacks:
        names = ", ".join(change.op for change in found.new_fallbacks)
        typer.echo(f"new fallbacks: {names}", err=True)
        raise typer.Exit(NEW_FALLBACK)


def _check_share(report: Any, fail_under: float | None) -> None:
    if fail_under is not None and report.share * 100 < fail_under:
        typer.echo(f"{report.share:.2%} is covered, less than {fail_under:g} %", err=True)
        raise typer.Exit(BELOW)


def report_on(subject: str) -> Any:
    """The report that a subject of the command line stands for.

    Raises:
        TrtplugError: a name, file or setting is wrong.
    """
    import trtplug
    from trtplug.cli import load_model
    from trtplug.covering.report import read_ops

    name, _, query = subject.partition("?")
    settings = _settings(query)
    if name.endswith(".json"):
        if query:
            raise TrtplugError(f"{subject}: a saved report has the settings that it was made with")
        return read_ops(Path(name))
    if name.endswith(".pt2") or ".py:" in name:
        return trtplug.coverage(load_model(name), name=name, **settings)
    return trtplug.coverage(name, **settings)


def _settings(query: str) -> dict[str, Any]:
    """Settings from ``name=value&name=value``; a list takes commas, or its name again."""
    from trtplug.settings import Settings

    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    made: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in defaults:
            raise unknown_name("option", name, defaults)
        made[name] = _value(name, text, defaults[name], made.get(name, ()))
    return made


def _value(name: str, text: str, default: Any, before: Any) -> Any:
    if isinstance(default, tuple):
        return (*before, *filter(None, text.split(",")))
    if isinstance(default, bool):
        if text not in ("true", "false", ""):
            raise TrtplugError(f"{name}={text}: must be true or false")
        return text != "false"
    if isinstance(default, int) or (default is None and text.lstrip("-").isdigit()):
        try:
            return int(text)
        except ValueError:
            raise TrtplugError(f"{name}={text}: must be a whole number") from None
    return text
