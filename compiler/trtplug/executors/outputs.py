"""Results whose shapes are known only once an engine has run: TensorRT asks for their memory while it runs."""

from __future__ import annotations

from typing import Any

import torch

from trtplug._tensorrt import library


def output_memory(device: torch.device) -> Any:
    """An ``IOutputAllocator`` for one result: new memory in each run, which the result keeps.

    After a run, ``take(dtype)`` is the result, of the shape that TensorRT told.
    """
    trt = library()

    class OutputMemory(trt.IOutputAllocator):  # type: ignore[name-defined,misc]  # the class is known at run time only
        """Called from C++: never raises. An address of 0 tells TensorRT that there is no memory."""

        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.memory = torch.empty(0, dtype=torch.uint8, device=device)
            self.shape: tuple[int, ...] = ()

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            try:
                self.memory = torch.empty(max(size, 1), dtype=torch.uint8, device=device)  # an empty result, too
            except RuntimeError:  # out of memory
                return 0
            return self.memory.data_ptr()

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            return self.reallocate_output(name, memory, size, alignment)  # Torch allocates on the current stream

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shape = tuple(shape)

        def take(self, dtype: torch.dtype) -> torch.Tensor:
            size = torch.Size(self.shape).numel() * dtype.itemsize
            return self.memory[:size].view(dtype).view(self.shape)

    return OutputMemory()
