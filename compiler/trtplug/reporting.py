"""Writing the report of a compilation: what became of every node, engine by engine."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from trtplug.collector import collector_paused
from trtplug.engine import CompiledEngine, EngineModule
from trtplug.insight import flops_of, picture, suggest
from trtplug.lowering import Lowered
from trtplug.lowering.decompose import UNFAITHFUL, WHY_NOT
from trtplug.naming import op_name, source_line
from trtplug.partition import Block, Partition
from trtplug.partition.value import Value, is_getitem, value_of
from trtplug.profiles import named_sizes
from trtplug.ranges import size_name
from trtplug.report import CompilationReport, EngineRecord, NodeRecord, OriginalRecord, SizeRecord
from trtplug.settings import Settings
from trtplug.versions import versions
from trtplug_registry import Reason, ReasonCode, Registry, Unsupported, describe_value, tensors_in


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a compilation knows at its end.

    Attributes:
        registry, settings: what decided.
        parts: the partition.
        quarantine: nodes that failed to convert or build, and how.
        stages: seconds of each stage.
        warnings: what the user was warned of.
        cached: the engines that were not built, by the identity of their plans.
    """

    registry: Registry
    settings: Settings
    parts: Partition
    quarantine: Mapping[Node, Reason]
    stages: Mapping[str, float]
    warnings: tuple[str, ...]
    cached: frozenset[int] = frozenset()


@collector_paused()
def make_report(
    facts: Facts,
    lowered: Lowered,
    engines: Sequence[CompiledEngine],
    seconds: Mapping[int, float],
    executor: str,
    *,
    suggestions: bool,
) -> CompilationReport:
    """The report of a compilation.

    Args:
        facts: of its end.
        lowered: what was partitioned.
        engines: of its blocks; none in a dry run.
        seconds: that each took, by the identity of its plan.
        executor: what runs them; "" in a dry run.
        suggestions: also what would bring more nodes into TensorRT; each is partitioned once more.
    """
    graph, parts = lowered.graph_module.graph, facts.parts
    engine_of = {node: block.index for block in parts.blocks for node in block.nodes}
    torch_nodes = frozenset(parts.torch_nodes)
    computing = [n for n in graph.nodes if (n in engine_of and _computes(n)) or n in torch_nodes]
    flops = flops_of(computing) if suggestions else {}
    origins, names = _origins(lowered), _symbol_names(lowered)
    units, crossings = picture(graph, parts, flops)
    ideas = suggest(graph, facts.registry, facts.settings, parts, flops, facts.quarantine) if suggestions else ()
    return CompilationReport(
        tuple(
            _node_record(facts, node, engine_of.get(node), origins.get(node.name, ""), flops.get(node, 0))
            for node in computing
        ),
        tuple(
            _engine_record(block, lowered, engines[block.index] if engines else None, seconds, facts.cached, names)
            for block in parts.blocks
        ),
        dict(facts.stages),
        tuple(dataclasses.asdict(item) for item in lowered.passes),
        executor,
        versions(),
        facts.warnings,
        units,
        crossings,
        ideas,
        tuple(OriginalRecord(name, fate.op, fate.kind, fate.by, fate.nodes) for name, fate in lowered.history.items()),
        facts.registry.pass_rulings,
    )


def _engine_record(
    block: Block,
    lowered: Lowered,
    engine: CompiledEngine | None,
    seconds: Mapping[int, float],
    cached: frozenset[int],
    names: Mapping[Any, str],
) -> EngineRecord:
    return EngineRecord(
        block.index,
        tuple(node.name for node in block.compute_nodes),
        tuple(_words(node, lowered) for node in (*block.inputs, *block.sizes)),
        tuple(_words(node, lowered) for node in block.outputs),
        engine.num_layers if engine else 0,
        len(engine.plan) if engine else 0,
        seconds.get(id(engine.plan), 0.0) if engine else 0.0,
        engine is not None and id(engine.plan) in cached,
        _profiles(block, lowered, names),
    )


def _symbol_names(lowered: Lowered) -> dict[Any, str]:
    """Of each symbol what a profile in the settings calls it: the user's name, or an input and axis, or an input."""
    placeholders = lowered.graph_module.graph.find_nodes(op="placeholder")
    values = [node.meta.get("val") for node in placeholders]
    named = named_sizes(list(zip(lowered.input_names, values, strict=True)), lowered.ranges)
    found = [(name, size) for name, size in named.items() if size in lowered.ranges]
    inputs_last = sorted(found, key=lambda item: item[0] in lowered.input_names)
    return {size: name for name, size in reversed(inputs_last)}


