"""Python's collector of cyclic garbage, while graphs grow."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pauses the collector: a graph of many nodes makes it run often, each time over all of them, to find nothing.

    Also a decorator: ``@collector_paused()``. The collector belongs to the process: where it is paused already, whoever
    paused it starts it again.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
