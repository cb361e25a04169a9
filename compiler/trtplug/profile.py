"""What `CompiledModule.profile` returns: the time of every layer of the engines."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from trtplug.engine import EngineModule

if TYPE_CHECKING:
    from trtplug.compiled import CompiledModule


_SEPARATOR = "\x1f"


@dataclasses.dataclass(frozen=True)
class LayerTime:
    """One layer of a loaded engine; TensorRT makes one layer of many.

    Attributes:
        engine: its name.
        layer: TensorRT's name for it.
        ms: milliseconds of a call.
        nodes: the nodes of the lowered graph that it is made of, as far as TensorRT says.
    """

    engine: str
    layer: str
    ms: float
    nodes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Profile:
    """The layers of all engines, in order of execution.

    TensorRT measures layer by layer, which takes longer than a call does. Nodes that run in Torch are not in it.
    """

    layers: tuple[LayerTime, ...]

    @property
    def ms(self) -> float:
        """Of all layers together."""
        return sum(layer.ms for layer in self.layers)

    def costliest(self, count: int = 10) -> tuple[LayerTime, ...]:
        """The layers that take longest, the slowest first."""
        return tuple(sorted(self.layers, key=lambda layer: -layer.ms)[:count])

    def to_dict(self) -> dict[str, Any]:
        """As what JSON can say."""
        return {"ms": self.ms, "layers": [dataclasses.asdict(layer) for layer in self.layers]}

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"{len(self.layers)} layers, {self.ms:.3f} ms; the costliest")
        for column in ("ms", "share", "engine", "layer", "nodes"):
            table.add_column(column, overflow="fold")
        for layer in self.costliest():
            share = f"{layer.ms / self.ms:.1%}" if self.ms else ""
            table.add_row(f"{layer.ms:.4f}", share, layer.engine, layer.layer, ", ".join(layer.nodes))
        text = io.StringIO()
        Console(file=text, width=120, color_system=None).print(table)
        return text.getvalue()


def profiled(compiled: CompiledModule, run: Callable[[], Any], calls: int) -> Profile:
    """Calls a module once, and each of its engines `calls` times with what it was given.

    Raises:
        ExecutorError: the executor tells no times.
    """
    given: list[tuple[EngineModule, tuple[Any, ...]]] = []
    modules = [module for module in compiled.graph_module.modules() if isinstance(module, EngineModule)]
    for module in modules:
        module.check_profiles()
    handles = [
        module.register_forward_pre_hook(lambda module, inputs: given.append((module, inputs))) for module in modules
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    nodes = {engine.name: record.nodes for engine, record in zip(compiled.engines, compiled.report.engines)}
    layers = []
    with torch.no_grad():
        for module, inputs in given:
            name = module.engine.name
            made_of = origins(module.inspect(), nodes.get(name, ()))
            for layer, ms in module.profile(inputs, calls):
                layers.append(LayerTime(name, layer, ms, made_of.get(layer, ())))
    return Profile(tuple(layers))


def origins(information: Mapping[str, Any], nodes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Which nodes each layer of a loaded engine comes from, by its name.

    Args:
        information: of TensorRT's inspector. A layer is a name, or has the metadata of the network's layers that it is
            made of, which begins with the node's name; without it, their names in its own name must do.
        nodes: those of the engine.
    """
    found = {}
    for layer in information.get("Layers", ()):
        name, metadata = (layer, "") if isinstance(layer, str) else (layer["Name"], layer.get("Metadata", ""))
        parts = {part.split(":")[0] for part in metadata.split(_SEPARATOR)} | set(re.findall(r"\w+", name))
        found[name] = tuple(node for node in nodes if node in parts)
    return found
