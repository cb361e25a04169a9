"""Whether TensorRT-RTX may round the operands of float32 products to TF32: decided once for a process.

The builder's flag changes nothing there (measured on an H100: clearing it, like any other flag, leaves errors of 2.6e-4
in a product, as Torch's TF32 has). What does is a variable of the environment, which TensorRT-RTX reads when the first
builder of a process is made, and never again for this purpose: with it, errors are 4e-6 and less.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from trtplug._tensorrt import heeds_override

OVERRIDE = "NVIDIA_TF32_OVERRIDE"
"""NVIDIA's libraries read it when they choose kernels; "0" keeps them from TF32."""


class Process:
    """What has been decided in this process: by whoever asks first."""

    def __init__(self) -> None:
        self.allowed: bool | None = None
        self._made = False
        self._lock = threading.RLock()

    def decide(self, allowed: bool) -> bool:
        """Allows TF32 or not, unless that is decided; returns what holds."""
        with self._lock:
            if self.allowed is None:
                self.allowed = allowed
            return self.allowed

    @property
    def rounds(self) -> bool:
        """Whether products of float32 may be rounded: nobody has ruled it out, or TensorRT does not heed that."""
        return self.allowed is not False or not heeds_override()

    @contextlib.contextmanager
    def making_a_builder(self) -> Iterator[None]:
        """While a builder is made. What the user has set in the environment stays as it is."""
        with self._lock:
            if self._made or self.decide(False) or OVERRIDE in os.environ:
                yield
            else:
                os.environ[OVERRIDE] = "0"
                try:
                    yield
                finally:
                    del os.environ[OVERRIDE]
            self._made = True


PROCESS = Process()  # TensorRT decides for the whole process, so this does too
