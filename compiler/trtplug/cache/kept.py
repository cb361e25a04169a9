"""The engines of an earlier compilation, which serve a later one where nothing that they are made of has changed."""

from __future__ import annotations

import concurrent.futures
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch.fx import GraphModule

from trtplug.cache.work import Circumstances, Undescribable, Work, describe, is_plain
from trtplug.engine import CompiledEngine
from trtplug.lowering import Lowered
from trtplug.lowering.graphs import as_bytes, attribute
from trtplug.partition import Partition, extract

Stamp: TypeAlias = tuple[int, int, int]


Stamps: TypeAlias = Mapping[int, tuple[torch.Tensor, Stamp]]
"""Tensors with their stamps, by identity."""


class Kept:
    """What a compilation made.

    Args:
        lowered, parts: what was compiled.
        engines: of the blocks, in order.
        stamps: of the weights, as they were compiled.
    """

    def __init__(self, lowered: Lowered, parts: Partition, engines: Sequence[CompiledEngine], stamps: Stamps) -> None:
        self.lowered, self.parts, self.engines, self._stamps = lowered, parts, tuple(engines), stamps
        self._described: list[tuple[Work, CompiledEngine]] | None = None

    def find(self, work: Work, about: Circumstances) -> CompiledEngine | None:
        """The engine that was made of exactly this, from weights that are what they were."""
        for known, engine in self._works(about):
            if known.structure == work.structure and len(known.weights) == len(work.weights):
                pairs = zip(known.weights, work.weights)
                if all(self._as_before(old) and same_data(old, new) for old, new in pairs):
                    return engine
        return None

    def _works(self, about: Circumstances) -> list[tuple[Work, CompiledEngine]]:
        if self._described is None:
            self._described = []
            for block, engine in zip(self.parts.blocks, self.engines, strict=True):
                try:
                    work = describe(extract(self.lowered.graph_module, block), self.lowered.ranges, about)
                except Undescribable:
                    continue
                self._described.append((work, engine))
        return self._described

    def _as_before(self, tensor: torch.Tensor) -> bool:
        _, before = self._stamps[id(tensor)]
        return stamp(tensor) == before


def stamped(lowered: Lowered) -> Stamps:
    """The weights as they are now."""
    held = _constants(lowered.graph_module)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return {id(tensor): (tensor, found) for tensor, found in zip(held, pool.map(stamp, held))}


def _constants(graph_module: GraphModule) -> list[torch.Tensor]:
    paths = dict.fromkeys(node.target for node in graph_module.graph.nodes if node.op == "get_attr")
    values = [attribute(graph_module, path) for path in paths]
    return [value for value in values if is_plain(value)]


def stamp(tensor: torch.Tensor) -> Stamp:
    """What differs where a tensor was written to or given other memory: address, version, and CRC-32 of its data.

    The CRC is there for what Torch does not count, as writes through ``tensor.data``.
    """
    version = 0 if tensor.is_inference() else tensor._version
    data = as_bytes(tensor).cpu().numpy()
    return tensor.data_ptr(), version, zlib.crc32(memoryview(data))  # type: ignore[arg-type]  # an array is a buffer


def same_data(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are the same bit by bit, in dtype, shape, device and data."""
    if (one.dtype, one.shape, one.device) != (other.dtype, other.shape, other.device):
        return False
    places = [(tensor.data_ptr(), tensor.stride()) for tensor in (one, other)]
    return places[0] == places[1] or torch.equal(as_bytes(one), as_bytes(other))
