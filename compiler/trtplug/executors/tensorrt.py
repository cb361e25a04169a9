"""The TensorRT executor's plugin: runs engines on a GPU, on the caller's tensors and the current stream."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import torch

from trtplug._tensorrt import TensorRTUnavailable, library
from trtplug.errors import ExecutorError
from trtplug.network import NetworkBuilder
from trtplug.network.logger import new_logger
from trtplug_registry import CONTRACT, Engine, Executor, TensorFacts, hookimpl

trtplug_contract = CONTRACT


@hookimpl
def trtplug_executors() -> Sequence[Executor]:
    return [Executor("tensorrt", _unavailable, _Run, priority=10, device="cuda")]


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


class _Run:
    """An engine on the GPU: zero-copy in and out, one execution context per thread.

    Takes CUDA tensors, then sizes as ints; returns new tensors. Work is enqueued on the current stream.
    """

    def __init__(self, engine: Engine) -> None:
        assert engine.plan is not None
        self.name = engine.name
        self.inputs, self.outputs = tuple(engine.inputs), tuple(engine.outputs)
        self._logger = new_logger()
        self._runtime = library().Runtime(self._logger)  # must outlive the engine
        self._engine = self._runtime.deserialize_cuda_engine(engine.plan)
        if self._engine is None:
            raise self._failure("cannot be loaded")
        self._local = threading.local()

    def __call__(self, *inputs: Any) -> tuple[torch.Tensor, ...]:
        context = self._context()
        device = next((value.device for value in inputs if isinstance(value, torch.Tensor)), torch.device("cuda"))
        kept = [self._bind(context, binding, value) for binding, value in zip(self.inputs, inputs, strict=True)]
        results = []
        for name, facts in self.outputs:
            shape = tuple(context.get_tensor_shape(name))
            if min(shape, default=0) < 0:
                raise self._failure(f"cannot tell the shape of output {name!r} for {_shapes(inputs)}")
            result = torch.empty(shape, dtype=facts.dtype, device=device)
            kept.append(self._address(context, name, result))
            results.append(result)
        if not context.execute_async_v3(torch.cuda.current_stream(device).cuda_stream):
            raise self._failure(f"failed on {_shapes(inputs)}")
        self._local.kept = kept  # until the next call: the stream may still be reading
        return tuple(results)

    def _bind(self, context: Any, binding: tuple[str, TensorFacts], value: Any) -> torch.Tensor:
        name, facts = binding
        if not isinstance(value, torch.Tensor):  # a size is read on the host
            return self._address(context, name, torch.tensor(int(value), dtype=torch.int64))
        if not value.is_cuda:
            raise ExecutorError(f"{self.name}: input {name!r} is on {value.device}; the tensorrt executor needs CUDA")
        if value.dtype != facts.dtype:
            raise ExecutorError(f"{self.name}: input {name!r} is {value.dtype}, the engine takes {facts.dtype}")
        value = value.contiguous()
        if not context.set_input_shape(name, tuple(value.shape)):
            raise self._failure(f"does not take {list(value.shape)} for input {name!r}, which is {facts}")
        return self._address(context, name, value)

    def _address(self, context: Any, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel() == 0:  # an empty tensor has no address, and TensorRT wants one
            tensor = torch.empty(1, dtype=tensor.dtype, device=tensor.device)
        context.set_tensor_address(name, tensor.data_ptr())
        return tensor

    def _context(self) -> Any:
        context = getattr(self._local, "context", None)
        if context is None:
            context = self._engine.create_execution_context()
            if context is None:
                raise self._failure("has no execution context; the GPU may be out of memory")
            self._local.context = context
        return context

    def _failure(self, what: str) -> ExecutorError:
        words = "".join(f"\n  TensorRT: {message}" for message in self._logger.take())
        return ExecutorError(f"{self.name} {what}{words}")


def _shapes(inputs: Sequence[Any]) -> str:
    return ", ".join(str(list(v.shape)) if isinstance(v, torch.Tensor) else str(v) for v in inputs)
