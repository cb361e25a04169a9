"""Parameters and buffers that are constants of engines, and how it is noticed that they are not what they were."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from trtplug.lowering.graphs import as_bytes

_STATE = ("is_unspecialized_nn_module", "is_specialized_nn_module", "is_unspecialized_builtin_nn_module")


def is_state(node: fx.Node, value: Any) -> bool:
    """Whether an input of Dynamo's graph is a parameter or buffer of a module, whose changes can be noticed.

    A tensor made in inference mode counts no versions, so it stays an input.
    """
    if not isinstance(value, torch.Tensor) or value.is_inference():
        return False
    if isinstance(value, torch.nn.Parameter):
        return True
    source = getattr(node, "_dynamo_source", None)
    guard_source = getattr(source, "guard_source", None)
    guard_source = guard_source() if callable(guard_source) else guard_source
    return any(getattr(guard_source, name, lambda: False)() for name in _STATE)


class Stamps:
    """Identity, address and version of some of a graph's inputs, when it was compiled, and sums over their data.

    Writes that Torch does not count (through ``tensor.data``, or another library over the same memory) are told by the
    sums alone. `check` says where those are taken: ``"auto"`` on the CPU, ``"data"`` on every device, ``"version"``
    nowhere. On a GPU each call then reads all weights once, and waits for that.
    """

    def __init__(self, places: Sequence[int], inputs: Sequence[Any], check: str = "auto") -> None:
        # A view of each keeps its memory from being handed out again: an address then tells tensors apart.
        self._memory: list[torch.Tensor] = [inputs[place].detach() for place in places]
        self._stamps = [
            (place, weakref.ref(inputs[place]), memory.data_ptr(), inputs[place]._version)
            for place, memory in zip(places, self._memory)
        ]
        self._summed: dict[torch.device, list[torch.Tensor]] = {}
        for memory in self._memory:
            if _summable(memory, check):
                self._summed.setdefault(memory.device, []).append(memory)
        self._sums = self._sum()

    def hold(self, inputs: Sequence[Any]) -> bool:
        """Whether none of the tensors was replaced or written to."""
        for place, known, address, version in self._stamps:
            tensor = inputs[place]
            if tensor._version != version or tensor.data_ptr() != address or tensor is not known():
                return False
        return all(torch.equal(before, now) for before, now in zip(self._sums, self._sum()))

    def _sum(self) -> list[torch.Tensor]:
        return [_sums(tensors) for tensors in self._summed.values()]


def _summable(tensor: torch.Tensor, check: str) -> bool:
    wanted = check == "data" or (check == "auto" and tensor.device.type == "cpu")
    return wanted and tensor.layout is torch.strided and tensor.numel() > 0


def _sums(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of each tensor: over its 8-byte words, over every other one (for their order), and over the bytes left."""
    found: list[torch.Tensor] = []
    for tensor in tensors:
        data = as_bytes(tensor)
        if data.data_ptr() % 8 or data.storage_offset() % 8:
            data = data.clone()
        count = data.numel() // 8 * 8
        words = data[:count].view(torch.int64)
        found += [words.sum(), words[::2].sum(), data[count:].sum()]
    return torch.stack(found)
