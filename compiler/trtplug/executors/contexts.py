"""Making execution contexts: kernels are compiled once per engine."""

from __future__ import annotations

import json
import threading
from typing import Any

import torch

from trtplug._tensorrt import configured_contexts_have_profiles, engine_facts, library
from trtplug.executors.kernels import KernelStore


class Contexts:
    """The contexts of one engine on one device. TensorRT-RTX compiles kernels for each; here the first one's are kept.

    TensorRT's objects must go in the order context, engine, runtime, or the process ends: who has a context must have
    this too, and so must the attributes here stay in their order.

    Args:
        loaded: TensorRT's engine.
        runtime: that loaded it.
        index: of its device.
        logger: TensorRT's, for its words.
        store: where kernels are kept for other processes, or None.
    """

    def __init__(self, loaded: Any, runtime: Any, index: int, logger: Any, store: KernelStore | None = None) -> None:
        self._cache: Any = None
        self._loaded = loaded
        self._runtime = runtime
        self._index, self._logger, self._store = index, logger, store
        self._lock = threading.Lock()

    def make(self, *, eager: bool = False) -> Any:
        """A new context, or None where TensorRT has none to give.

        Args:
            eager: kernels for new shapes are compiled as they come, not in the background after a call with others.
        """
        with self._lock, torch.cuda.device(self._index):
            context = self._make(eager)
            if context is None and "memory" in " ".join(self._logger.errors).lower():
                torch.cuda.empty_cache()  # TensorRT allocates for itself; what Torch keeps in reserve may be enough
                context = self._make(eager)
            if context is not None and hasattr(context, "nvtx_verbosity"):
                context.nvtx_verbosity = library().ProfilingVerbosity.NONE  # what it would say costs time in each call
            return context  # no other failure is tried again: that has ended the process

    def keep(self) -> None:
        """Writes the kernels that have been compiled so far to the store, if there is one."""
        if self._store is not None and self._cache is not None:
            with self._lock:
                self._store.put(bytes(self._cache.serialize()))

    def inspect(self) -> dict[str, Any]:
        """What TensorRT says of the engine: its inspector's layers and bindings; as ``Engine`` its `engine_facts`."""
        inspector = self._loaded.create_engine_inspector()
        text = inspector.get_engine_information(library().LayerInformationFormat.JSON)
        return {**json.loads(text or "{}"), "Engine": engine_facts(self._loaded)}

    def _make(self, eager: bool) -> Any:
        if not hasattr(self._loaded, "create_runtime_config"):  # standard TensorRT before 10.12
            return self._loaded.create_execution_context()
        if self._loaded.num_optimization_profiles > 1 and not configured_contexts_have_profiles():
            return self._loaded.create_execution_context()  # its kernels are not kept for others
        config = self._loaded.create_runtime_config()
        if hasattr(config, "create_runtime_cache"):
            if self._cache is None:
                self._cache = config.create_runtime_cache()
                self._read()
            config.set_runtime_cache(self._cache)
        if eager and hasattr(config, "dynamic_shapes_kernel_specialization_strategy"):
            strategy = library().DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = strategy
        return self._loaded.create_execution_context(config)

    def _read(self) -> None:
        blob = None if self._store is None else self._store.get()
        if blob is not None and not self._cache.deserialize(blob):
            self._logger.take()  # another version's, GPU's or driver's: compiled again, and replaced
