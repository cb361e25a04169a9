"""What a compilation did, and why: one value that prints as a table, JSON or an HTML page."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from typing import Any

from trtplug.insight.picture import Crossing, Unit
from trtplug.insight.suggestions import Suggestion
from trtplug.inspection import LoadedRecord
from trtplug.page import share
from trtplug_registry import Reason, Ruling

FORMAT, VERSION = "trtplug-report", 1


@dataclasses.dataclass(frozen=True)
class NodeRecord:
    """One compute node of the lowered graph, and what became of it.

    Attributes:
        name: in the lowered graph.
        op: qualified name.
        engine: the index of the engine that it is in, or None where it stays in Torch.
        converter: who converts it, as ``plugin:target``, or "".
        reasons: why it stays in Torch; empty where it does not.
        source: the model's source line, where known.
        origin: what lowering did to get here, where it did anything.
        flops: its work by Torch's own counter, symbolic sizes at their hints; counted in a dry run only.
        dtype: of its results, such as ``"float16"``; of several, each once.
        precision: why that is not the precision that was asked for, where it is not.
    """

    name: str
    op: str
    engine: int | None
    converter: str = ""
    reasons: tuple[Reason, ...] = ()
    source: str = ""
    origin: str = ""
    flops: int = 0
    dtype: str = ""
    precision: str = ""


@dataclasses.dataclass(frozen=True)
class OriginalRecord:
    """One call of the exported graph, and what lowering made of it.

    Attributes:
        name, op: in the exported graph.
        became: ``kept``, ``decomposed``, ``rewritten`` or ``torch`` (left to Torch).
        by: whose decision that was: the converter's id, who brought the decomposition, the pass's id, or the reasons.
        nodes: names of the lowered graph's nodes that stand in its place.
    """

    name: str
    op: str
    became: str
    by: str
    nodes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SizeRecord:
    """A dynamic size in an optimization profile: by the user's name for it, or its symbol, what it ranges over."""

    name: str
    min: int
    opt: int
    max: int

    def __str__(self) -> str:
        same = self.min == self.max
        return f"{self.name}={self.min}" if same else f"{self.name}={self.min}..{self.opt}..{self.max}"


ADDED = {"added": True}
"""Of a field that reports had not at first: in a saved one it may be missing, and is then its default."""


@dataclasses.dataclass(frozen=True)
class EngineRecord:
    """One TensorRT block.

    Attributes:
        index: position in the order of execution.
        nodes: names of its compute nodes.
        inputs, outputs: names, dtypes and shapes, in words.
        layers: layers of the TensorRT network; 0 in a dry run.
        bytes: size of the serialized engine; 0 in a dry run.
        seconds: conversion and build, or how long it took to read it.
        cached: whether it was read from the cache instead of being built.
        profiles: its optimization profiles, each the dynamic sizes of its inputs; one where the settings name none,
            none of static shapes.
        loaded: what it is on the device that it was loaded on, where TensorRT runs it.
    """

    index: int
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: int = 0
    bytes: int = 0
    seconds: float = 0.0
    cached: bool = False
    profiles: tuple[tuple[SizeRecord, ...], ...] = dataclasses.field(default=(), metadata=ADDED)
    loaded: LoadedRecord | None = dataclasses.field(default=None, metadata=ADDED)


