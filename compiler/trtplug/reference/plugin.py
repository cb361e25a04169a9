"""The reference executor's plugin: runs any engine anywhere, from what its TensorRT network means."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule

from trtplug_registry import CONTRACT, Engine, Executor, hookimpl

trtplug_contract = CONTRACT


@hookimpl
def trtplug_executors() -> Sequence[Executor]:
    return [Executor("reference", _unavailable, _prepare, priority=0)]


def _unavailable() -> str | None:
    return None


class _Run:
    """Calls the lifted network. A size input arrives as an int and becomes a 0-d int64 tensor."""

    def __init__(self, engine: Engine) -> None:
        self._home = torch.device("cpu")
        self._modules: dict[torch.device, GraphModule] = {self._home: engine.reference}

    def __call__(self, *inputs: Any) -> tuple[torch.Tensor, ...]:
        device = next((value.device for value in inputs if isinstance(value, torch.Tensor)), self._home)
        module = self._modules.get(device)
        if module is None:  # weights are lifted on the CPU; each device gets its own copy
            module = self._modules[device] = copy.deepcopy(self._modules[self._home]).to(device)
        tensors = [
            value if isinstance(value, torch.Tensor) else torch.tensor(int(value), dtype=torch.int64, device=device)
            for value in inputs
        ]
        with torch.no_grad():
            return tuple(module(*tensors))


def _prepare(engine: Engine) -> _Run:
    return _Run(engine)