def _profiles(block: Block, lowered: Lowered, names: Mapping[Any, str]) -> tuple[tuple[SizeRecord, ...], ...]:
    """The optimization profiles of a block: of each the ranges of the symbols in its inputs' sizes."""
    values = [node.meta.get("val") for node in (*block.inputs, *block.sizes)]
    sizes = [size for value in values for size in (value.shape if isinstance(value, torch.Tensor) else (value,))]
    found = [size.node.expr.free_symbols for size in sizes if isinstance(size, torch.SymInt)]
    symbols = sorted(lowered.ranges.keys() & set().union(*found), key=str)
    spans = {names.get(symbol, str(symbol)): lowered.ranges[symbol] for symbol in symbols}
    count = max((len(span.parts) or 1 for span in spans.values()), default=0)
    made = (tuple(SizeRecord(name, *span.part(n)) for name, span in spans.items()) for n in range(count))
    return tuple(dict.fromkeys(made))


def once_loaded(report: CompilationReport, runners: Sequence[EngineModule]) -> Callable[[], CompilationReport]:
    """The report, of each engine with what it is once it is loaded. TensorRT is asked for that with the first call.

    Args:
        report: of a compilation.
        runners: of its engines, in order.
    """

    @functools.cache
    def whole() -> CompilationReport:
        engines = (
            dataclasses.replace(record, loaded=runner.loaded(record.nodes))
            for record, runner in zip(report.engines, runners, strict=True)
        )
        return dataclasses.replace(report, engines=tuple(engines))

    return whole


def _node_record(facts: Facts, node: Node, engine: int | None, origin: str, flops: int) -> NodeRecord:
    support = facts.registry.lookup(node)
    converter = support.converter.id if support.converter else ""
    reasons: tuple[Reason, ...] = ()
    if engine is None:
        converter = ""
        reasons = _reasons(facts, node, support)
    why, line = node.meta.get("precision", ""), source_line(node)
    return NodeRecord(node.name, op_name(node), engine, converter, reasons, line, origin, flops, dtypes_of(node), why)


def dtypes_of(node: Node) -> str:
    """The dtypes of a node's results, each once."""
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        return str(value.dtype).removeprefix("torch.")
    results = tensors_in(describe_value(value))
    return ", ".join(dict.fromkeys(str(facts.dtype).removeprefix("torch.") for facts in results))


def _reasons(facts: Facts, node: Node, support: Any) -> tuple[Reason, ...]:
    if node in facts.quarantine:
        return (facts.quarantine[node],)
    if isinstance(support, Unsupported):
        return tuple(_explained(reason, node.meta.get(WHY_NOT)) for reason in support.reasons)
    size = facts.parts.too_small.get(node)
    if size is not None:
        wanted = f"at least min_block_size={facts.settings.min_block_size}"
        return (Reason(ReasonCode.BLOCK_TOO_SMALL, required=wanted, seen=f"its block has {size} compute node(s)"),)
    return (_outside(node),)


def _explained(reason: Reason, why_not: str | None) -> Reason:
    """With why the call is not written with other ops, where nobody converts it.

    What the op is comes first (it draws random numbers), unless only Torch's metadata is in the way.
    """
    if reason.code is not ReasonCode.NO_CONVERTER or not why_not or (reason.because and why_not != UNFAITHFUL):
        return reason
    return dataclasses.replace(reason, because=why_not)


def _outside(node: Node) -> Reason:
    """Why a call that is taken is in no engine all the same: what it reads or returns passes no engine's bounds."""
    for source in (node, *node.all_input_nodes):
        what, verb = ("it", "returns") if source is node else (source.name, "makes")
        kind = value_of(source)
        if kind is Value.SCALAR or (kind in (Value.SIZE, Value.NUMBER) and source is node):
            wrong = "a number that is no size"
        elif kind is Value.OTHER and source.op != "get_attr" and not is_getitem(source):
            wrong = "several values, which somebody reads as a whole"
        else:
            continue
        required = "tensors and sizes: nothing else passes between an engine and Torch"
        return Reason(ReasonCode.NOT_INTERFACEABLE, required=required, seen=f"{what} {verb} {wrong}")
    return Reason(ReasonCode.NOT_INTERFACEABLE, seen="it depends on no input, and no engine reads it")


def _origins(lowered: Lowered) -> dict[str, str]:
    """For each node that lowering made of another: of which, and whose decision that was."""
    return {
        name: f"{original}, {fate.kind} by {fate.by}"
        for original, fate in lowered.history.items()
        if fate.kind in ("decomposed", "rewritten")
        for name in fate.nodes
        if name not in lowered.history
    }


def _computes(node: Node) -> bool:
    return node.op == "call_function" and not is_getitem(node)


def _words(node: Node, lowered: Lowered) -> str:
    """A tensor or size that enters or leaves an engine, with the user's names for its sizes."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return f"{node.name}: size {size_name(value, lowered.ranges)}"
    shape = ", ".join(size_name(size, lowered.ranges) for size in value.shape)
    return f"{node.name}: {str(value.dtype).removeprefix('torch.')}[{shape}]"
