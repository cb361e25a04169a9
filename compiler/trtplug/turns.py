"""Threads may compile at once; while tracing and rewriting graphs they take turns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def tracing_turn() -> Iterator[None]:
    """Holds the process for one thread's tracing: what Torch patches while it exports, and Python's warning filters,
    belong to the whole process. TensorRT's part of a compilation needs no turn.

    The lock is Dynamo's own, so that ``torch.compile``, which holds it while it calls us, cannot wait for us in a ring.
    """
    from torch._dynamo.convert_frame import compile_lock

    with compile_lock:
        yield
