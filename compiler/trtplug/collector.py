"""Python's collector of cyclic garbage, while graphs grow."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator


class _Pauses:
    """How many pauses there are, in all threads: the collector is one for the process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # what is collected while it is held may pause, too
        self._count, self._resumes = 0, False

    def begin(self) -> None:
        with self._lock:
            self._count += 1
            if self._count == 1:
                self._resumes = gc.isenabled()
                gc.disable()

    def end(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0 and self._resumes:
                gc.enable()


_PAUSES = _Pauses()


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pauses the collector: a graph of many nodes makes it run often, each time over all of them, to find nothing.

    Also a decorator: ``@collector_paused()``. It works again where the last pause of all threads ends, unless it was
    stopped when the first began.
    """
    _PAUSES.begin()
    try:
        yield
    finally:
        _PAUSES.end()
