"""No time for what tests nothing: garbage collection of all of Torch, idle threads, Torch's own trace."""

from __future__ import annotations

import gc
import logging
import os

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several workers wait for each other, busily: a fifth of all time
    # here, before Torch is imported; processes that tests start inherit it
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    # Torch's structured trace takes a stack trace for each fake tensor while its logger has a handler, and pytest gives
    # one to every logger that does not propagate: a tenth of all time
    trace = logging.getLogger("torch.__trace")
    trace.handlers.clear()
    trace.propagate = True
