"""The command line.

``trtplug compile | explain | profile | coverage | bisect | plugins | doctor | certify | new-plugin``
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from trtplug.cli.bisect import bisect
from trtplug.cli.coverage import coverage
from trtplug.cli.options import with_settings
from trtplug.cli.profile import profile
from trtplug_registry import TrtplugError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Model = Annotated[
    str, typer.Argument(help="A .pt2 file, or FILE.py:FUNCTION, the function returning (module, example_args).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Html = Annotated[Path | None, typer.Option("--html", help="Also write the report as one self-contained page.")]
Nodes = Annotated[bool, typer.Option("--nodes", help="Also print every node with its dtype.")]
Passes = Annotated[
    bool, typer.Option("--passes", help="Also print the lowering passes and what became of the exported calls.")
]

OF_BUILDS = ("executor", "on_failure", "tf32", "workspace_bytes", "weight_streaming", "cache_dir", "cache_bytes")
"""Settings that change nothing where nothing is built."""


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"trtplug {importlib.metadata.version('trtplug')}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version, and exit.")
    ] = False,
) -> None:
    """PyTorch models into TensorRT engines, every converter and lowering pass a plugin."""


@app.command()
@with_settings(without=["weight_check"])
def compile(
    model: Model,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .trtp, .pt2 or .ts file, or a folder for bare engines.")
    ] = None,
    nodes: Nodes = False,
    passes: Passes = False,
    json: AsJson = False,
    html: Html = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Compile a model into TensorRT engines; show the partition and why the rest stays in Torch."""
    program = load_model(model)
    import trtplug
    from trtplug.progress import build_progress

    with build_progress(enabled=not json and sys.stderr.isatty()) as progress:
        compiled = trtplug.compile(program, progress=progress, **settings)
    _show(compiled.report, json, html, nodes, passes)
    if output is not None:
        folder = trtplug.save(compiled, output)
        typer.echo(f"saved {folder}", err=True)


