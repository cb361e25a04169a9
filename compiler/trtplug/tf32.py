"""Whether TensorRT-RTX may round the operands of float32 products to TF32: one variable of the process's environment.

The builder's flag changes nothing there (measured on an H100: clearing it, like any other flag, leaves errors of 2.6e-4
in a product, as Torch's TF32 has; with the variable they are those of float32). The variable is read when an engine is
built and again when a context is made for it, and must say the same both times.

It seems to be read once for all the builds of a process: there the first one decides.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

OVERRIDE = "NVIDIA_TF32_OVERRIDE"
"""NVIDIA's libraries read it when they choose kernels; "0" keeps them from TF32."""


class _Gate:
    """Lets any number of threads in that want the variable alike; others wait until these are out."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.inside = 0
        self.allowed = False

    def enter(self, allowed: bool) -> None:
        with self.condition:
            self.condition.wait_for(lambda: not self.inside or self.allowed == allowed)
            if not self.inside and not allowed:
                os.environ[OVERRIDE] = "0"
            self.inside, self.allowed = self.inside + 1, allowed

    def leave(self) -> None:
        with self.condition:
            self.inside -= 1
            if not self.inside:
                if not self.allowed:
                    os.environ.pop(OVERRIDE, None)
                self.condition.notify_all()


_GATE = _Gate()  # the environment is the whole process's, so this is too


@contextlib.contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """While TensorRT builds, or makes a context: lets it use TF32 or keeps it from that.

    What the user has set in the environment stays as it is, whatever `allowed` says.
    """
    if OVERRIDE in os.environ and not _GATE.inside:
        yield
        return
    _GATE.enter(allowed)
    try:
        yield
    finally:
        _GATE.leave()
