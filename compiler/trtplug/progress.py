"""A progress display for engine builds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trtplug.network.finished import Progress


@contextmanager
def build_progress(enabled: bool = True) -> Iterator[Progress | None]:
    """Shows TensorRT's phases on standard error while engines are built; gives the callback for ``progress=``.

    Where it is not enabled (no terminal), gives None.
    """
    if not enabled:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Display

    columns = (TextColumn("{task.description:<42}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Display(*columns, console=Console(stderr=True), transient=True) as display:
        tasks = {}

        def progress(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = display.add_task(phase, total=total)
            display.update(tasks[phase], completed=done, total=total, visible=done < total)

        yield progress
