"""A finished network as layers, who makes and who uses each tensor, and which layers lie inside a loop or a branch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from trtplug._tensorrt import typed_layer

LOOP_KINDS = frozenset({"TRIP_LIMIT", "RECURRENCE", "ITERATOR", "LOOP_OUTPUT"})
BRANCH_KINDS = frozenset({"CONDITION", "CONDITIONAL_INPUT", "CONDITIONAL_OUTPUT"})


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of the network: its kind, TensorRT's object as the class of that kind, its inputs and outputs.

    An optional input that is not set is None. Tensors are compared by identity: the bindings hand out one wrapper per
    tensor for as long as somebody holds it.
    """

    kind: str
    name: str
    handle: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]

    @property
    def present(self) -> list[Any]:
        """The inputs that are set."""
        return [tensor for tensor in self.inputs if tensor is not None]


@dataclass(eq=False)
class Region:
    """A loop or a conditional: the layers on its boundary and those inside."""

    name: str
    boundary: list[Layer] = field(default_factory=list)
    members: set[Layer] = field(default_factory=set)

    def of_kind(self, kind: str) -> list[Layer]:
        """The boundary layers of one kind, in insertion order."""
        return [layer for layer in self.boundary if layer.kind == kind]

    @property
    def exits(self) -> list[Layer]:
        """The boundary layers through which values leave."""
        return [layer for layer in self.boundary if layer.kind in ("LOOP_OUTPUT", "CONDITIONAL_OUTPUT")]


class Topology:
    """Layers, producers, consumers and regions. Holds the network's objects, so only for the time of lifting."""

    def __init__(self, network: Any) -> None:
        self.layers = [_read(network.get_layer(i)) for i in range(network.num_layers)]
        self.producer = {tensor: layer for layer in self.layers for tensor in layer.outputs}
        self.consumers: dict[Any, list[Layer]] = {}
        for layer in self.layers:
            for tensor in layer.present:
                self.consumers.setdefault(tensor, []).append(layer)
        self.region_at = self._regions()
        self.regions = list(dict.fromkeys(self.region_at.values()))
        for region in self.regions:
            region.members = self._inside(region)

    def _regions(self) -> dict[Layer, Region]:
        """The region of each boundary layer."""
        owners: dict[Any, Region] = {}
        found: dict[Layer, Region] = {}
        for layer in self.layers:
            if layer.kind in LOOP_KINDS | BRANCH_KINDS:
                owner = layer.handle.loop if layer.kind in LOOP_KINDS else layer.handle.conditional
                region = found[layer] = owners.setdefault(owner, Region(owner.name))
                region.boundary.append(layer)
        self._owners = owners  # alive as long as their wrappers serve as keys
        return found

    def _inside(self, region: Region) -> set[Layer]:
        """What depends on the region's iterations or inputs, up to its exits; a nested region belongs as a whole."""
        exits = set(region.exits)
        entries = [layer for layer in region.boundary if layer.kind in ("RECURRENCE", "ITERATOR", "CONDITIONAL_INPUT")]
        waiting = [user for layer in entries for user in self._users(layer)]
        reached: set[Layer] = set()
        while waiting:
            layer = waiting.pop()
            if layer in reached or layer in exits or self.region_at.get(layer) is region:
                continue
            reached.add(layer)
            nested = self.region_at.get(layer)
            waiting += self._users(layer) + ([] if nested is None else nested.boundary)
        return reached

    def _users(self, layer: Layer) -> list[Layer]:
        return [user for tensor in layer.outputs for user in self.consumers.get(tensor, [])]

    def external(self, region: Region, layers: Iterable[Layer]) -> Iterator[Any]:
        """The inputs of some of a region's layers that are made outside the region."""
        own = {*region.members, *region.boundary}
        for layer in layers:
            for tensor in layer.present:
                if self.producer.get(tensor) not in own:
                    yield tensor

    def assertions(self, region: Region | None) -> list[Layer]:
        """The assertion layers directly inside a region, or outside all of them."""
        there = [r for r in self.regions if r is not region and (region is None or not r.members >= region.members)]
        nested = set().union(*(r.members for r in there))
        wanted = self.layers if region is None else [layer for layer in self.layers if layer in region.members]
        return [layer for layer in wanted if layer.kind == "ASSERTION" and layer not in nested]


def _read(raw: Any) -> Layer:
    kind, handle = typed_layer(raw)
    inputs = tuple(handle.get_input(i) for i in range(handle.num_inputs))
    outputs = tuple(handle.get_output(i) for i in range(handle.num_outputs))
    return Layer(kind, handle.name, handle, inputs, outputs)