@dataclasses.dataclass(frozen=True)
class CompilationReport:
    """The whole compilation.

    Attributes:
        nodes: every compute node, in graph order.
        engines: every TensorRT block, in order of execution.
        stages: seconds of each stage, in the order in which they ended; ``lift`` runs beside others.
        passes: of each lowering pass its id, seconds, nodes before and after, whether it changed anything, how often
            its rules were applied, and what it declined to do, and why.
        executor: what runs the engines; "" in a dry run.
        versions: of trtplug, torch and TensorRT.
        warnings: what the user was warned of.
        units: engines, and groups of Torch nodes between them, in an order of execution.
        crossings: the tensors that go from one unit to another.
        suggestions: what would bring more nodes into TensorRT, the most gain first; asked for in a dry run only.
        originals: every call of the exported graph, and what lowering made of it.
        pass_rulings: what plugins and settings decided about the lowering passes: who disables, enables or orders
            which, why, and what overrules that.
    """

    nodes: tuple[NodeRecord, ...]
    engines: tuple[EngineRecord, ...]
    stages: Mapping[str, float]
    passes: tuple[Mapping[str, Any], ...] = ()
    executor: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    units: tuple[Unit, ...] = ()
    crossings: tuple[Crossing, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()
    originals: tuple[OriginalRecord, ...] = ()
    pass_rulings: tuple[Ruling, ...] = ()

    @property
    def torch_ops(self) -> tuple[NodeRecord, ...]:
        """The compute nodes left to Torch."""
        return tuple(node for node in self.nodes if node.engine is None)

    @property
    def share(self) -> float:
        """The fraction of compute nodes in TensorRT; 1.0 for a graph without compute nodes."""
        return 1.0 if not self.nodes else 1 - len(self.torch_ops) / len(self.nodes)

    @property
    def flop_share(self) -> float | None:
        """The fraction of the counted work in TensorRT; None where none was counted."""
        total = sum(node.flops for node in self.nodes)
        return sum(node.flops for node in self.nodes if node.engine is not None) / total if total else None

    @property
    def shares(self) -> list[dict[str, Any]]:
        """What part of the nodes, and of the work, is in TensorRT: a name, the parts, and the same in words."""
        inside = len(self.nodes) - len(self.torch_ops)
        found = [share("nodes", {"converted": self.share}, f"{self.share:.1%} ({inside} of {len(self.nodes)})")]
        if self.flop_share is not None:
            found.append(share("FLOPs", {"converted": self.flop_share}, f"{self.flop_share:.1%}"))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything, as what JSON can say; ``docs/report.schema.json`` describes it."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "nodes": [_as_json(node) for node in self.nodes],
            "engines": [dataclasses.asdict(engine) for engine in self.engines],
            "stages": dict(self.stages),
            "passes": [dict(item) for item in self.passes],
            "executor": self.executor,
            "versions": dict(self.versions),
            "warnings": list(self.warnings),
            "units": [dataclasses.asdict(unit) for unit in self.units],
            "crossings": [dataclasses.asdict(crossing) for crossing in self.crossings],
            "suggestions": [{**dataclasses.asdict(item), "gain": item.gain} for item in self.suggestions],
            "originals": [dict(vars(original)) for original in self.originals],
            "pass_rulings": [{**dataclasses.asdict(item), "text": str(item)} for item in self.pass_rulings],
        }

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict`, as text."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_html(self) -> str:
        """One self-contained page: the partition as a picture, every node with its reason, search and filters."""
        from trtplug.page import render_page

        summary = self.summary()
        document = {
            "summary": summary,
            "versions": dict(self.versions),
            "shares": self.shares,
            "ops": [],
            "model": self.to_dict(),
        }
        return render_page(f"trtplug: {summary}", document)

    def print(self, file: Any = None, *, nodes: bool = False, passes: bool = False) -> None:
        """Prints the tables to a file, or to standard output.

        Args:
            nodes: every node too, with its dtype.
            passes: the lowering passes too, and what became of the exported calls.
        """
        from rich.console import Console

        from trtplug.report_tables import render

        render(self, Console(file=file), nodes, passes)

    def __str__(self) -> str:
        from rich.console import Console

        from trtplug.report_tables import render

        text = io.StringIO()
        render(self, Console(file=text, width=120, color_system=None))
        return text.getvalue()

    def summary(self) -> str:
        """One line."""
        inside = len(self.nodes) - len(self.torch_ops)
        return f"{inside} of {len(self.nodes)} compute nodes in {len(self.engines)} TensorRT engine(s)"


def _as_json(node: NodeRecord) -> dict[str, Any]:
    return {**vars(node), "reasons": [reason.to_json() for reason in node.reasons]}
