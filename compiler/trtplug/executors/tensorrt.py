"""The TensorRT executor's plugin: runs engines on a GPU, on the caller's tensors and the current stream."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import torch

from trtplug._tensorrt import TensorRTUnavailable, library
from trtplug.errors import ExecutorError
from trtplug.executors.contexts import Contexts
from trtplug.executors.session import Session, given, same_device
from trtplug.network import NetworkBuilder
from trtplug.network.logger import new_logger
from trtplug_registry import CONTRACT, Engine, Executor, hookimpl

trtplug_contract = CONTRACT


@hookimpl
def trtplug_executors() -> Sequence[Executor]:
    return [Executor("tensorrt", _unavailable, EngineRun, priority=10, device="cuda")]


@functools.cache
def _unavailable() -> str | None:
    """Why engines cannot run here. The proof that they can is a tiny engine that loads."""
    if not torch.cuda.is_available():
        return "Torch sees no CUDA GPU"
    try:
        trt = library()
    except TensorRTUnavailable as error:
        return str(error)
    network = NetworkBuilder()
    source = network.add_input("x", torch.float32, (1,))
    network.mark_output(network.add("identity", source).get_output(0), "y")
    plan = network.builder.build_serialized_network(network.definition, network.builder.create_builder_config())
    if plan is None or trt.Runtime(network.logger).deserialize_cuda_engine(plan) is None:
        name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        words = "; ".join(network.logger.take())
        return f"TensorRT {trt.__version__} does not run on {name} (compute capability {major}.{minor}): {words}"
    return None


class EngineRun:
    """An engine on the GPU: zero-copy in and out, one execution context per thread and device.

    Takes CUDA tensors of one device, then sizes as ints; returns new tensors there. Work is enqueued on the current
    stream of that device. The engine is loaded, and its kernels compiled, on the device that is current when it is
    made, and on another when tensors on that one first come. May be called from several threads; a call that fails
    leaves it usable.

    Raises:
        ExecutorError: the engine cannot be loaded, or does not take these inputs (number, dtype, device, shape), or has
            no memory for its scratch space, or fails. TensorRT's words are in the message.
    """

    def __init__(self, engine: Engine) -> None:
        assert engine.plan is not None
        self.engine = engine
        self._runtime: Any = None
        self._loaded: dict[int, Contexts] = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        self._logger = new_logger()
        self._session(())  # kernels are compiled now, not in the first call; and what cannot run is known now

    def __call__(self, *inputs: Any) -> tuple[torch.Tensor, ...]:
        try:
            session = self._local.session
        except AttributeError:
            session = self._session(inputs)
        try:
            results = session(inputs)
        except ExecutorError:
            if session.broken:
                self._local.__dict__.clear()  # the next call gets another context
            raise
        return self(*inputs) if results is None else results

    def __deepcopy__(self, memo: dict[int, Any]) -> EngineRun:
        return self  # nothing of it that a call sees ever changes

    def _session(self, inputs: Sequence[Any]) -> Session:
        """This thread's session on the device of the inputs, which becomes the one that is tried first."""
        local = self._local
        index = same_device(self.engine, inputs)
        if index is None:
            index = torch.cuda.current_device()
        sessions: dict[int, Session] = local.__dict__.setdefault("sessions", {})
        if index not in sessions:
            sessions[index] = self._open(index)
        local.session = session = sessions[index]
        return session

    def _open(self, index: int) -> Session:
        context = self._load(index).make()
        if context is None:
            free, _ = torch.cuda.mem_get_info(index)
            raise self._failure(f"has no execution context on cuda:{index}, where {free:,} bytes are free")

        def elsewhere(inputs: Sequence[Any]) -> None:
            self._session(inputs)

        return Session(self.engine, context, torch.device("cuda", index), self._failure, elsewhere)

    def _load(self, index: int) -> Contexts:
        """The engine on a device. TensorRT loads on the device that is current."""
        with self._lock:
            if index not in self._loaded:
                self._runtime = self._runtime or library().Runtime(self._logger)  # must outlive the engines
                with torch.cuda.device(index):
                    loaded = self._runtime.deserialize_cuda_engine(self.engine.plan)
                if loaded is None:
                    raise self._failure(f"cannot be loaded on cuda:{index}")
                self._loaded[index] = Contexts(loaded, index, self.engine.run_options)
            return self._loaded[index]

    def _failure(self, what: str, inputs: Sequence[Any] | None = None) -> ExecutorError:
        words = "".join(f"\n  TensorRT: {message}" for message in self._logger.take())
        called = "" if inputs is None else f"; called with {given(inputs)}"
        return ExecutorError(f"{self.engine.name} {what}{called}{words}")
