"""One graph of Dynamo's, compiled; where a parameter was changed, the engines that hold it are built again."""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from trtplug.cache import Kept
from trtplug.compilation import Compilation
from trtplug.executors import check_options, pick_executor
from trtplug.inputs import shared_memory, without_autocast
from trtplug.jit.session import Session
from trtplug.jit.sizes import limited
from trtplug.jit.state import Stamps, is_state
from trtplug.jit.tracing import fake_inputs, trace
from trtplug.lowering import Lifted, Mutation, apply_mutations, graphs, lower_lifted
from trtplug.naming import op_name, source_line
from trtplug.partition import link
from trtplug.report import CompilationReport, NodeRecord
from trtplug.reporting import once_loaded
from trtplug.turns import tracing_turn
from trtplug.versions import versions
from trtplug_registry import Reason, ReasonCode, free_name

_log = logging.getLogger(__name__)


class TorchOnlyWarning(UserWarning):
    """A graph runs in Torch as a whole, and why."""


def run_in_torch(graph_module: fx.GraphModule, session: Session, number: int, why: str) -> Callable[..., Any]:
    """The graph as Dynamo made it, with one warning and a report that gives the reason."""
    message = f"a graph of {len(graph_module.graph.nodes)} nodes runs in Torch: {why}"
    reasons = (Reason(ReasonCode.NOT_COMPILED, seen=why),)
    nodes = tuple(
        NodeRecord(node.name, op_name(node), None, "", reasons, source_line(node))
        for node in graph_module.graph.nodes
        if node.op.startswith("call_") and op_name(node) != "getitem"
    )
    report = CompilationReport(nodes, (), {}, versions=versions(), warnings=(message,))
    session.reports[number] = lambda: report
    warnings.warn(message, TorchOnlyWarning, stacklevel=3)
    run: Callable[..., Any] = graph_module.forward
    return run


@dataclasses.dataclass(frozen=True)
class _Built:
    """The graph compiled for the state that `stamps` tells of."""

    stamps: Stamps
    run: Callable[..., Any]


class Graph:
    """A graph of Dynamo's. Called with its inputs, state among them; returns a tuple.

    Raises:
        Exception: whatever tracing raises for a graph that it does not take.
    """

    def __init__(self, source: fx.GraphModule, example_inputs: Sequence[Any], session: Session) -> None:
        self._source, self._session = source, session
        placeholders = source.graph.find_nodes(op="placeholder")
        fakes = fake_inputs(placeholders, example_inputs)
        self._limits = limited([_name(node) for node in placeholders], fakes, session.settings.profiles)
        self._traced = trace(source, fakes)
        written = frozenset(self._traced.written)
        self._frozen = [
            place
            for place, node in enumerate(placeholders)
            if place not in written and is_state(node, example_inputs[place])
        ]
        self._number = session.number()
        self._kept: Kept | None = None
        self._lock = threading.Lock()
        self._built = self._build(example_inputs)

    def __call__(self, *inputs: Any) -> Any:
        built = self._built
        if not built.stamps.hold(inputs):
            built = self._again(inputs)
        if self._traced.written and shared_memory(self._traced.written, inputs):
            return self._source.forward(*inputs)
        if not self._limits.hold(inputs):
            return self._in_torch(inputs)
        return built.run(*inputs)

    def _in_torch(self, inputs: Sequence[Any]) -> Any:
        """A call that no optimization profile holds."""
        found = (inputs[place] for place in self._limits.places)
        given = ", ".join(str(list(value.shape)) for value in found if isinstance(value, torch.Tensor))
        profiles = ", ".join(map(repr, self._session.settings.profiles))
        warnings.warn(
            f"no optimization profile ({profiles}) holds a call with {given}: it runs in Torch",
            TorchOnlyWarning,
            stacklevel=3,
        )
        return self._source.forward(*inputs)

    def _again(self, inputs: Sequence[Any]) -> _Built:
        with self._lock:
            if not self._built.stamps.hold(inputs):
                _log.info("graph %d: a parameter was changed, so it is compiled again", self._number)
                self._built = self._build(inputs)
            return self._built

    def _build(self, inputs: Sequence[Any]) -> _Built:
        session, lifted = self._session, self._lift(inputs)
        stamps = Stamps(self._frozen, inputs, session.settings.weight_check)
        run = Compilation(session.settings, session.registry, None, self._kept)
        strict = session.settings.strict_plugins
        with run.stage("lower"), tracing_turn():
            lowered = lower_lifted(lifted, self._limits.ranges, session.registry, session.settings, strict=strict)
        device = next((value.device.type for value in inputs if isinstance(value, torch.Tensor)), "cpu")
        executor = pick_executor(session.registry, session.settings.executor, device)
        check_options(executor, session.settings.run_options)
        engines, runners = run.ready(lowered, executor)
        with run.stage("link"):
            linked = link(lowered.graph_module, run.parts, runners)
        self._kept = run.kept
        report = run.report(lowered, engines, executor.name)
        session.reports[self._number] = once_loaded(report, runners)
        _log.info("graph %d: %s", self._number, report.summary())
        _log.debug("graph %d:\n%s", self._number, report)
        frozen = frozenset(self._frozen)
        kept = [place for place in range(len(inputs)) if place not in frozen]

        def call(*inputs: Any) -> Any:
            flat = [inputs[place] for place in kept]
            with without_autocast():  # the casts are in the graph
                results = linked(*flat)
            return tuple(apply_mutations(lowered, flat, results) if lowered.mutations else results)

        return _Built(stamps, call)

    def _lift(self, inputs: Sequence[Any]) -> Lifted:
        """The traced graph with its state as attributes."""
        traced = self._traced
        graph_module = fx.GraphModule(traced.graph_module, graphs.copy_of(traced.graph_module.graph))
        placeholders = graph_module.graph.find_nodes(op="placeholder")
        for place in self._frozen:
            _freeze(graph_module, placeholders[place], inputs[place])
        kept = [place for place in range(len(placeholders)) if place not in set(self._frozen)]
        names = tuple(_name(placeholders[place]) for place in kept)
        mutations = tuple(Mutation("input", kept.index(place)) for place in traced.written)
        graph_module.recompile()
        _, spec = pytree.tree_flatten(((), {}))
        return Lifted(graph_module, spec, spec, names, mutations, {}, False)


def _name(node: fx.Node) -> str:
    """A local variable's name, where Dynamo made an input of it (``l_x_``)."""
    return re.sub(r"^l_(\w+)_$", r"\1", node.name, flags=re.IGNORECASE)


def _freeze(graph_module: fx.GraphModule, node: fx.Node, value: torch.Tensor) -> None:
    name = free_name(graph_module, f"state_{node.name}")
    graphs.assign(graph_module, name, value.detach())
    with graph_module.graph.inserting_before(node):
        constant = graph_module.graph.create_node("get_attr", name)
    constant.meta = dict(node.meta)
    node.replace_all_uses_with(constant)
    graph_module.graph.erase_node(node)
