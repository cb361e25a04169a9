"""Making execution contexts: kernels compiled once per engine, CUDA graphs, TF32 or not in float32 products."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import torch

from trtplug._tensorrt import library
from trtplug_registry import RunOptions

TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"
"""NVIDIA's libraries read it when they choose kernels; "0" is the only thing that keeps TensorRT-RTX from TF32."""

_environment = threading.RLock()  # the environment is the process's


class Contexts:
    """The contexts of one engine on one device. TensorRT-RTX compiles kernels for each; here the first one's are kept.

    Args:
        loaded: TensorRT's engine.
        index: of its device.
        options: of the engine.
    """

    def __init__(self, loaded: Any, index: int, options: RunOptions) -> None:
        self._loaded, self._index, self._options = loaded, index, options
        self._cache: Any = None
        self._lock = threading.Lock()

    def make(self) -> Any:
        """A new context, or None where TensorRT has none to give."""
        with self._lock, torch.cuda.device(self._index), tf32_allowed(self._options.tf32):
            context = self._make()
            if context is None:  # TensorRT allocates for itself: what Torch keeps in reserve may be what it lacks
                torch.cuda.empty_cache()
                context = self._make()
            return context

    def _make(self) -> Any:
        if not hasattr(self._loaded, "create_runtime_config"):  # standard TensorRT before 10.12
            return self._loaded.create_execution_context()
        config = self._loaded.create_runtime_config()
        if hasattr(config, "create_runtime_cache"):
            self._cache = self._cache or config.create_runtime_cache()
            config.set_runtime_cache(self._cache)
        if self._options.cuda_graphs and hasattr(config, "cuda_graph_strategy"):
            config.cuda_graph_strategy = library().CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._loaded.create_execution_context(config)


@contextlib.contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """While kernels are chosen: keeps NVIDIA's libraries from TF32 where it is not allowed.

    What the user has set in the environment stays as it is.
    """
    if allowed or TF32_OVERRIDE in os.environ:
        yield
        return
    with _environment:
        os.environ[TF32_OVERRIDE] = "0"
        try:
            yield
        finally:
            del os.environ[TF32_OVERRIDE]
