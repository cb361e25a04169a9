"""What a compilation warns of, in words: plugins in each other's way, converters at fault, numbers that are rounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.fx import Graph

from trtplug.engine import CompiledEngine
from trtplug.settings import Settings
from trtplug.tf32 import CANNOT_HOLD, PROCESS, multiplies_float32
from trtplug_registry import Executor, Registry


def conflicts(registry: Registry, graph: Graph) -> Iterator[str]:
    """Converters that refuse each other for an op of the graph."""
    present = {node.target for node in graph.nodes}
    pairs = {frozenset(c.id for c in pair) for op, ps in registry.conflicts.items() if op in present for pair in ps}
    if pairs:
        text = "; ".join(sorted(" and ".join(sorted(pair)) for pair in pairs))
        yield f"plugins claim the same op with equal priority, so neither is used: {text}. Set prefer=[...]"


def faults(registry: Registry) -> Iterator[str]:
    """What the registry has found out about converters while it was asked."""
    for converter, fault in sorted(registry.faults.items(), key=lambda item: item[0].id):
        yield f"converter {converter.id} of plugin {converter.plugin!r} is refused: {fault}"


def rounding(settings: Settings, engines: Sequence[CompiledEngine], executor: Executor) -> Iterator[str]:
    """Products that a GPU rounds to TF32 although the settings say no."""
    if executor.device != "cuda" or settings.tf32 or not PROCESS.rounds:
        return
    if any(multiplies_float32(engine.reference) for engine in engines):
        yield f"{CANNOT_HOLD} in this process: {PROCESS.why}"
