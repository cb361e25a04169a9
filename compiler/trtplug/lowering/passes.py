"""Running lowering passes, and holding each to what it promises."""

from __future__ import annotations

import dataclasses
import operator
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from torch import fx

from trtplug.errors import LoweringError
from trtplug.lowering.dump import GraphDump
from trtplug.lowering.state import State, Undo, promise, replacements, unkept
from trtplug.lowering.value import PassRecord, Removal
from trtplug.lowering.verify import Verifier
from trtplug.settings import Settings
from trtplug_registry import LoweringPass, PluginWarning, take_notes, unknown_name
from trtplug_registry.errors import raised


class PassRunner:
    """Runs passes over one graph module.

    After each pass the graph is linted and its placeholders and outputs are compared. A pass that breaks the graph,
    changes what it must keep, or raises is undone with one `PluginWarning` that names it.

    Args:
        settings: what passes that read settings are given.
        strict: raise `LoweringError` instead of undoing.
        verifier: compares numbers after each pass; a difference raises `LoweringError`.
        dump: where graphs are written, if at all.
    """

    def __init__(
        self,
        graph_module: fx.GraphModule,
        settings: Settings,
        *,
        strict: bool,
        verifier: Verifier | None,
        dump: GraphDump | None = None,
    ) -> None:
        self.graph_module, self.strict, self.verifier, self.dump = graph_module, strict, verifier, dump
        self.settings = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
        self.records: list[PassRecord] = []
        self.removed: dict[str, Removal] = {}
        self._state = State(graph_module)
        if dump is not None:
            count = len(self._state.nodes)
            dump.write(graph_module, PassRecord("lower:lift", 0.0, count, count, True))

    def run(self, passes: Iterable[LoweringPass]) -> None:
        """Runs passes in the order given."""
        for item in passes:
            self._run(item)

    def step(self, identifier: str, function: Callable[[fx.GraphModule], Any]) -> Any:
        """A step of the stage itself: recorded and verified, but not undone."""
        start, before = time.perf_counter(), self._state
        result = function(self.graph_module)
        self._state = State.after(self.graph_module, before)
        self._record(identifier, start, before, rounds=False)
        return result

    def _run(self, item: LoweringPass) -> None:
        start, before = time.perf_counter(), self._state
        misspelt = any(name not in self.settings for name in item.settings)  # to be told on whatever graph
        if not misspelt and not item.looks_for(before.called):
            self._record(item.id, start, before, rounds=item.rounds)
            return
        undo, kept = Undo(self.graph_module, before), promise(self.graph_module)
        problem, cause, claimed = "", None, None
        try:
            claimed = self._call(item)
            self._state = State.after(self.graph_module, before)
            problem = self._problem(claimed, before, kept)
        except (Exception, SystemExit) as error:  # a plugin's pass may raise anything
            problem, cause = f"it raised {raised(error)}", error
        if problem and self.strict:
            raise LoweringError(f"lowering pass {item.id!r}: {problem}") from cause
        if problem:
            warnings.warn(f"lowering pass {item.id!r} is undone: {problem}", PluginWarning, stacklevel=5)
            undo.restore(self.graph_module)
            self._state = State(self.graph_module)
        elif claimed is False and self._state != before:
            message = f"lowering pass {item.id!r} changed the graph, but returned False"
            if self.strict:
                raise LoweringError(message)
            warnings.warn(message, PluginWarning, stacklevel=5)
        self._record(item.id, start, before, problem, rounds=item.rounds)

    def _call(self, item: LoweringPass) -> Any:
        for name in item.settings:
            if name not in self.settings:
                raise unknown_name("setting", name, self.settings)
        return item.function(self.graph_module, **{name: self.settings[name] for name in item.settings})

    def _problem(self, claimed: Any, before: State, kept: Any) -> str:
        if not isinstance(claimed, bool):
            return f"it returned {claimed!r}; a pass returns whether it changed the graph"
        if self._state == before:
            return ""
        return _broken(self.graph_module) or unkept(kept, promise(self.graph_module))

    def _record(self, identifier: str, start: float, before: State, problem: str = "", *, rounds: bool) -> None:
        after, notes = self._state, take_notes(self.graph_module)
        changed = not problem and after != before
        for name, instead in replacements(before, after).items() if changed else ():
            self.removed[name] = Removal(identifier, instead)
        record = PassRecord(
            identifier,
            time.perf_counter() - start,
            len(before.nodes),
            len(after.nodes),
            changed,
            problem,
            {} if problem else dict(notes.applied),
            dict(notes.declined),
        )
        self.records.append(record)
        if changed and self.dump is not None:
            self.dump.write(self.graph_module, record)
        if changed and self.verifier is not None:
            self.verifier.check(self.graph_module, identifier, rounds=rounds)


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
