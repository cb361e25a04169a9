"""The reference executor's plugin: runs any engine anywhere, from what its TensorRT network means."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule

from trtplug.profiles import profile_of
from trtplug.reference.timing import layer_times
from trtplug_registry import CONTRACT, Engine, Executor, hookimpl

trtplug_contract = CONTRACT


@hookimpl
def trtplug_executors() -> Sequence[Executor]:
    return [Executor("reference", _unavailable, _prepare, priority=0)]


def _unavailable() -> str | None:
    return None


class _Run:
    """Calls the lifted network. A size input arrives as an int and becomes a 0-d int64 tensor.

    Raises `ExecutorError` for shapes that none of the engine's optimization profiles holds, where it has several.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._profiled = bool(engine.profiles)
        self._home = torch.device("cpu")
        self._modules: dict[torch.device, GraphModule] = {self._home: engine.reference}

    def __call__(self, *inputs: Any) -> tuple[torch.Tensor, ...]:
        if self._profiled:
            profile_of(self._engine, inputs)  # takes what the engine takes, and no more
        module, tensors = self._there(inputs)
        with torch.no_grad():
            return _fresh(module(*tensors), (*tensors, *module.buffers(), *module.parameters()))

    def profile(self, inputs: Sequence[Any], calls: int) -> list[tuple[str, float]]:
        """Milliseconds by layer of the network, in order of execution: how long this executor computes it."""
        module, tensors = self._there(inputs)
        with torch.no_grad():
            return layer_times(module, tensors, calls)

    def inspect(self) -> dict[str, Any]:
        """The layers of the network, by name."""
        graph = self._engine.reference.graph
        return {"Layers": list(dict.fromkeys(node.meta["layer"] for node in graph.nodes if "layer" in node.meta))}

    def _there(self, inputs: Sequence[Any]) -> tuple[GraphModule, list[torch.Tensor]]:
        """The network on the inputs' device, and what it takes."""
        device = next((value.device for value in inputs if isinstance(value, torch.Tensor)), self._home)
        module = self._modules.get(device)
        if module is None:  # weights are lifted on the CPU; each device gets its own copy
            module = self._modules[device] = copy.deepcopy(self._modules[self._home]).to(device)
        return module, [
            value if isinstance(value, torch.Tensor) else torch.tensor(int(value), dtype=torch.int64, device=device)
            for value in inputs
        ]


def _fresh(results: Sequence[torch.Tensor], held: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Each result in row-major memory of its own, as an engine gives it: the caller may write to it."""
    taken = {tensor.untyped_storage().data_ptr() for tensor in held}
    found = []
    for result in results:
        memory = result.untyped_storage().data_ptr()
        found.append(result.clone(memory_format=torch.contiguous_format) if memory in taken else result.contiguous())
        taken.add(memory)
    return tuple(found)


def _prepare(engine: Engine) -> _Run:
    return _Run(engine)
