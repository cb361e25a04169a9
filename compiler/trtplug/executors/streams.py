"""The order of work that shares memory, where a thread calls on one stream after another."""

from __future__ import annotations

import torch


def raw_stream(index: int) -> int:
    """The handle of the current stream of a CUDA device."""
    return int(torch._C._cuda_getCurrentRawStream(index))  # torch.cuda.current_stream makes an object of it: 2 µs


class StreamOrder:
    """Lets what is enqueued on one stream wait for what was enqueued before on another.

    An execution context has scratch memory of its own, and so have the buffers of a CUDA graph: two calls on two
    streams would write to it at the same time. As long as there is one stream, this costs a comparison. While
    somebody captures a graph of his own, the order is his to keep.

    Args:
        index: of the CUDA device.
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self._last: int | None = None
        self._event: torch.cuda.Event | None = None

    def enter(self, stream: int) -> None:
        """Before work is enqueued on a stream, which is the current one."""
        if stream != self._last:
            self._change(stream)

    def leave(self) -> None:
        """After it."""
        if self._event is not None and not torch.cuda.is_current_stream_capturing():
            self._event.record(torch.cuda.current_stream(self._index))

    def _change(self, stream: int) -> None:
        if torch.cuda.is_current_stream_capturing():
            return
        if self._event is not None:
            torch.cuda.current_stream(self._index).wait_event(self._event)
        elif self._last is not None:  # the other stream may be gone by now: no event can be recorded there
            torch.cuda.synchronize(self._index)
            self._event = torch.cuda.Event()
        self._last = stream
