"""``trtplug profile``: how long each layer of the engines takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trtplug.cli.options import with_settings
from trtplug_registry import TrtplugError

OF_LOADING = ("executor", "cache_dir", "weight_budget_bytes")
"""Settings that a compiled model takes, too."""


@with_settings(without=["weight_check", "cuda_graphs"])
def profile(
    model: Annotated[
        str,
        typer.Argument(
            help="A .trtp or .pt2 file, or FILE.py:FUNCTION, the function returning (module, example_args)."
        ),
    ],
    calls: Annotated[int, typer.Option(min=1, help="Of each engine, over which medians are taken.")] = 10,
    sizes: Annotated[
        str, typer.Option(help="Dynamic sizes of the call, 'batch=8, tokens=128'; otherwise the typical ones.")
    ] = "",
    layers: Annotated[int, typer.Option(min=1, help="How many of the costliest layers the table has.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Also write one self-contained page.")] = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Show how long each layer of the engines takes, which nodes it is made of, and their lines in the model.

    TensorRT's times need a GPU and the model on it; elsewhere they are the reference executor's own, and say so.
    """
    from trtplug.cli import write_page

    compiled, examples = _compiled(model, settings)
    from trtplug.calling import drawn_call
    from trtplug.profiles import parsed

    given = {name: _one(name, span) for name, span in parsed(sizes).items()} if sizes else {}
    args, kwargs = drawn_call(compiled, given, examples)
    found = compiled.profile(*args, calls=calls, **kwargs)
    if html is not None:
        write_page(html, found)
    if json:
        typer.echo(found.to_json())
    else:
        found.print(layers=layers)


def _compiled(model: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    """A compiled module, and the flat inputs that it was exported with, where they are known."""
    from trtplug.cli import file_of, load_model

    if not model.endswith(".trtp"):
        program = load_model(model)
        import trtplug
        from trtplug.lowering import flatten_inputs

        compiled = trtplug.compile(program, **settings)
        exported = program.exported if isinstance(program, trtplug.Program) else program
        example = exported.example_inputs
        return compiled, None if example is None else flatten_inputs(compiled.lowered, *example)
    others = sorted(settings.keys() - set(OF_LOADING))
    if others:
        raise TrtplugError(f"{model} is compiled already, so {', '.join(others)} can change nothing: compile it anew")
    file_of(model, model)
    import trtplug

    return trtplug.load(model, **settings), None


def _one(name: str, span: tuple[int, int, int]) -> int:
    low, _, high = span
    if low != high:
        raise TrtplugError(f"sizes: {name}={low}..{high} is a range; a call has one size: {name}={low}")
    return low
