"""The lower stage: an exported program becomes the graph that TensorRT and Torch divide among themselves.

1. Parameters, buffers and constants become ``get_attr`` nodes, and writes become values. For most graphs that is done
   in place; only for the rest is the program traced again (``lower:retrace`` in the record, which takes seconds).
2. The early passes see the graph as exported.
3. What the registry refuses is decomposed and asked about again.
4. The late passes see what will be partitioned.
5. What depends on strides is made independent of them: an engine's outputs, and those of a decomposition, are laid out
   in memory otherwise than eager's.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

import sympy
from torch import fx

from trtplug.lowering.calls import apply_mutations, flatten_inputs, run_lowered
from trtplug.lowering.decompose import decompose
from trtplug.lowering.lift import Lifted, lift
from trtplug.lowering.passes import PassRunner
from trtplug.lowering.strides import free_of_strides
from trtplug.lowering.value import Fate, Lowered, Mutation, PassRecord
from trtplug.lowering.verify import Verifier
from trtplug.ranges import Range
from trtplug.settings import Settings
from trtplug.tracing import Program
from trtplug_registry import Registry

__all__ = [
    "Fate",
    "Lifted",
    "Lowered",
    "Mutation",
    "PassRecord",
    "PassRunner",
    "apply_mutations",
    "decompose",
    "flatten_inputs",
    "lower",
    "lower_lifted",
    "run_lowered",
]

DEFAULTS = Settings()


def lower(program: Program, registry: Registry, settings: Settings = DEFAULTS, *, strict: bool = False) -> Lowered:
    """Lowers a program for what the registry supports. The program is not changed, and its tensors are not copied.

    Args:
        program: from `trace` or `as_program`.
        registry: its converters decide what is kept whole; its passes and decompositions are used.
        settings: what passes that read settings are given; ``verify`` runs the graph on drawn inputs after every pass,
            and compares.
        strict: raise where a pass would be undone with a warning.

    Raises:
        LoweringError: under ``strict``, a pass breaks the graph or what it promises to keep; with ``verify``, a pass
            changes a result; or the program has effects that cannot be expressed as values.
    """
    start = time.perf_counter()
    lifted = lift(program.exported)
    name = "lower:retrace" if lifted.retraced else "lower:lift"
    sizes = len(program.exported.graph.nodes), len(lifted.graph_module.graph.nodes)
    first = PassRecord(name, time.perf_counter() - start, *sizes, True)
    return lower_lifted(lifted, program.ranges, registry, settings, strict=strict, records=(first,))


def lower_lifted(
    lifted: Lifted,
    ranges: Mapping[sympy.Symbol, Range],
    registry: Registry,
    settings: Settings = DEFAULTS,
    *,
    strict: bool = False,
    records: tuple[PassRecord, ...] = (),
) -> Lowered:
    """The rest of `lower`, from a graph whose parameters are attributes. The graph is changed in place.

    Args:
        lifted: from `lift`, or made of a graph that did not come from ``torch.export``.
        ranges: of the symbols in the inputs' shapes.
        registry, settings, strict: as for `lower`.
        records: what was done before.

    Raises:
        LoweringError: as `lower`.
    """
    original = {node.name for node in lifted.graph_module.graph.nodes if node.op == "call_function"}
    verifier = Verifier(lifted.graph_module, ranges) if settings.verify else None
    runner = PassRunner(lifted.graph_module, settings, strict=strict, verifier=verifier)
    runner.run(item for item in registry.passes if item.phase == "early")
    fates = runner.step("lower:decompose", lambda module: decompose(module, registry))
    runner.run(item for item in registry.passes if item.phase == "late")
    runner.step("lower:strides", free_of_strides)
    lifted.graph_module.recompile()
    return Lowered(
        lifted.graph_module,
        ranges,
        lifted.in_spec,
        lifted.out_spec,
        lifted.input_names,
        lifted.mutations,
        (*records, *runner.records),
        _history(lifted.graph_module.graph, original, fates, runner.removed),
        lifted.constants,
    )


def _history(
    graph: fx.Graph, original: set[str], fates: Mapping[str, Fate], removed: Mapping[str, str]
) -> dict[str, Fate]:
    """The decisions about each exported call, with what later passes did to its nodes."""
    present = {node.name for node in graph.nodes}
    history: dict[str, Fate] = {}
    for name in original:
        fate = fates.get(name)
        if fate is None:
            if name in removed and name not in present:
                history[name] = Fate("rewritten", removed[name])
            continue
        left = tuple(node for node in fate.nodes if node in present)
        if left or not fate.nodes:
            history[name] = dataclasses.replace(fate, nodes=left)
        else:
            by = next((removed[node] for node in fate.nodes if node in removed), fate.by)
            history[name] = Fate("rewritten", by)
    return history
