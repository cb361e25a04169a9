"""One execution context, called over and over: what a call does on the host, and no more.

TensorRT's enqueue apart, a call costs a few microseconds. Shapes are set and output shapes asked for only where they
differ from the last call's; addresses likewise; results are allocated by Torch, before the work is enqueued.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trtplug.errors import ExecutorError
from trtplug.executors.memory import Layout, allocator, layout
from trtplug.executors.outputs import output_memory
from trtplug.executors.streams import StreamOrder, raw_stream
from trtplug_registry import Engine

MOST_SHAPES = 4096
"""Combinations of input shapes whose output shapes a session remembers."""


class Failure:
    """Makes the errors of one engine: what is wrong, what it was called with, and TensorRT's words."""

    def __init__(self, name: str, logger: Any) -> None:
        self._name, self._logger = name, logger

    def __call__(self, what: str, inputs: Sequence[Any] | None = None) -> ExecutorError:
        words = "".join(f"\n  TensorRT: {message}" for message in self._logger.take())
        called = "" if inputs is None else f"; called with {given(inputs)}"
        return ExecutorError(f"{self._name} {what}{called}{words}")


class Session:
    """An execution context on one device. Not for several threads at once.

    Args:
        engine: what is run.
        context: TensorRT's, for this engine.
        owner: what the context needs, and must not outlive.
        device: of the tensors.
        failure: makes errors.

    Called with the inputs in order; returns the results, or None where the tensors are all on another device.

    Attributes:
        broken: whether work could not be enqueued: what the context still holds is not known.
    """

    def __init__(self, engine: Engine, context: Any, owner: Any, device: torch.device, failure: Failure) -> None:
        self._context = context  # first, so that it goes first
        self._owner = owner
        self._engine, self._device, self._failure = engine, device, failure
        self.broken = False
        self._index = -1 if device.type == "cpu" else device.index
        self._order = StreamOrder(self._index)
        count = len(engine.inputs)
        self._inputs = tuple((place, name, facts.dtype) for place, (name, facts) in enumerate(engine.inputs))
        self._outputs = tuple((place, name, facts.dtype) for place, (name, facts) in enumerate(engine.outputs, count))
        self._dynamic = [-1 in facts.shape for _, facts in engine.inputs]
        self._addresses = [0] * (len(self._inputs) + len(self._outputs))
        self._key: list[Any] | None = None  # the shapes and sizes that the context was last told
        self._shapes: tuple[Layout, ...] = ()  # of the results
        self._known: dict[tuple[Any, ...], tuple[Layout, ...]] = {}
        self._sizes: dict[int, torch.Tensor] = {}  # on the host; the stream may still read any of them
        self._spare = torch.empty(16, dtype=torch.uint8, device=device)  # TensorRT wants an address for empty tensors
        self._no_address = self._spare.data_ptr()
        self._new = allocator(device)
        self._overwritten = self._aliases()
        self._growing: dict[str, Any] = {}  # what holds a result whose shape depends on values, by name

    @property
    def context(self) -> Any:
        """TensorRT's execution context."""
        return self._context

    def _aliases(self) -> dict[int, int]:
        """By the place of an input that TensorRT writes to: the place of the result that it thereby makes."""
        aliased = getattr(getattr(self._context, "engine", None), "get_aliased_input_tensor", None)
        if aliased is None:
            return {}
        places = {name: place for place, name, _ in self._inputs}
        sources = {place: aliased(name) for place, name, _ in self._outputs}
        return {places[source]: place for place, source in sources.items() if source}

    def __call__(self, inputs: Sequence[Any]) -> tuple[torch.Tensor, ...] | None:
        if len(inputs) != len(self._inputs):
            raise ExecutorError(f"{self._engine.name} takes {len(self._inputs)} inputs, not {len(inputs)}")
        index, addresses = self._index, self._addresses
        if index >= 0 and torch._C._cuda_getDevice() != index:
            with torch.cuda.device(index):
                return self(inputs)
        key: list[Any] = []
        held: list[torch.Tensor] = []  # until the work is enqueued; then the stream's order keeps it safe
        written: dict[int, torch.Tensor] = {}
        for (place, name, dtype), value in zip(self._inputs, inputs):
            if not isinstance(value, torch.Tensor):
                key.append(int(value))
                continue
            if value.dtype is not dtype or value.get_device() != index:
                if index >= 0 and same_device(self._engine, inputs) != index:
                    return None
                raise self._wrong(name, dtype, value)
            if place in self._overwritten:
                value = written[self._overwritten[place]] = value.clone(memory_format=torch.contiguous_format)
            elif not value.is_contiguous():
                value = value.contiguous()
                held.append(value)
            key.append(value.shape)
            address = value.data_ptr() or self._no_address
            if address != addresses[place]:
                self._address(place, name, address)
        if key != self._key:
            self._resize(key, inputs)
        results = []
        for (place, name, dtype), (shape, strides) in zip(self._outputs, self._shapes):
            result = written[place] if place in written else self._new(shape, strides, dtype)
            address = result.data_ptr() or self._no_address
            if address != addresses[place]:
                self._address(place, name, address)
            results.append(result)
        if not self._enqueue():
            self.broken = True
            raise self._failure("failed", inputs)
        return self._grown(results) if self._growing else tuple(results)

    def _enqueue(self) -> bool:
        stream = raw_stream(self._index)
        self._order.enter(stream)
        worked = bool(self._context.execute_async_v3(stream))
        self._order.leave()
        return worked

    def _address(self, place: int, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise self._failure(f"takes no address for {name!r}")
        self._addresses[place] = address

    def _resize(self, key: list[Any], inputs: Sequence[Any]) -> None:
        """Tells the context the shapes and sizes that have changed, and learns the shapes of the results."""
        before = self._key or [None] * len(key)
        self._key = None  # until all of it has worked
        for (place, name, _), new, old in zip(self._inputs, key, before):
            if new == old:
                continue
            if isinstance(new, int):
                number = self._sizes.setdefault(new, torch.tensor(new, dtype=torch.int64))
                self._address(place, name, number.data_ptr())
            elif self._dynamic[place]:
                if not self._context.set_input_shape(name, tuple(new)):
                    raise self._failure(f"does not take {list(new)} for {self._describe(place)}", inputs)
            elif tuple(new) != tuple(self._engine.inputs[place][1].shape):
                raise self._failure(f"does not take {list(new)} for {self._describe(place)}", inputs)
        known = tuple(key)
        if known not in self._known:
            if len(self._known) >= MOST_SHAPES:
                self._known.clear()
            self._known[known] = self._output_shapes(inputs)
        self._shapes = self._known[known]
        self._key = key

    def _output_shapes(self, inputs: Sequence[Any]) -> tuple[Layout, ...]:
        shapes = []
        for _, name, _ in self._outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            if min(shape, default=0) < 0:  # it depends on values
                shape = self._grow(name, inputs)
            shapes.append(layout(shape))
        return tuple(shapes)

    def _grow(self, name: str, inputs: Sequence[Any]) -> tuple[int, ...]:
        """Lets TensorRT ask for a result's memory as it runs; the shape to begin with."""
        if name not in self._growing:
            memory = output_memory(self._device)
            if not self._context.set_output_allocator(name, memory):
                raise self._failure(f"cannot tell the shape of output {name!r}", inputs)
            self._growing[name] = memory
        return (0,)

    def _grown(self, results: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The results, those whose shapes depend on values as they have become."""
        named = zip(self._outputs, results)
        return tuple(self._growing[name].take(dtype) if name in self._growing else x for (_, name, dtype), x in named)

    def _describe(self, place: int) -> str:
        name, facts = self._engine.inputs[place]
        return f"input {name!r}, which is {facts}"

    def _wrong(self, name: str, dtype: torch.dtype, value: torch.Tensor) -> ExecutorError:
        if value.dtype != dtype:
            return ExecutorError(f"{self._engine.name}: input {name!r} is {value.dtype}, the engine takes {dtype}")
        return ExecutorError(f"{self._engine.name}: input {name!r} is on {value.device}, the engine on {self._device}")


def same_device(engine: Engine, inputs: Sequence[Any]) -> int | None:
    """The index of the CUDA device that all tensors are on; None where there is no tensor.

    Raises:
        ExecutorError: a tensor is not on a CUDA device, or not on that of the first.
    """
    found: int | None = None
    for (name, _), value in zip(engine.inputs, inputs):
        if not isinstance(value, torch.Tensor):
            continue
        index = value.get_device()
        if index < 0:
            raise ExecutorError(f"{engine.name}: input {name!r} is on {value.device}; the tensorrt executor needs CUDA")
        if found is not None and index != found:
            raise ExecutorError(f"{engine.name}: input {name!r} is on cuda:{index}, an earlier one on cuda:{found}")
        found = index
    return found


def given(inputs: Sequence[Any]) -> str:
    """The shapes and sizes of a call, in words."""
    return ", ".join(str(list(v.shape)) if isinstance(v, torch.Tensor) else str(v) for v in inputs)
