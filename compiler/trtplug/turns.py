"""Threads may compile at once; while tracing and rewriting graphs they take turns."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

_ASSEMBLING = threading.RLock()
_PATIENCE = 60.0  # seconds; a plugin that compiles while it is imported waits for the lock that we hold


@contextlib.contextmanager
def tracing_turn() -> Iterator[None]:
    """Holds the process for one thread's tracing: what Torch patches while it exports, and Python's warning filters,
    belong to the whole process. TensorRT's part of a compilation needs no turn.

    The lock is Dynamo's own, so that ``torch.compile``, which holds it while it calls us, cannot wait for us in a ring.
    """
    from torch._dynamo.convert_frame import compile_lock

    with compile_lock:
        if _ASSEMBLING.acquire(timeout=_PATIENCE):  # who assembles without Dynamo's lock began before Dynamo was there
            _ASSEMBLING.release()
        yield


@contextlib.contextmanager
def assembling_turn() -> Iterator[None]:
    """The same while plugins are imported, which may warn; where Dynamo is not loaded, nobody traces, and loading it
    for its lock would take seconds."""
    if "torch._dynamo.convert_frame" in sys.modules:
        with tracing_turn():
            yield
    else:
        with _ASSEMBLING:
            yield
