"""Arguments that are graphs: the bodies of conditionals, loops, and other higher-order operators."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch.fx import GraphModule, Node

from trtplug_registry.conversion import qualified_name
from trtplug_registry.facts import Call, Symbolic, describe_value
from trtplug_registry.specs import Because, Spec, seen
from trtplug_registry.support import Reason, ReasonCode, Support


class BodyFacts(NamedTuple):
    """What the registry knows of a body.

    Attributes:
        inputs, outputs: what its placeholders and results are, as `Call` has arguments.
        obstacle: what in it cannot be converted, in words, or "".
        depth: how deep operators on graphs lie in each other in it; 0 where it holds none.
    """

    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    obstacle: str
    depth: int = 0

    def __repr__(self) -> str:
        return f"a body of {len(self.inputs)} inputs and {len(self.outputs)} results"


@dataclasses.dataclass(frozen=True)
class Body(Spec):
    """A graph that is called, every node of which some converter takes; bodies within it too.

    What a converter is given for it goes to `ConverterContext.inline`.

    Attributes:
        depth: how deep operators on graphs may lie in each other in it: 0 allows none. None allows any.
        because: why, for the reason of a refusal.
    """

    depth: int | None = None
    because: Because = ""

    def refusal(self, argument: str, value: Any, call: Call) -> Reason | None:
        if type(value) is not BodyFacts:
            return Reason(ReasonCode.ARGUMENT, argument, "a graph", seen(value))
        if not value.obstacle and self.depth is not None and value.depth > self.depth:
            held = f"{value.depth} within each other" if value.depth > 1 else "one"
            return Reason(ReasonCode.BODY, argument, str(self), held, self.reason("body"))
        if not value.obstacle:
            return None
        return Reason(ReasonCode.BODY, argument, "a body that is converted whole", value.obstacle, self.reason("body"))

    def __str__(self) -> str:
        if self.depth is None:
            return "a body that is converted whole"
        return "a body with no conditional or loop in it" if not self.depth else f"a body of depth {self.depth}"


def body_of(node: Node) -> GraphModule | None:
    """The graph that a ``get_attr`` node reads, where it reads one."""
    if node.op != "get_attr" or node.graph.owning_module is None:
        return None
    value: Any = node.graph.owning_module
    for name in str(node.target).split("."):
        value = getattr(value, name, None)
    return value if isinstance(value, GraphModule) else None


def describe_body(body: GraphModule, lookup: Callable[[Node], Support]) -> BodyFacts:
    """A body's facts; `lookup` is asked about its calls in order, up to the first that nobody takes."""
    inputs = tuple(describe_value(node.meta.get("val")) for node in body.graph.nodes if node.op == "placeholder")
    results = _results(body)
    outputs = tuple(describe_value(item.meta.get("val") if isinstance(item, Node) else item) for item in results)
    obstacles = (_obstacle(node, lookup) for node in body.graph.nodes)
    return BodyFacts(inputs, outputs, next(filter(None, obstacles), "") or _strange_result(results), _depth(body))


def _depth(body: GraphModule) -> int:
    inner = (body_of(node) for node in body.graph.nodes)
    return max((1 + _depth(item) for item in inner if item is not None), default=0)


def _results(body: GraphModule) -> tuple[Any, ...]:
    (end,) = body.graph.find_nodes(op="output")
    results = end.args[0]
    return tuple(results) if isinstance(results, list | tuple) else (results,)


def _obstacle(node: Node, lookup: Callable[[Node], Support]) -> str:
    """Why a node of a body cannot be converted, or ""."""
    if node.op in ("placeholder", "get_attr", "output") or node.target is operator.getitem:
        return ""
    value, target = node.meta.get("val"), node.target
    if node.op == "call_function" and isinstance(value, torch.SymInt | int) and not _from_data(target):
        return ""  # arithmetic on sizes
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return f"its node {node.name!r} is {seen(Symbolic(type(value).__name__))}"
    support = lookup(node)
    if support:
        return ""
    name = qualified_name(target) if isinstance(target, OpOverload | HigherOrderOperator) else str(target)
    return f"its node {node.name!r} ({name}) is not supported: {support.reasons[0]}"


def _from_data(target: Any) -> bool:
    return isinstance(target, OpOverload) and torch.Tag.data_dependent_output in target.tags


def _strange_result(results: tuple[Any, ...]) -> str:
    for place, item in enumerate(results):
        if not isinstance(item, Node) or not isinstance(item.meta.get("val"), torch.Tensor):
            return f"its result {place} is not a tensor"
    return ""
