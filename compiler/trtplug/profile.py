"""What `CompiledModule.profile` returns: the time of every layer of the engines, as a table, JSON or a page."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from trtplug.engine import EngineModule
from trtplug.inspection import origins
from trtplug.page import render_page
from trtplug.report import CompilationReport, NodeRecord

if TYPE_CHECKING:
    from rich.console import Console

    from trtplug.compiled import CompiledModule

FORMAT, VERSION = "trtplug-profile", 1

OF_TENSORRT = "tensorrt"
"""The executor whose layers are TensorRT's own."""

COSTLIEST = 10


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

    Attributes:
        layers: each with its time.
        executor: what ran them. Of any other than TensorRT's they are layers of the network as that one computes them.
        device: on which.
        calls: over which medians were taken.
        inputs: of the call: names, dtypes and shapes, in words.
        report: of the compilation, which has each node's op and source line.
    """

    layers: tuple[LayerTime, ...]
    executor: str
    device: str
    calls: int
    inputs: tuple[str, ...]
    report: CompilationReport

    @property
    def ms(self) -> float:
        """Of all layers together."""
        return sum(layer.ms for layer in self.layers)

    def costliest(self, count: int = COSTLIEST) -> tuple[LayerTime, ...]:
        """The layers that take longest, the slowest first."""
        return tuple(sorted(self.layers, key=lambda layer: -layer.ms)[:count])

    def share(self, layer: LayerTime) -> float:
        """The part of all layers' time that one takes."""
        return layer.ms / self.ms if self.ms else 0.0

    def nodes_of(self, layer: LayerTime) -> tuple[NodeRecord, ...]:
        """What the report knows about the nodes of a layer."""
        known = {node.name: node for node in self.report.nodes}
        return tuple(known[name] for name in layer.nodes if name in known)

    def summary(self) -> str:
        """One line: what was measured, and where."""
        tensorrt = self.executor == OF_TENSORRT
        whose = "layers of TensorRT's" if tensorrt else f"layers of the network on the executor {self.executor!r}"
        return f"{len(self.layers):,} {whose}: {self.ms:.3f} ms, medians of {self.calls} calls on {self.device}"

    @property
    def caution(self) -> str:
        """What the times do not say, or ""."""
        if self.executor == OF_TENSORRT:
            return ""
        return (
            f"These are times of the executor {self.executor!r}, not of TensorRT: they say nothing of a GPU."
            " For TensorRT's, profile where a GPU is, with the model on it."
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, as what JSON can say; ``docs/report.schema.json`` describes it."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "summary": self.summary(),
            "caution": self.caution,
            "executor": self.executor,
            "device": self.device,
            "calls": self.calls,
            "inputs": list(self.inputs),
            "ms": self.ms,
            "layers": [{**dataclasses.asdict(layer), "share": self.share(layer)} for layer in self.layers],
            "versions": dict(self.report.versions),
            "model": self.report.to_dict(),
        }

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict`, as text."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_html(self) -> str:
        """One self-contained page: the costliest layers as bars, each with its nodes; below, the report's page."""
        summary = self.summary()
        return render_page(f"trtplug: {summary}", {**self.to_dict(), "shares": self.report.shares, "ops": []})

    def print(self, file: Any = None, *, layers: int = COSTLIEST) -> None:
        """Prints the costliest layers as a table to a file, or to standard output."""
        from rich.console import Console

        self._render(Console(file=file), layers)

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        self._render(Console(file=text, width=120, color_system=None), COSTLIEST)
        return text.getvalue()

    def _render(self, console: Console, count: int) -> None:
        from trtplug.report_tables import render_profile

        render_profile(self, console, count)


def profiled(compiled: CompiledModule, run: Callable[[], Any], flat: Sequence[Any], calls: int) -> Profile:
    """Calls a module once, and each of its engines `calls` times with what it was given.

    Args:
        compiled: the module.
        run: calls it.
        flat: what it is called with, flat.
        calls: over which medians are taken.

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
            mine = nodes.get(name, ())
            made_of = origins(module.inspect(), mine)
            for layer, ms in module.profile(inputs, calls):
                found = made_of.get(layer) or origins({"Layers": [layer]}, mine)[layer]  # of another profile, say
                layers.append(LayerTime(name, layer, ms, found))
    names = zip(compiled.lowered.input_names, flat, strict=True)
    words = tuple(f"{name}: {_words(value)}" for name, value in names)
    device = next((value.device for value in flat if isinstance(value, torch.Tensor)), torch.device("cpu"))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return Profile(tuple(layers), compiled.report.executor, where, calls, words, compiled.report)


def _words(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return repr(value)
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
