"""Running lowering passes, and holding each to what it promises."""

from __future__ import annotations

import dataclasses
import operator
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx

from trtplug.errors import LoweringError
from trtplug.lowering import graphs
from trtplug.lowering.value import PassRecord
from trtplug.lowering.verify import Verifier
from trtplug.settings import Settings
from trtplug_registry import LoweringPass, PluginWarning, take_notes, unknown_name


class PassRunner:
    """Runs passes over one graph module.

    After each pass the graph is linted and its placeholders and outputs are compared. A pass that breaks the graph,
    changes what it must keep, or raises is undone with one `PluginWarning` that names it.

    Args:
        settings: what passes that read settings are given.
        strict: raise `LoweringError` instead of undoing.
        verifier: compares numbers after each pass; a difference raises `LoweringError`.
    """

    def __init__(
        self, graph_module: fx.GraphModule, settings: Settings, *, strict: bool, verifier: Verifier | None
    ) -> None:
        self.graph_module, self.strict, self.verifier = graph_module, strict, verifier
        self.settings = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
        self.records: list[PassRecord] = []
        self.removed: dict[str, str] = {}
        """Nodes that are gone, and the pass that removed each."""

    def run(self, passes: Iterable[LoweringPass]) -> None:
        """Runs passes in the order given. A failing one is undone by running those before it once more."""
        snapshot = _Snapshot(self.graph_module)
        done: list[LoweringPass] = []
        for item in passes:
            if self._run(item):
                done.append(item)
                continue
            snapshot.restore(self.graph_module)
            snapshot = _Snapshot(self.graph_module)
            for earlier in done:
                self._call(earlier)
            take_notes(self.graph_module)  # they were recorded before

    def step(self, identifier: str, function: Callable[[fx.GraphModule], Any]) -> Any:
        """A step of the stage itself: recorded and verified, but not undone."""
        start, before = time.perf_counter(), _fingerprint(self.graph_module.graph)
        result = function(self.graph_module)
        after = _fingerprint(self.graph_module.graph)
        seconds = time.perf_counter() - start
        self.records.append(PassRecord(identifier, seconds, len(before), len(after), before != after))
        if self.verifier is not None and before != after:
            self.verifier.check(self.graph_module, identifier)
        return result

    def _run(self, item: LoweringPass) -> bool:
        """Runs a pass; False if it is to be undone."""
        start = time.perf_counter()
        before, promise = _fingerprint(self.graph_module.graph), _promise(self.graph_module)
        problem, cause, changed = "", None, False
        claimed: Any = None
        try:
            claimed = self._call(item)
            changed = before != _fingerprint(self.graph_module.graph)
            problem = self._problem(claimed, changed, promise)
        except Exception as error:
            problem, cause = f"it raised {type(error).__name__}: {error}", error
        if problem and self.strict:
            raise LoweringError(f"lowering pass {item.id!r}: {problem}") from cause
        if problem:
            warnings.warn(f"lowering pass {item.id!r} is undone: {problem}", PluginWarning, stacklevel=5)
            changed = False
        elif changed and claimed is False:
            message = f"lowering pass {item.id!r} changed the graph, but returned False"
            if self.strict:
                raise LoweringError(message)
            warnings.warn(message, PluginWarning, stacklevel=5)
        after = [name for name, *_ in before] if problem else [node.name for node in self.graph_module.graph.nodes]
        for name in {name for name, *_ in before} - set(after):
            self.removed[name] = item.id
        seconds, notes = time.perf_counter() - start, take_notes(self.graph_module)
        applied = {} if problem else dict(notes.applied)
        self.records.append(
            PassRecord(item.id, seconds, len(before), len(after), changed, problem, applied, dict(notes.declined))
        )
        if self.verifier is not None and changed:
            self.verifier.check(self.graph_module, item.id, rounds=item.rounds)
        return not problem

    def _call(self, item: LoweringPass) -> Any:
        for name in item.settings:
            if name not in self.settings:
                raise unknown_name("setting", name, self.settings)
        return item.function(self.graph_module, **{name: self.settings[name] for name in item.settings})

    def _problem(self, claimed: Any, changed: bool, promise: Any) -> str:
        if not isinstance(claimed, bool):
            return f"it returned {claimed!r}; a pass returns whether it changed the graph"
        if not changed:
            return ""
        return _broken(self.graph_module) or _unkept(promise, _promise(self.graph_module))


class _Snapshot:
    """A graph and the attributes of its module, as they were."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.graph = fx.Graph(graph_module.graph.owning_module)
        self.graph._codegen = graph_module.graph._codegen
        image: dict[fx.Node, fx.Node] = {}
        for node in graph_module.graph.nodes:
            new = image[node] = self.graph.node_copy(node, lambda source: image[source])
            new.name = node.name
        self.attributes = [
            (module, dict(module._parameters), dict(module._buffers), dict(module._modules))
            for module in graph_module.modules()
        ]

    def restore(self, graph_module: fx.GraphModule) -> None:
        for module, parameters, buffers, modules in self.attributes:
            held: tuple[tuple[Any, Any], ...] = (
                (parameters, module._parameters),
                (buffers, module._buffers),
                (modules, module._modules),
            )
            for before, now in held:
                now.clear()
                now.update(before)
        graph_module._graph = self.graph
        self.graph.owning_module = graph_module


def _fingerprint(graph: fx.Graph) -> list[tuple[Any, ...]]:
    """Name, target and wiring of each node in order: equal exactly where the graph is the same."""
    return [(node.name, node.target, node.args, node.kwargs) for node in graph.nodes]  # args are never changed in place


def _promise(graph_module: fx.GraphModule) -> tuple[Any, Any]:
    """What a pass must keep: names, shapes and dtypes of inputs and outputs."""
    graph = graph_module.graph
    inputs = [(node.name, _described(node)) for node in graph.nodes if node.op == "placeholder"]
    results: Any = graphs.output_node(graph).args[0]
    return inputs, [_described(result) for result in results] if isinstance(results, list | tuple) else results


def _described(value: Any) -> Any:
    if not isinstance(value, fx.Node):
        return value
    val = value.meta.get("val")
    if isinstance(val, torch.Tensor):
        sizes: Any = val.shape
        return (val.dtype, tuple(size if type(size) is int else size.node.expr for size in sizes))
    return (type(val), val.node.expr) if isinstance(val, torch.SymInt) else type(val)


def _unkept(before: tuple[Any, Any], after: tuple[Any, Any]) -> str:
    (inputs, results), (new_inputs, new_results) = before, after
    if inputs != new_inputs:
        return f"the inputs were {inputs} and are {new_inputs}"
    if not isinstance(new_results, list) or len(results) != len(new_results):
        return f"there were {len(results)} outputs, now the output is {new_results}"
    for place, (one, two) in enumerate(zip(results, new_results)):
        if one != two:
            return f"output {place} was {one} and is {two}"
    return ""


def _broken(graph_module: fx.GraphModule) -> str:
    """Why the graph is not well formed, or ""."""
    graph = graph_module.graph
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # lint warns of attributes that are no parameter, buffer or module
            graph.lint()
    except Exception as error:
        return f"the graph is broken: {error}"
    for node in graph.nodes:
        if node.op == "call_function" and "val" not in node.meta and node.users and node.target is not operator.getitem:
            return f"the new node {node.name!r} ({node.target}) has no meta['val']"
    return ""
