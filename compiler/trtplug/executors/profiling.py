"""How long each layer of an engine takes."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from trtplug._tensorrt import library
from trtplug.errors import ExecutorError

WARM = 3
"""Calls before the first that counts."""


def layer_times(context: Any, call: Callable[[], Any], calls: int, name: str) -> list[tuple[str, float]]:
    """Milliseconds by layer, in order of execution: medians over calls that are waited for.

    Args:
        context: what the calls run on.
        call: enqueues the engine's work.
        calls: that count.
        name: of the engine, for the error.

    Raises:
        ExecutorError: TensorRT reports no layers.
    """
    times: dict[str, list[float]] = collections.defaultdict(list)
    for _ in range(WARM):
        call()
    torch.cuda.synchronize()
    context.profiler = _recorder(times)
    try:
        for _ in range(calls):
            call()
            torch.cuda.synchronize()
    finally:
        context.profiler = None
    if not times:
        raise ExecutorError(f"{name}: TensorRT reports no times of layers")
    return [(layer, statistics.median(_by_call(found, calls))) for layer, found in times.items()]


def _by_call(found: Sequence[float], calls: int) -> list[float]:
    """A layer's time in each call, where its name comes several times in one."""
    each = max(1, len(found) // calls)
    return [sum(found[start : start + each]) for start in range(0, each * (len(found) // each), each)]


def _recorder(times: dict[str, list[float]]) -> Any:
    trt = library()

    class Recorder(trt.IProfiler):  # type: ignore[name-defined,misc]  # the class is known at run time only
        """Called from C++: never raises."""

        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times[layer_name].append(ms)

    return Recorder()
