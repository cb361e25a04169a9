"""How long the reference executor computes each layer of a network. It says nothing about TensorRT's times."""

from __future__ import annotations

import collections
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx


def layer_times(module: fx.GraphModule, inputs: Sequence[torch.Tensor], calls: int) -> list[tuple[str, float]]:
    """Milliseconds by layer, in order of execution: medians over calls, after one that does not count.

    Args:
        module: a lifted network, each of whose nodes says its layer.
        inputs: of a call.
        calls: that count.
    """
    taken: dict[str, list[float]] = collections.defaultdict(list)
    for number in range(calls + 1):
        clock = _Clock(module)
        clock.run(*inputs)
        for layer, seconds in clock.seconds.items() if number else ():
            taken[layer].append(1e3 * seconds)
    return [(layer, statistics.median(found)) for layer, found in taken.items()]


class _Clock(fx.Interpreter):
    """Runs a graph node by node; the seconds of each layer, checks of shape and dtype included."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seconds: dict[str, float] = collections.defaultdict(float)

    def run_node(self, n: fx.Node) -> Any:
        layer = n.meta.get("layer")
        if layer is None or n.meta.get("kind") == "INPUT":
            return super().run_node(n)
        start = time.perf_counter()
        result = super().run_node(n)
        if isinstance(result, torch.Tensor) and result.is_cuda:
            torch.cuda.synchronize(result.device)
        self.seconds[layer] += time.perf_counter() - start
        return result
