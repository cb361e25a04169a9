"""What the lower stage returns: the lowered graph, and the record of how it came about."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import sympy
import torch
from torch import fx
from torch.utils._pytree import TreeSpec

from trtplug.branches import Branch
from trtplug.ranges import Range


@dataclasses.dataclass(frozen=True)
class PassRecord:
    """One rewrite of the graph.

    Attributes:
        id: ``plugin:name`` of a lowering pass, or ``lower:…`` for a step of the stage itself.
        seconds: spent in it, checks included.
        nodes_before, nodes_after: all nodes of the graph.
        changed: whether the graph differs afterwards.
        error: why its result was thrown away, or "".
        applied: how often each rewrite rule was applied.
        declined: how often something was left alone, by rule and reason.
    """

    id: str
    seconds: float
    nodes_before: int
    nodes_after: int
    changed: bool
    error: str = ""
    applied: Mapping[str, int] = dataclasses.field(default_factory=dict)
    declined: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Removal:
    """A node that is gone: the pass that removed it, and what those who read it read now."""

    by: str
    instead: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Mutation:
    """Where an output past the user's goes after each call.

    Attributes:
        kind: ``"buffer"`` (or parameter) of the graph module, or ``"input"`` of the call.
        target: the buffer's qualified name, or the position among the flat inputs.
    """

    kind: Literal["buffer", "input"]
    target: str | int


@dataclasses.dataclass(frozen=True)
class Fate:
    """What became of a node of the exported graph.

    Attributes:
        kind: ``kept`` whole for a converter, ``decomposed``, ``torch`` (left to Torch), or ``rewritten``: gone, folded
            or replaced by a pass.
        by: the converter's id, who brought the decomposition (a plugin, or ``"torch"`` for the op's own), or the pass's
            id; for ``torch`` the reasons.
        nodes: names of the nodes that stand in its place now; () where there is none.
        op: the call's qualified name.
    """

    kind: Literal["kept", "decomposed", "torch", "rewritten"]
    by: str
    nodes: tuple[str, ...] = ()
    op: str = ""


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A program ready to be partitioned.

    Attributes:
        graph_module: placeholders are the user's inputs, flat and in order (constants such as None too); parameters,
            buffers and constants are ``get_attr`` and share the model's memory; the output is a flat tuple, the user's
            outputs first, then the values of `mutations`. Every node that computes has ``meta["val"]``, fake values of
            one mode.
        ranges: min, opt and max of the symbols in the inputs' shapes.
        in_spec, out_spec: pytree specs of ``(args, kwargs)`` and of the user's output.
        input_names: of the flat inputs, for messages.
        mutations: where each output past the user's goes.
        passes: what ran, in order.
        history: for each call in the exported graph, what became of it and whose decision that was.
    """

    graph_module: fx.GraphModule
    ranges: Mapping[sympy.Symbol, Range]
    in_spec: TreeSpec
    out_spec: TreeSpec
    input_names: tuple[str, ...]
    mutations: tuple[Mutation, ...] = ()
    passes: tuple[PassRecord, ...] = ()
    history: Mapping[str, Fate] = dataclasses.field(default_factory=dict)
    constants: Mapping[int, Any] = dataclasses.field(default_factory=dict)
    """Inputs that the program was exported for one value of (numbers, strings, None), by position."""
    branches: tuple[Branch, ...] = ()
    """What the inputs' sizes must be, besides in their ranges: see `trtplug.branches`."""

    @property
    def device_type(self) -> str:
        """Where the model's tensors live: the first one's type of device."""
        values = (node.meta.get("val") for node in self.graph_module.graph.nodes)
        return next((value.device.type for value in values if isinstance(value, torch.Tensor)), "cpu")
