"""Finding a rule's pattern in a graph.

Torch's own matcher (``torch.fx.passes.utils.matcher_utils``) compares operands in the order in which they stand, does
not say which argument of a call a wildcard stood for, and walks the whole graph for each pattern; here a pattern is
tried at one node, and operands may commute.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import fx
from torch._ops import OpOverload, OpOverloadPacket

from trtplug_registry.errors import DeclarationError

Binding: TypeAlias = Mapping[fx.Node, Any]
"""What each node of a pattern stands for in a graph."""

_Pairs: TypeAlias = tuple[tuple[Any, Any], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Pattern:
    """A traced pattern.

    Attributes:
        function: as declared.
        parameters: its parameters' names.
        placeholders, calls, outputs: nodes of the pattern's graph.
        commutative: ops whose first two arguments may be exchanged.
    """

    function: Callable[..., Any]
    parameters: tuple[str, ...]
    placeholders: tuple[fx.Node, ...]
    calls: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    commutative: frozenset[OpOverload]

    @property
    def anchor(self) -> Any:
        """The op (or packet) of the first result."""
        return self.outputs[0].target


def parse_pattern(who: str, function: Callable[..., Any], commutative: frozenset[OpOverload]) -> Pattern:
    """Traces a pattern.

    Raises:
        DeclarationError: it cannot match anything, or matches what no rule may replace.
    """
    parameters = tuple(inspect.signature(function).parameters)
    try:
        graph = fx.symbolic_trace(function).graph
    except Exception as error:
        raise DeclarationError(f"rewrite rule {who!r}: its pattern cannot be traced: {error}") from error
    placeholders = tuple(node for node in graph.nodes if node.op == "placeholder")
    calls = tuple(node for node in graph.nodes if node.op not in ("placeholder", "output"))
    (end,) = graph.find_nodes(op="output")
    results: Any = end.args[0] if isinstance(end.args[0], list | tuple) else (end.args[0],)
    for node in calls:
        _check_call(who, node)
    if not results or any(not isinstance(item, fx.Node) or item.op != "call_function" for item in results):
        raise DeclarationError(f"rewrite rule {who!r}: its pattern must return results of ops")
    unused = [name for name, node in zip(parameters, placeholders, strict=True) if not node.users]
    if unused:
        raise DeclarationError(f"rewrite rule {who!r}: its pattern does not use {', '.join(unused)}")
    dead = [node.name for node in calls if not node.users]
    if dead:
        raise DeclarationError(f"rewrite rule {who!r}: nothing in its pattern uses {', '.join(dead)}")
    above = set[fx.Node]()
    for result in results:
        cone = _cone(result)
        if above and not above & cone:
            raise DeclarationError(f"rewrite rule {who!r}: {result.name} shares nothing with the results before it")
        above |= cone
    return Pattern(function, parameters, placeholders, calls, tuple(results), commutative)


def _cone(node: fx.Node) -> set[fx.Node]:
    return {node}.union(*map(_cone, node.all_input_nodes))


def _check_call(who: str, node: fx.Node) -> None:
    target = node.target
    overloads = [target] if isinstance(target, OpOverload) else _overloads(target)
    if node.op != "call_function" or (not overloads and not callable(target)) or target is getattr:
        raise DeclarationError(f"rewrite rule {who!r}: its pattern calls {target!r}, which is not an op")
    for op in overloads:
        if op._schema.is_mutable and isinstance(target, OpOverload):
            raise DeclarationError(f"rewrite rule {who!r}: {op} writes; lowering has made writes into values before")
        if torch.Tag.nondeterministic_seeded in op.tags:
            raise DeclarationError(f"rewrite rule {who!r}: {op} draws random numbers, whose order must stay")


def _overloads(target: Any) -> list[OpOverload]:
    if not isinstance(target, OpOverloadPacket):
        return []
    return [getattr(target, name) for name in target.overloads()]


def find_match(pattern: Pattern, node: fx.Node) -> Binding | None:
    """The first way in which the pattern fits, its first result being this node."""
    return next(_outputs(pattern, 0, node, {}), None)


def _outputs(pattern: Pattern, place: int, node: fx.Node, bound: Binding) -> Iterator[Binding]:
    """Fits one result after the other; those past the first are looked for among the users of what is bound."""
    for found in _unify(pattern, ((pattern.outputs[place], node),), bound):
        rest = place + 1
        while rest < len(pattern.outputs) and pattern.outputs[rest] in found:
            rest += 1
        if rest == len(pattern.outputs):
            yield found
            continue
        for candidate in _below(pattern.outputs[rest], found):
            yield from _outputs(pattern, rest, candidate, found)


def _below(output: fx.Node, bound: Binding) -> list[fx.Node]:
    """The calls that a further result may stand for: those below what is bound, along the pattern's own path."""
    path = _path(output, bound)
    level = [bound[path[0]]] if path else []
    for step in path[1:]:
        users = {user: None for node in level if isinstance(node, fx.Node) for user in node.users}
        level = [user for user in users if _is_call_of(user, step.target)]
    return level


