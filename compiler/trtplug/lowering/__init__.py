"""The lower stage: an exported program becomes the graph that TensorRT and Torch divide among themselves.

1. Parameters, buffers and constants become ``get_attr`` nodes, and writes become values. For most graphs that is done
   in place; only for the rest is the program traced again (``lower:retrace`` in the record, which takes seconds).
2. The early passes see the graph as exported.
3. What the registry refuses is decomposed and asked about again.
4. The late passes see what will be partitioned.
5. What depends on strides is made independent of them: an engine's outputs, and those of a decomposition, are laid out
   in memory otherwise than eager's.

The graphs that conditionals and loops call go through the same before the graph that calls them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from typing import Literal

import sympy
from torch import fx
from torch._ops import OpOverload

from trtplug.collector import collector_paused
from trtplug.lowering.bodies import lower_bodies
from trtplug.lowering.calls import apply_mutations, flatten_inputs, run_lowered
from trtplug.lowering.decompose import decompose
from trtplug.lowering.dump import GraphDump
from trtplug.lowering.lift import Lifted, lift
from trtplug.lowering.passes import PassRunner
from trtplug.lowering.strides import free_of_strides
from trtplug.lowering.value import Fate, Lowered, Mutation, PassRecord, Removal
from trtplug.lowering.verify import Verifier
from trtplug.naming import op_name
from trtplug.profiles import named_sizes, narrowed
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
    "Removal",
    "apply_mutations",
    "decompose",
    "flatten_inputs",
    "lower",
    "lower_lifted",
    "run_lowered",
]

DEFAULTS = Settings()


@collector_paused()
def lower(program: Program, registry: Registry, settings: Settings = DEFAULTS, *, strict: bool = False) -> Lowered:
    """Lowers a program for what the registry supports. The program is not changed, and its tensors are not copied.

    Args:
        program: from `trace` or `as_program`.
        registry: its converters decide what is kept whole; its passes and decompositions are used.
        settings: what passes that read settings are given; ``verify`` runs the graph on drawn inputs after every pass,
            and compares; ``dump_graphs`` writes the graph after every pass that changes it.
        strict: raise where a pass would be undone with a warning.

    Raises:
        LoweringError: under ``strict``, a pass breaks the graph or what it promises to keep; with ``verify``, a pass
            changes a result; or the program has effects that cannot be expressed as values.
        SettingsError, UnknownNameError: the settings' profiles do not fit the program's inputs.
    """
    start = time.perf_counter()
    lifted = lift(program.exported)
    name = "lower:retrace" if lifted.retraced else "lower:lift"
    sizes = len(program.exported.graph.nodes), len(lifted.graph_module.graph.nodes)
    first = PassRecord(name, time.perf_counter() - start, *sizes, True)
    values = [node.meta.get("val") for node in lifted.graph_module.graph.find_nodes(op="placeholder")]
    nameable = named_sizes(list(zip(lifted.input_names, values, strict=True)), program.ranges)
    ranges = narrowed(program.ranges, nameable, settings.profiles)
    lowered = lower_lifted(lifted, ranges, registry, settings, strict=strict, records=(first,))
    return dataclasses.replace(lowered, branches=program.branches)


@collector_paused()
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
    nodes = lifted.graph_module.graph.nodes
    original = {node.name: op_name(node) for node in nodes if isinstance(node.target, OpOverload)}
    dump = GraphDump(settings.dump_graphs) if settings.dump_graphs else None

    def rewrite(graph_module: fx.GraphModule, dump: GraphDump | None = None) -> tuple[PassRunner, dict[str, Fate]]:
        verifier = Verifier(graph_module, ranges) if settings.verify else None
        runner = PassRunner(graph_module, settings, strict=strict, verifier=verifier, dump=dump)
        runner.run(item for item in registry.passes if item.phase == "early")
        fates = runner.step("lower:decompose", lambda module: decompose(module, registry))
        runner.run(item for item in registry.passes if item.phase == "late")
        runner.step("lower:strides", free_of_strides)
        return runner, fates

    lower_bodies(lifted.graph_module, rewrite)
    runner, fates = rewrite(lifted.graph_module, dump)
    lifted.graph_module.recompile()
    return Lowered(
        lifted.graph_module,
        ranges,
        lifted.in_spec,
        lifted.out_spec,
        lifted.input_names,
        lifted.mutations,
        (*records, *runner.records),
        _history(lifted.graph_module.graph, original, _asked_again(lifted, registry, fates), runner.removed),
        lifted.constants,
    )


def _asked_again(lifted: Lifted, registry: Registry, fates: Mapping[str, Fate]) -> dict[str, Fate]:
    """The verdicts on what stayed whole, as they are after the late passes: they may have made a call acceptable."""
    found = dict(fates)
    for node in lifted.graph_module.graph.nodes:
        fate = fates.get(node.name)
        if fate is not None and fate.kind in ("kept", "torch"):
            support = registry.lookup(node)
            kind: Literal["kept", "torch"] = "torch" if support.converter is None else "kept"
            by = str(support) if support.converter is None else support.converter.id
            if (kind, by) != (fate.kind, fate.by):
                found[node.name] = Fate(kind, by, fate.nodes)
    return found


def _history(
    graph: fx.Graph, original: Mapping[str, str], fates: Mapping[str, Fate], removed: Mapping[str, Removal]
) -> dict[str, Fate]:
    """The decisions about each exported call, with what later passes did to its nodes."""
    present = {node.name for node in graph.nodes}

    def standing(names: Iterable[str], seen: frozenset[str] = frozenset()) -> dict[str, None]:
        """The nodes of the graph that stand for these, in order."""
        found: dict[str, None] = {}
        for name in names:
            if name in present:
                found[name] = None
            elif name not in seen:
                fate, gone = fates.get(name), removed.get(name)
                instead = gone.instead if gone else fate.nodes if fate else ()
                found |= standing(instead, seen | {name})
        return found

    history: dict[str, Fate] = {}
    for name, op in original.items():
        fate = fates.get(name)
        if fate is None:
            if name in removed and name not in present:
                history[name] = Fate("rewritten", removed[name].by, tuple(standing([name])), op)
            continue
        if fate.nodes and not any(node in present for node in fate.nodes):
            by = next((removed[node].by for node in fate.nodes if node in removed), fate.by)
            history[name] = Fate("rewritten", by, tuple(standing(fate.nodes)), op)
        else:
            history[name] = Fate(fate.kind, fate.by, tuple(standing(fate.nodes)), op)
    return history
