"""Lowering passes: named graph rewrites, and what they say about their work."""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import TypeAlias

from torch._ops import OpOverload, OpOverloadPacket
from torch.fx import GraphModule

from trtplug_registry.errors import DeclarationError

PHASES = ("early", "late")
"""``early`` passes see the graph as exported; ``late`` ones see it after registry-driven decomposition."""

Op: TypeAlias = OpOverload | OpOverloadPacket | str
Rewrite: TypeAlias = Callable[..., bool]
"""``(GraphModule) → changed``; after the graph module, settings that it reads, as keyword-only parameters."""


@dataclasses.dataclass(frozen=True, eq=False)
class LoweringPass:
    """A named rewrite of a graph.

    Attributes:
        name: short, with dashes.
        function: changes a ``GraphModule`` in place; returns whether it changed anything. Keyword-only parameters, each
            with a default, are given the compilation's settings of the same names: ``def f(graph_module, *,
            min_block_size=3)``.
        ops: what it looks for: overloads, packets (any overload), or names of ops that may not be loaded
            (``"torchao::quantize_affine"``). On a graph that calls none of them it is not run. Empty: it always is.
        phase: ``"early"`` or ``"late"``.
        before, after: ids of passes of the same phase that it must precede or follow: ``plugin:name``, or the bare name
            of a pass of the same plugin.
        replaces: id of a pass of the same phase whose place and anchors it takes, and that does not run then; or "".
        rounds: whether results may differ by what half types round off, because that is what the pass is for.
        expansions: whether it runs on each decomposition, too, before the registry is asked about the calls in it.
        plugin: who brought it; set by the registry.
    """

    name: str
    function: Rewrite
    ops: frozenset[Op] = frozenset()
    phase: str = "late"
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    replaces: str = ""
    rounds: bool = False
    expansions: bool = False
    plugin: str = ""

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise DeclarationError(
                f"lowering pass {self.name!r}: phase {self.phase!r} is not one of {', '.join(PHASES)}"
            )
        if not inspect.getdoc(self.function):
            raise DeclarationError(f"lowering pass {self.name!r}: its docstring must draw the graph before -> after")
        first, *rest = [*inspect.signature(self.function).parameters.values(), None]
        if first is None or first.kind is inspect.Parameter.KEYWORD_ONLY or any(map(_is_not_a_setting, rest[:-1])):
            raise DeclarationError(
                f"lowering pass {self.name!r}: it takes exactly one parameter, the GraphModule; settings that it reads"
                " are keyword-only parameters with defaults"
            )

        for op in self.ops:
            if not isinstance(op, OpOverload | OpOverloadPacket) and "::" not in str(op):
                raise DeclarationError(
                    f"lowering pass {self.name!r}: ops names {op!r}; name an overload, a packet, or 'namespace::op'"
                )

    def looks_for(self, called: Collection[Op]) -> bool:
        """Whether a graph may have something for it.

        Args:
            called: the overloads that the graph calls, their packets, and their names without the overload's.
        """
        return not self.ops or not self.ops.isdisjoint(called)

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the settings that it reads."""
        return tuple(inspect.signature(self.function).parameters)[1:]

    @property
    def id(self) -> str:
        return f"{self.plugin}:{self.name}" if self.plugin else self.name


def lowering_pass(
    name: str,
    *,
    ops: Iterable[Op] = (),
    phase: str = "late",
    before: Iterable[str] = (),
    after: Iterable[str] = (),
    replaces: str = "",
    rounds: bool = False,
    expansions: bool = False,
) -> Callable[[Rewrite], LoweringPass]:
    """Makes a `LoweringPass` of a function. Registers nothing: return it from ``trtplug_lowering_passes()``.

    The parameters are the attributes of `LoweringPass`.

    Raises:
        DeclarationError: an unknown phase, no docstring, a wrong signature, or what names no op.
    """

    def make(function: Rewrite) -> LoweringPass:
        return LoweringPass(
            name, function, frozenset(ops), phase, tuple(before), tuple(after), replaces, rounds, expansions
        )

    return make


@dataclasses.dataclass(frozen=True)
class DisablePass:
    """Says that a pass of another plugin does not run. Returned from ``trtplug_lowering_passes()`` beside passes.

    Attributes:
        id: of the pass, ``plugin:name``.
        because: why, for the report and the listing of plugins.
        plugin: whose word it is; set by the registry.

    Raises:
        DeclarationError: no reason, or an id without a plugin: a pass of its own, a plugin leaves out.
    """

    id: str
    because: str
    plugin: str = ""

    def __post_init__(self) -> None:
        if not self.because:
            raise DeclarationError(f"DisablePass({self.id!r}): because= must say why")
        if ":" not in self.id or self.id.partition(":")[0] == self.plugin:
            raise DeclarationError(
                f"DisablePass({self.id!r}): name a pass of another plugin, plugin:name; one of your own, leave out"
            )


@dataclasses.dataclass(frozen=True)
class OrderPasses:
    """Says that a pass runs before another of its phase, whatever they say themselves. Returned like `DisablePass`.

    Attributes:
        first, second: ids, ``plugin:name``, or the bare name of a pass of the same plugin.
        because, plugin: as for `DisablePass`.

    Raises:
        DeclarationError: no reason, or one pass twice.
    """

    first: str
    second: str
    because: str
    plugin: str = ""

    def __post_init__(self) -> None:
        if not self.because:
            raise DeclarationError(f"OrderPasses({self.first!r}, {self.second!r}): because= must say why")
        if self.first == self.second:
            raise DeclarationError(f"OrderPasses({self.first!r}, {self.second!r}): a pass cannot run before itself")


def _is_not_a_setting(parameter: inspect.Parameter | None) -> bool:
    return parameter is not None and (
        parameter.kind is not inspect.Parameter.KEYWORD_ONLY or parameter.default is inspect.Parameter.empty
    )


# --- what a pass says about its work ----------------------------------------------------------------------------------


@dataclasses.dataclass
class Notes:
    """How often a pass rewrote something, by rule, and how often it declined to, by rule and reason."""

    applied: Counter[str] = dataclasses.field(default_factory=Counter)
    declined: Counter[str] = dataclasses.field(default_factory=Counter)


_NOTES = "trtplug.notes"


def decline(graph_module: GraphModule, what: str, reason: str) -> None:
    """Notes for the report that a pass left something alone which looked like its business.

    Args:
        graph_module: that the pass was given.
        what: the rule, or what the pass does, in a word or two.
        reason: the same words wherever the cause is the same: the report counts them.
    """
    graph_module.meta.setdefault(_NOTES, Notes()).declined[f"{what}: {reason}"] += 1


def applied(graph_module: GraphModule, what: str) -> None:
    """Notes for the report that a pass did something; rules do so by themselves."""
    graph_module.meta.setdefault(_NOTES, Notes()).applied[what] += 1


def take_notes(graph_module: GraphModule) -> Notes:
    """What was noted since this was last called."""
    notes: Notes = graph_module.meta.pop(_NOTES, None) or Notes()
    return notes
