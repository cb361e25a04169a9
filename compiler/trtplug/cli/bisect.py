"""``trtplug bisect``: the first node whose numbers are not eager's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtplug_registry import TrtplugError

DEPARTS = 3
"""The exit status where a departure was found."""


def bisect(
    model: Annotated[str, typer.Argument(help="FILE.py:FUNCTION, the function returning (module, example_args).")],
    tolerance: Annotated[
        float | None, typer.Option(help="Relative to a result's largest element; by dtype where not given.")
    ] = None,
    executor: Annotated[str, typer.Option(help="What runs the engines: auto, reference or tensorrt.")] = "auto",
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the reproducer goes.")] = Path("departure.py"),
    min_block_size: Annotated[int, typer.Option(help="Blocks with fewer compute nodes stay in Torch.")] = 1,
) -> None:
    """Find the first node where an engine departs from eager beyond a tolerance; write a reproducer.

    Exit status: 0 no departure, 1 an error, 2 wrong usage, 3 a departure.
    """
    import torch

    from trtplug.cli import example_args, make_model
    from trtplug.departure import find_departure

    if not output.parent.is_dir():
        raise TrtplugError(f"cannot write {output}: there is no folder {str(output.parent)!r}")
    made = make_model(model)
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], torch.nn.Module)):
        raise TrtplugError(f"model {model!r}: bisect needs arguments to run it with; return (module, example_args)")
    module, args = made
    found = find_departure(
        module.eval(), example_args(model, args), tolerance=tolerance, executor=executor, min_block_size=min_block_size
    )
    if found is None:
        typer.echo("no engine departs from eager on these arguments")
        return
    typer.echo(str(found))
    if found.script:
        found.write(output)
        typer.echo(f"reproducer: {output}", err=True)
    raise typer.Exit(DEPARTS)