def _path(output: fx.Node, bound: Binding) -> list[fx.Node]:
    """From something bound to a node of the pattern; empty where there is none."""
    if output in bound:
        return [output]
    paths = (_path(source, bound) for source in output.all_input_nodes)
    found = next((path for path in paths if path), [])
    return [*found, output] if found else []


def _unify(pattern: Pattern, todo: _Pairs, bound: Binding) -> Iterator[Binding]:
    """Every way in which the pairs of pattern and graph agree, given what is bound."""
    if not todo:
        yield bound
        return
    (wanted, value), *left = todo
    rest = tuple(left)
    if isinstance(wanted, list | tuple):
        if isinstance(value, list | tuple) and len(value) == len(wanted):
            yield from _unify(pattern, (*zip(wanted, value), *rest), bound)
    elif not isinstance(wanted, fx.Node):
        if _same(wanted, value):
            yield from _unify(pattern, rest, bound)
    elif wanted in bound:
        if _same(bound[wanted], value):
            yield from _unify(pattern, rest, bound)
    elif wanted.op == "placeholder":
        yield from _unify(pattern, rest, {**bound, wanted: value})
    elif _is_call_of(value, wanted.target) and not any(value is other for other in bound.values()):
        for pairs in _arguments(pattern, wanted, value):
            yield from _unify(pattern, (*pairs, *rest), {**bound, wanted: value})


def _is_call_of(value: Any, target: Any) -> bool:
    if not isinstance(value, fx.Node) or value.op != "call_function":
        return False
    return value.target is target or getattr(value.target, "overloadpacket", None) is target


def _arguments(pattern: Pattern, wanted: fx.Node, node: fx.Node) -> Iterator[_Pairs]:
    """The pairs of arguments that must agree; a second set where two may be exchanged."""
    if not isinstance(node.target, OpOverload):
        if len(wanted.args) == len(node.args) and wanted.kwargs.keys() == node.kwargs.keys():
            yield (*zip(wanted.args, node.args), *((item, node.kwargs[name]) for name, item in wanted.kwargs.items()))
        return
    formals = _formals(node.target)
    if len(wanted.args) > len(formals) or not wanted.kwargs.keys() <= set(formals):
        return  # another overload of the packet
    ours, theirs = _bind(formals, wanted), _bind(formals, node)
    yield tuple((ours[name], theirs[name]) for name in formals)
    if len(wanted.args) == 2 and not wanted.kwargs and node.target in pattern.commutative:
        one, two, *_ = formals
        theirs[one], theirs[two] = theirs[two], theirs[one]
        yield tuple((ours[name], theirs[name]) for name in formals)


@functools.cache
def _formals(target: OpOverload) -> Mapping[str, Any]:
    return {formal.name: formal.default_value for formal in target._schema.arguments}


def _bind(formals: Mapping[str, Any], node: fx.Node) -> dict[str, Any]:
    return {**formals, **dict(zip(formals, node.args)), **node.kwargs}


def _same(one: Any, two: Any) -> bool:
    """Equal literals or the same node. True is not 1; 2.0 is 2."""
    if isinstance(one, fx.Node) or isinstance(two, fx.Node):
        return one is two
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(_same, one, two))
    return isinstance(one, bool) == isinstance(two, bool) and bool(one == two)
