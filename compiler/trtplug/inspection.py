"""What TensorRT says of a loaded engine: its layers and the nodes they are made of, and what it needs on the device."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

_SEPARATOR = "\x1f"


@dataclasses.dataclass(frozen=True)
class LayerRecord:
    """A layer of a loaded engine, which TensorRT makes of many: its name, and the nodes that it is made of."""

    name: str
    nodes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LoadedRecord:
    """What TensorRT says of an engine once it is loaded on a device; None for what the version at hand does not say.

    Attributes:
        device_memory: bytes of scratch memory that a call needs, of all optimization profiles the most.
        streamable_weights: bytes of weights that need not stay on the device; 0 of an engine not built for that.
        aux_streams: beside the caller's stream.
        layers: as its inspector lists them; empty where it names none.
    """

    device_memory: int | None = None
    streamable_weights: int | None = None
    aux_streams: int | None = None
    layers: tuple[LayerRecord, ...] = ()


def origins(information: Mapping[str, Any], nodes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Which nodes each layer of a loaded engine comes from, by its name.

    Args:
        information: of TensorRT's inspector. A layer is a name, or has the metadata of the network's layers that it is
            made of, which begins with the node's name; without it, their names in its own name must do.
        nodes: those of the engine.
    """
    places = {node: place for place, node in enumerate(nodes)}
    found = {}
    for layer in information.get("Layers", ()):
        name, metadata = (layer, "") if isinstance(layer, str) else (layer["Name"], layer.get("Metadata", ""))
        parts = {part.split(":")[0] for part in metadata.split(_SEPARATOR)} | set(re.findall(r"\w+", name))
        found[name] = tuple(sorted(parts & places.keys(), key=places.__getitem__))
    return found
