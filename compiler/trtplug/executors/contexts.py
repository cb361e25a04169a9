"""Making execution contexts: kernels are compiled once per engine."""

from __future__ import annotations

import threading
from typing import Any

import torch


class Contexts:
    """The contexts of one engine on one device. TensorRT-RTX compiles kernels for each; here the first one's are kept.

    TensorRT's objects must go in the order context, engine, runtime, or the process ends: who has a context must have
    this too, and so must the attributes here stay in their order.

    Args:
        loaded: TensorRT's engine.
        runtime: that loaded it.
        index: of its device.
        logger: TensorRT's, for its words.
    """

    def __init__(self, loaded: Any, runtime: Any, index: int, logger: Any) -> None:
        self._cache: Any = None
        self._loaded = loaded
        self._runtime = runtime
        self._index, self._logger = index, logger
        self._lock = threading.Lock()

    def make(self) -> Any:
        """A new context, or None where TensorRT has none to give."""
        with self._lock, torch.cuda.device(self._index):
            context = self._make()
            if context is None and "memory" in " ".join(self._logger.errors).lower():
                torch.cuda.empty_cache()  # TensorRT allocates for itself; what Torch keeps in reserve may be enough
                context = self._make()
            return context  # no other failure is tried again: that has ended the process

    def _make(self) -> Any:
        if not hasattr(self._loaded, "create_runtime_config"):  # standard TensorRT before 10.12
            return self._loaded.create_execution_context()
        config = self._loaded.create_runtime_config()
        if hasattr(config, "create_runtime_cache"):
            self._cache = self._cache or config.create_runtime_cache()
            config.set_runtime_cache(self._cache)
        return self._loaded.create_execution_context(config)