@app.command()
@with_settings(without=["weight_check", *OF_BUILDS])
def explain(
    model: Model,
    nodes: Nodes = False,
    passes: Passes = False,
    json: AsJson = False,
    html: Html = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Show what `compile` would put into TensorRT, and why not the rest. Builds nothing."""
    import trtplug

    _show(trtplug.explain(load_model(model), **settings), json, html, nodes, passes)


@app.command()
def plugins(json: AsJson = False) -> None:
    """List the installed plugins: where they come from, what they bring, whom they override, why one is disabled."""
    from trtplug.cli.listing import assembled, plugin_rows, print_plugins

    rows = plugin_rows(*assembled())
    _print_json("plugins", {"plugins": rows}) if json else print_plugins(rows)


@app.command("doctor")
def doctor_command(json: AsJson = False) -> None:
    """Examine environment and plugins; say what is wrong and what to do. Exits with 1 where there is an error."""
    from trtplug.cli.doctor import examine, print_doctor

    report = examine()
    _print_json("doctor", report) if json else print_doctor(report)
    if any(item["severity"] == "error" for item in report["problems"]):
        raise typer.Exit(1)


@app.command("certify")
def certify_command(
    plugin: Annotated[str, typer.Argument(help="An installed plugin, as `trtplug plugins` names it.")],
    profile: Annotated[str, typer.Option(help="How much is tried: ci or nightly.")] = "ci",
    executor: Annotated[str, typer.Option(help="What runs the networks.")] = "reference",
    strict: Annotated[bool, typer.Option("--strict", help="What is unproven fails, too.")] = False,
    json: AsJson = False,
) -> None:
    """Try every law on everything that a plugin brings. Exits with 1 where one is violated (or unproven: --strict)."""
    try:
        from trtplug.cli.certify import judged, print_verdicts, summary
        from trtplug.testing import Status, plugin_cases
    except ModuleNotFoundError as error:
        raise TrtplugError(f"certify needs the test kit ({error}): pip install trtplug[testing]") from error

    cases = plugin_cases(plugin, profile=profile)
    verdicts = judged(cases, profile, executor, show=not json and sys.stderr.isatty())
    _print_json("certificate", summary(plugin, profile, executor, verdicts)) if json else print_verdicts(
        plugin, verdicts
    )
    bad = {Status.VIOLATED, *([Status.UNPROVEN] if strict else [])}
    if any(verdict.status in bad for verdict in verdicts):
        raise typer.Exit(1)


@app.command("new-plugin")
def new_plugin_command(
    name: Annotated[str, typer.Argument(help="Of the distribution and the plugin, such as my-ops.")],
    into: Annotated[Path, typer.Option(help="The folder that gets the new one.")] = Path(),
) -> None:
    """Write a plugin that works at once: a custom op, converters, a lowering pass, and tests that hold."""
    from trtplug.cli.new_plugin import new_plugin

    folder = new_plugin(name, into)
    typer.echo(f"wrote {folder}\nnext: cd {folder} && pip install -e '.[test]' && pytest")


def _print_json(kind: str, document: dict[str, Any]) -> None:
    """Prints a document that ``docs/report.schema.json`` describes."""
    import json

    typer.echo(json.dumps({"format": f"trtplug-{kind}", "version": 1, **document}, indent=2))


app.command("coverage")(coverage)
app.command("bisect")(bisect)
app.command("profile")(profile)


def load_model(name: str) -> Any:
    """An `ExportedProgram` or a `Program`, from a ``.pt2`` file or ``file.py:function``.

    Raises:
        TrtplugError: the file or the function is not there, or returns something else.
    """
    file = file_of(name, name.rpartition(":")[0] if ".py:" in name else name)  # before Torch, which takes seconds
    import torch

    import trtplug

    if ".py:" not in name:
        if file.suffix != ".pt2":
            raise TrtplugError(f"model {name!r}: name a .pt2 file or FILE.py:FUNCTION")
        try:
            return torch.export.load(str(file))
        except Exception as error:  # whatever a file that is something else makes Torch raise
            raise TrtplugError(f"{name} is not an exported program: {type(error).__name__}: {error}") from error
    made = make_model(name)
    if isinstance(made, trtplug.Program | torch.export.ExportedProgram):
        return made
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], torch.nn.Module)):
        found = type(made).__name__
        raise TrtplugError(f"model {name!r}: the function returned {found}, not (module, example_args)")
    return trtplug.trace(made[0], example_args(name, made[1]))


def example_args(name: str, args: Any) -> tuple[Any, ...]:
    """The positional arguments that a model's function returned.

    Raises:
        TrtplugError: they are neither a tuple nor a list.
    """
    if not isinstance(args, tuple | list):
        raise TrtplugError(
            f"model {name!r}: example_args are a {type(args).__name__}, not a tuple: (x,) for one argument"
        )
    return tuple(args)


def make_model(name: str) -> Any:
    """What the function of ``file.py:function`` returns.

    Raises:
        TrtplugError: the file or the function is not there.
    """
    path, _, function = name.rpartition(":") if ".py:" in name else (name, "", "")
    file = file_of(name, path)
    spec = importlib.util.spec_from_file_location(file.stem, file) if function else None
    if spec is None or spec.loader is None:
        raise TrtplugError(f"model {name!r}: name FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    sys.path.insert(0, str(file.resolve().parent))  # what Python does for a script: its neighbours can be imported
    spec.loader.exec_module(module)
    make = getattr(module, function, None)
    if not callable(make):
        raise TrtplugError(f"model {name!r}: {path} has no function {function!r}")
    return make()


def file_of(name: str, path: str) -> Path:
    """The file that a model's name begins with.

    Raises:
        TrtplugError: it is not there.
    """
    file = Path(path)
    if not file.is_file():
        raise TrtplugError(f"model {name!r}: there is no file {path!r}; name a .pt2 file or FILE.py:FUNCTION")
    return file


def _show(report: Any, json: bool, html: Path | None, nodes: bool, passes: bool) -> None:
    if html is not None:
        write_page(html, report)
    if json:
        typer.echo(report.to_json())
    else:
        report.print(nodes=nodes, passes=passes)


def write_page(path: Path, report: Any) -> None:
    """Writes a report's page.

    Raises:
        TrtplugError: it cannot be written there.
    """
    try:
        path.write_text(report.to_html(), encoding="utf-8")
    except OSError as error:
        raise TrtplugError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Our own errors are messages, not tracebacks."""
    try:
        yield
    except TrtplugError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None


def main() -> None:
    """The entry point of the ``trtplug`` command. Exits with 1 on our own errors, 2 on wrong usage."""
    with _plain_errors():
        app()
