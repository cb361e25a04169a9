"""Calls as CUDA graphs: captured once for each combination of shapes, and replayed."""

from __future__ import annotations

import collections
import gc
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from trtplug.errors import ExecutorError
from trtplug.executors.memory import allocator, layout
from trtplug.executors.profiled import ProfiledSession
from trtplug.executors.session import Session
from trtplug.executors.streams import StreamOrder, raw_stream

MOST_GRAPHS = 16
"""Graphs of one session; each has an execution context, and buffers for inputs and results."""

FIRST, AGAIN = 2, 32
"""Calls with the same shapes before they are captured: as long as there is room, and where another graph must go."""

MOST_COUNTED = 4096
"""Combinations of shapes whose calls are counted."""

_CAPTURES = threading.Lock()  # one at a time in a process

Key: TypeAlias = tuple[Any, ...]


class GraphWarning(UserWarning):
    """A call could not be captured as a CUDA graph: calls with those shapes run without."""


class Graph:
    """One captured call: a context and buffers of its own, which nothing else changes.

    Args:
        session: on a context (of each optimization profile) that has served nobody yet.
        inputs: as in the call; only their shapes, dtypes and values of sizes matter.
        device: of the tensors.

    Raises:
        ExecutorError: TensorRT refuses the inputs, or fails.
        RuntimeError: CUDA refuses to capture.
    """

    def __init__(self, session: Session | ProfiledSession, inputs: Sequence[Any], device: torch.device) -> None:
        self._graph = torch.cuda.CUDAGraph()  # goes before what it uses
        self._session = session
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(device):
            caller, stream = torch.cuda.current_stream(), torch.cuda.Stream()
            buffers = [_buffer(value) for value in inputs]
            stream.wait_stream(caller)
            with torch.cuda.stream(stream):
                session(buffers)  # what TensorRT does once for new shapes is done now
                stream.synchronize()
                self._results = list(self._capture(buffers))
            caller.wait_stream(stream)
        self._new = allocator(device)
        self._layouts = [(layout(result.shape), result.dtype) for result in self._results]
        self._places = [place for place, value in enumerate(buffers) if isinstance(value, torch.Tensor)]
        self._buffers = [buffers[place] for place in self._places]

    def _capture(self, buffers: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        collects = gc.isenabled()
        with _CAPTURES:
            gc.disable()  # what it would free, CUDA must not free now
            try:
                self._graph.capture_begin(capture_error_mode="thread_local")
                try:
                    results = self._session(buffers)
                finally:
                    self._graph.capture_end()
            finally:
                if collects:
                    gc.enable()
        assert results is not None
        return results

    def __call__(self, inputs: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        """Replays it on the current stream, with other inputs. The results are new tensors."""
        if torch.is_grad_enabled():
            with torch.no_grad():
                return self(inputs)
        if len(self._places) == 1:
            self._buffers[0].copy_(inputs[self._places[0]])
        elif self._places:
            torch._foreach_copy_(self._buffers, [inputs[place] for place in self._places])
        self._graph.replay()
        results = [self._new(*shape, dtype) for shape, dtype in self._layouts]
        if len(results) == 1:
            results[0].copy_(self._results[0])
        else:
            torch._foreach_copy_(results, self._results)
        return tuple(results)


def _buffer(value: Any) -> Any:
    return value.detach().clone(memory_format=torch.contiguous_format) if isinstance(value, torch.Tensor) else value


class GraphedSession:
    """A session that captures the calls whose shapes come again. Called as `Session` is.

    Args:
        plain: runs what is not captured.
        open: makes a session on a new context.
        captured: called after each capture.
        name: of the engine.
        device: of the tensors.
    """

    def __init__(
        self,
        plain: Session | ProfiledSession,
        open: Callable[[], Session | ProfiledSession],
        captured: Callable[[], None],
        name: str,
        device: torch.device,
    ) -> None:
        self.plain, self._open, self._after, self._name, self._device = plain, open, captured, name, device
        self._graphs: collections.OrderedDict[Key, Graph] = collections.OrderedDict()
        self._calls: dict[Key, int] = {}
        self._refused: set[Key] = set()
        self._order = StreamOrder(device.index)

    @property
    def broken(self) -> bool:
        """As a session's."""
        return self.plain.broken

    def __call__(self, inputs: Sequence[Any]) -> tuple[torch.Tensor, ...] | None:
        key = tuple([(v.shape, v.dtype, v.get_device()) if isinstance(v, torch.Tensor) else int(v) for v in inputs])
        if torch.cuda.is_current_stream_capturing():  # then this call becomes part of somebody's graph
            return self.plain(inputs)
        graph = self._graphs.get(key)
        if graph is None:
            if not self._due(key):
                return self._counted(key, inputs)
            graph = self._captured(key, inputs)
            if graph is None:
                return self.plain(inputs)
        else:
            self._graphs.move_to_end(key)
        return self._replayed(graph, inputs)

    def _replayed(self, graph: Graph, inputs: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        index = self._device.index
        if torch._C._cuda_getDevice() != index:
            with torch.cuda.device(index):
                return self._replayed(graph, inputs)
        self._order.enter(raw_stream(index))
        results = graph(inputs)
        self._order.leave()
        return results

    def _due(self, key: Key) -> bool:
        """Whether a call of these shapes, which have no graph, is to be captured."""
        wanted = FIRST if len(self._graphs) < MOST_GRAPHS else AGAIN
        return self._calls.get(key, 0) + 1 >= wanted and key not in self._refused

    def _counted(self, key: Key, inputs: Sequence[Any]) -> tuple[torch.Tensor, ...] | None:
        results = self.plain(inputs)
        if results is not None:  # so what they are has been checked
            if len(self._calls) >= MOST_COUNTED:
                self._calls.clear()
            self._calls[key] = self._calls.get(key, 0) + 1
        return results

    def _captured(self, key: Key, inputs: Sequence[Any]) -> Graph | None:
        if len(self._graphs) >= MOST_GRAPHS:
            torch.cuda.synchronize(self._device)  # it may still run
            old, _ = self._graphs.popitem(last=False)
            self._calls[old] = 0
        try:
            graph = self._graphs[key] = Graph(self._open(), inputs, self._device)
        except (ExecutorError, RuntimeError) as error:
            self._refused.add(key)
            what = f"{self._name}: a call could not be captured as a CUDA graph, and runs without: {error}"
            warnings.warn(what, GraphWarning, stacklevel=2)
            return None
        self._after()
        return graph
