"""Engines that do not depend on each other are built side by side: TensorRT builds outside of Python's lock."""

from __future__ import annotations

import collections
import dataclasses
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import torch
from torch.fx import Node

from trtplug._tensorrt import times_kernels
from trtplug.cache import Found
from trtplug.engine import CompiledEngine
from trtplug.errors import BuildError
from trtplug.network import Network
from trtplug.partition import Block
from trtplug_registry import ReasonCode

MOST_AT_ONCE = 4
MOST_BYTES = 2**30
"""Weights of the networks that are built at once: a build takes about as much memory again, twice for a moment."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """A serialized engine, or the error instead of it; and the seconds that it took."""

    plan: bytes
    error: BuildError | None
    seconds: float


@dataclasses.dataclass
class Built:
    """A block that has been converted and built, kept while other blocks are redone."""

    engine: CompiledEngine
    seconds: float
    cached: bool = False


Failure: TypeAlias = tuple[Node, ReasonCode, Exception]
"""The node to blame, why, and the error."""


@dataclasses.dataclass
class Begun:
    """A block whose engine is finished, failed, or being built."""

    block: Block
    outcome: Built | Failure | None = None
    network: Network | None = None
    found: Found = dataclasses.field(default_factory=Found)
    seconds: float = 0.0
    plan: Callable[[], Plan] | None = None


class Builds:
    """Builds in flight. Used as a context, which waits for those that run.

    Each network has a builder and a logger of its own, which is what TensorRT asks of threads. Where a build times
    kernels on a GPU, builds would disturb each other: there, one is built at a time, when it is collected.

    Args:
        build: makes an engine of a network.
        most: how many there will be.
    """

    def __init__(self, build: Callable[[Network], bytes], most: int) -> None:
        self._build = build
        self._at_once = 1 if times_kernels() else min(MOST_AT_ONCE, os.cpu_count() or 1, most)
        self._device = torch.cuda.current_device() if torch.cuda.is_initialized() else None  # is each thread's own
        self._pool = ThreadPoolExecutor(self._at_once, "trtplug-build") if self._at_once > 1 else None
        self._sizes: collections.deque[int] = collections.deque()

    def __enter__(self) -> Builds:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    @property
    def parallel(self) -> bool:
        """Whether builds run before they are collected."""
        return self._pool is not None

    def full(self, network: Network) -> bool:
        """Whether a build has to be collected before this network's may start."""
        running = len(self._sizes)
        return running > 0 and (running >= self._at_once or sum(self._sizes) + _bytes(network) > MOST_BYTES)

    def start(self, network: Network) -> Callable[[], Plan]:
        """Begins a build. What it returns waits for the end; it is called once, in the order of the starts.

        It raises what the build raises, but for `BuildError`, which it returns.
        """
        self._sizes.append(_bytes(network))
        future = None if self._pool is None else self._pool.submit(self._run, network)

        def collect() -> Plan:
            self._sizes.popleft()
            return self._run(network) if future is None else future.result()

        return collect

    def _run(self, network: Network) -> Plan:
        start = time.perf_counter()
        try:
            if self._device is not None:
                torch.cuda.set_device(self._device)
            return Plan(self._build(network), None, time.perf_counter() - start)
        except BuildError as error:
            return Plan(b"", error, time.perf_counter() - start)


def _bytes(network: Network) -> int:
    return sum(weight.numel() * weight.element_size() for weight in network.weights.values())
