"""Whether TensorRT-RTX may round the operands of float32 products to TF32: decided once for a process.

The builder's flag changes nothing there (measured on an H100: clearing it, like any other flag, leaves errors of 2.6e-4
in a product, as Torch's TF32 has). What does is a variable of the environment, which TensorRT-RTX reads when the first
builder of a process is made, and never again for this purpose: with it, errors are 4e-6 and less. TensorRT-RTX 1.4 does
not heed it there; set for the whole process, it makes every float32 matrix product of 1.4 fail as its context is made
("cuDNN graph compilation failed"), attention among them.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import torch
from torch import fx

from trtplug._tensorrt import heeds_override

OVERRIDE = "NVIDIA_TF32_OVERRIDE"
"""NVIDIA's libraries read it when they choose kernels; "0" keeps them from TF32."""


CANNOT_HOLD = "operands of float32 products are rounded to TF32, although tf32=False: it cannot hold"

_PRODUCTS = frozenset({"ATTENTION_INPUT", "CONVOLUTION", "DECONVOLUTION", "EINSUM", "MATRIX_MULTIPLY"})


def multiplies_float32(reference: fx.GraphModule) -> bool:
    """Whether a lifted network has a layer that sums products of float32."""
    found = (node.meta for node in reference.graph.nodes if node.meta.get("kind") in _PRODUCTS)
    return any(meta.get("dtype") is torch.float32 for meta in found)


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

    @property
    def why(self) -> str:
        """Why products may be rounded."""
        if not heeds_override():
            return "TensorRT-RTX 1.4 has no way to rule TF32 out; 1.6 has"
        return "an earlier compilation has allowed TF32, and TensorRT reads that once"

    @contextlib.contextmanager
    def making_a_builder(self) -> Iterator[None]:
        """While a builder is made. What the user has set in the environment stays as it is."""
        with self._lock:
            if self._made or self.decide(False) or OVERRIDE in os.environ or not heeds_override():
                yield
            else:
                os.environ[OVERRIDE] = "0"
                try:
                    yield
                finally:
                    del os.environ[OVERRIDE]
            self._made = True


PROCESS = Process()  # TensorRT decides for the whole process, so this does too
