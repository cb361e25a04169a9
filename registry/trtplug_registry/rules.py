"""Rewrite rules: a pattern, a check that says why not, and a replacement. A pass can be a tuple of them.

    @rewrite_rule("double-relu", pattern=lambda x: aten.relu.default(aten.relu.default(x)))
    def one_relu(x):
        \"\"\"relu(relu(x)) → relu(x)\"\"\"
        return aten.relu.default(x)

    simplify = rule_pass("simplify", [one_relu], after=["no-ops"])

What every rule would otherwise have to take care of is done here: metadata of new nodes, results that are read
elsewhere, sizes, memory that the caller may write to, and an end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload, OpOverloadPacket
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from trtplug_registry.aliasing import is_view, may_be_view, reaches_output
from trtplug_registry.errors import DeclarationError
from trtplug_registry.guards import SpecializedError, unspecialized
from trtplug_registry.matching import Binding, Pattern, find_match, parse_pattern
from trtplug_registry.passes import LoweringPass, applied, decline

_ORIGIN = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom")
_MATCH = "match"


@dataclasses.dataclass(frozen=True)
class Match:
    """A place where a pattern fits.

    Attributes:
        graph_module: that it was found in.
        bindings: what each parameter of the pattern stands for here: a node, a literal, or a list of either.
        nodes: the calls that matched, in graph order.
        outputs: those of them that the pattern returns.
    """

    graph_module: fx.GraphModule
    bindings: Mapping[str, Any]
    nodes: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    _writer: _Writer | None = None

    def val(self, name: str) -> Any:
        """The fake value of what a parameter stands for, or the literal itself."""
        return _vals(self.bindings[name])

    def constant(self, name: str) -> torch.Tensor | None:
        """The tensor, where a parameter stands for a parameter, buffer or constant that no call changes."""
        node = self.bindings[name]
        if not isinstance(node, fx.Node) or node.op != "get_attr" or node.meta.get("written"):
            return None
        value = operator.attrgetter(str(node.target))(self.graph_module)
        return value.detach() if isinstance(value, torch.Tensor) else None

    def buffer(self, name: str, value: torch.Tensor) -> fx.Proxy:
        """A new constant of the graph, for the replacement, which alone may ask for it. `name` is a wish."""
        assert self._writer is not None
        free = free_name(self.graph_module, name)
        self.graph_module.register_buffer(free, value)
        first = self.nodes[0]
        with first.graph.inserting_before(next(iter(first.graph.nodes))):
            node = first.graph.create_node("get_attr", free)
        self._writer.made.add(node)
        mode = self._writer.mode
        node.meta["val"] = value if mode is None else mode.from_tensor(value, static_shapes=True)
        return fx.Proxy(node, self._writer)


@dataclasses.dataclass(frozen=True, eq=False)
class RewriteRule:
    """A pattern and what replaces it. Made by `rewrite_rule`."""

    name: str
    pattern: Pattern
    replace: Callable[..., Any]
    check: Callable[..., str | None] | None = None

    def __post_init__(self) -> None:
        who = f"rewrite rule {self.name!r}"
        if "→" not in (inspect.getdoc(self.replace) or ""):
            raise DeclarationError(f"{who}: its docstring must draw the graph before → after")
        known = {*self.pattern.parameters, _MATCH}
        for function, what in ((self.replace, "the replacement"), (self.check, "the check")):
            extra = set(inspect.signature(function).parameters) - known if function else ()
            if extra:
                raise DeclarationError(
                    f"{who}: {what} takes {', '.join(sorted(extra))}; there are the pattern's parameters"
                    f" ({', '.join(self.pattern.parameters)}) and {_MATCH!r}"
                )

    def rewrite(self, graph_module: fx.GraphModule, node: fx.Node) -> str | None:
        """Rewrites where the pattern's first result is this node.

        Returns:
            None where the pattern does not fit; "" where the place is rewritten; otherwise why it is not.
        """
        binding = find_match(self.pattern, node)
        if binding is None:
            return None
        match = _match(graph_module, self.pattern, binding)
        reason = _used_elsewhere(match) or (self.check and self._call(self.check, match, match.bindings))
        return reason or self._replace(match)

    def _call(self, function: Callable[..., Any], match: Match, bindings: Mapping[str, Any]) -> Any:
        given = {**bindings, _MATCH: match}
        return function(**{name: given[name] for name in inspect.signature(function).parameters})

    def _replace(self, match: Match) -> str:
        """Puts the replacement in place. Returns why it cannot, the graph then being as it was."""
        place = _place(match)
        if place is None:
            return "its results are read before all of its arguments exist"
        graph = match.graph_module.graph
        mode = _fake_mode(match.nodes)
        writer = _Writer(graph, match.outputs[0], mode)
        match = dataclasses.replace(match, _writer=writer)
        proxies = {name: _proxies(value, writer) for name, value in match.bindings.items()}
        try:
            with graph.inserting_before(place), unspecialized(mode.shape_env if mode else None):
                results = self._call(self.replace, match, proxies)
            results = fx.node.map_aggregate(results, lambda item: item.node if isinstance(item, fx.Proxy) else item)
            results = tuple(results) if isinstance(results, tuple | list) else (results,)
            reason = _unfaithful(match, results, writer.made)
        except SpecializedError:
            reason = "the replacement would hold for some sizes only"
        if reason:
            for node in sorted(writer.made, reverse=True):
                graph.erase_node(node)
                if node.op == "get_attr":
                    delattr(match.graph_module, str(node.target))
            return reason
        for old, new in zip(match.outputs, results, strict=True):
            old.replace_all_uses_with(new, lambda user: user not in writer.made)
        for node in reversed(match.nodes):
            if not node.users:
                graph.erase_node(node)
        return ""


def rewrite_rule(
    name: str,
    *,
    pattern: Callable[..., Any],
    check: Callable[..., str | None] | None = None,
    commutative: Iterable[OpOverload] = (),
) -> Callable[[Callable[..., Any]], RewriteRule]:
    """Makes a `RewriteRule` of the function that builds the replacement.

    Args:
        name: short, with dashes.
        pattern: calls of ops on its parameters; returns one result or a tuple. A parameter matches a node, a literal or
            a list, the same one wherever it stands. Arguments that it leaves out match their defaults. An op without an
            overload (``aten.add``) matches any of its overloads.
        check: why the replacement must not be made at a place that fits, or "" or None. Takes those of the pattern's
            parameters that it names, and ``match`` (a `Match`).
        commutative: ops whose first two arguments may be the other way round, where no others are given.

    The decorated function takes parameters as `check` does, nodes as proxies to call ops on; it returns as many results
    as the pattern. Its docstring draws before → after.

    A rule is declined, and the reason noted, where `check` says so; where an inner result is read outside; where a
    result would have another shape, dtype or device, or hold for some sizes only; and where the graph would return the
    memory of something else instead of a fresh tensor.

    Raises:
        DeclarationError: parameters that do not fit, a pattern that calls nothing, writes or draws random numbers, or
            no docstring.
    """

    def make(function: Callable[..., Any]) -> RewriteRule:
        return RewriteRule(name, parse_pattern(name, pattern, frozenset(commutative)), function, check)

    return make


def rule_pass(
    name: str,
    rules: Iterable[RewriteRule],
    *,
    phase: str = "late",
    before: Iterable[str] = (),
    after: Iterable[str] = (),
    replaces: str = "",
) -> LoweringPass:
    """A lowering pass that applies rules until none fits. The first that fits a node wins.

    Raises:
        DeclarationError: two rules have one name.
    """
    given = tuple(rules)
    names = [rule.name for rule in given]
    for twice in {item for item in names if names.count(item) > 1}:
        raise DeclarationError(f"lowering pass {name!r}: two rules are named {twice!r}")
    function = _Rules(name, given)
    anchors = frozenset(rule.pattern.anchor for rule in given)
    ops = anchors if all(isinstance(op, OpOverload | OpOverloadPacket) for op in anchors) else frozenset()
    return LoweringPass(name, function, ops, phase, tuple(before), tuple(after), replaces)


class _Rules:
    """The function of a pass that is made of rules."""

    def __init__(self, name: str, rules: Sequence[RewriteRule]) -> None:
        self.name, self.rules = name, rules
        self.__doc__ = "\n".join(inspect.getdoc(rule.replace) or "" for rule in rules)
        self._by_target: dict[Any, list[RewriteRule]] = {}
        for rule in rules:
            self._by_target.setdefault(rule.pattern.anchor, []).append(rule)

    @property
    def fingerprinted(self) -> tuple[Any, ...]:
        return tuple(
            (rule.name, rule.pattern.function, rule.check, rule.replace, sorted(map(str, rule.pattern.commutative)))
            for rule in self.rules
        )

    def __call__(self, graph_module: fx.GraphModule) -> bool:
        left = 4 * len(graph_module.graph.nodes) + 100
        changed, again = False, True
        while again:
            count, declined = self._round(graph_module)
            again = count > 0
            changed, left = changed or again, left - count
            if left < 0:
                raise RuntimeError(f"the rules of {self.name!r} do not come to an end: they undo each other")
        for rule, reason in declined:
            decline(graph_module, rule.name, reason)
        return changed

    def _round(self, graph_module: fx.GraphModule) -> tuple[int, list[tuple[RewriteRule, str]]]:
        """How often a rule was applied, and which were declined, and why, at the nodes that there are now."""
        count = 0
        declined = []
        for node in list(graph_module.graph.nodes):
            if node.op != "call_function" or node._erased:
                continue
            for rule in self._rules_for(node.target):
                reason = rule.rewrite(graph_module, node)
                if reason:
                    declined.append((rule, reason))
                elif reason is not None:
                    applied(graph_module, rule.name)
                    count += 1
                    break
        return count, declined

    def _rules_for(self, target: Any) -> list[RewriteRule]:
        found = self._by_target.get(target, [])
        packet = getattr(target, "overloadpacket", None)
        more = self._by_target.get(packet, []) if packet is not None else []
        return found if not more else sorted((*found, *more), key=self.rules.index)


# --- applying ---------------------------------------------------------------------------------------------------------


def free_name(module: torch.nn.Module, name: str) -> str:
    """An attribute's name that is not taken: the wish, or it with a number, found by halving where many are taken."""
    if not hasattr(module, name):
        return name
    taken, free = 0, 1
    while hasattr(module, f"{name}_{free}"):
        taken, free = free, 2 * free
    while free - taken > 1:
        middle = (taken + free) // 2
        taken, free = (middle, free) if hasattr(module, f"{name}_{middle}") else (taken, middle)
    return f"{name}_{free}"


class _Writer(fx.proxy.GraphAppendingTracer):
    """Writes calls into the graph, with their fake values and the origin of what they replace."""

    def __init__(self, graph: fx.Graph, origin: fx.Node, mode: FakeTensorMode | None) -> None:
        super().__init__(graph)
        self.mode = mode
        self.made: set[fx.Node] = set()
        self.origin = {key: origin.meta[key] for key in _ORIGIN if key in origin.meta}

    def create_node(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any) -> fx.Node:
        if kind != "call_function" or (target is getattr):
            raise DeclarationError(
                f"a replacement calls ops, not {target!r}; for shapes and dtypes take match.val('x').shape,"
                " or aten.sym_size.int(x, axis) for a size in the graph"
            )
        node = super().create_node(kind, target, args, kwargs, *more, **named)
        self.made.add(node)
        with torch.no_grad(), self.mode or contextlib.nullcontext():
            value = target(*_vals(node.args), **_vals(dict(node.kwargs)))
        node.meta = {**self.origin, "val": value}
        return node


def _proxies(value: Any, writer: _Writer) -> Any:
    def proxy(item: Any) -> Any:
        return fx.Proxy(item, writer) if isinstance(item, fx.Node) else item

    return fx.node.map_aggregate(value, proxy)


def _vals(args: Any) -> Any:
    return fx.node.map_arg(args, lambda node: node.meta.get("val"))


def _match(graph_module: fx.GraphModule, pattern: Pattern, binding: Binding) -> Match:
    bindings = {parameter.name: binding[parameter] for parameter in pattern.placeholders}
    named = {name: bindings[node.name] for name, node in zip(pattern.parameters, pattern.placeholders, strict=True)}
    nodes = sorted(binding[node] for node in pattern.calls)
    return Match(graph_module, named, tuple(nodes), tuple(binding[node] for node in pattern.outputs))


def _used_elsewhere(match: Match) -> str:
    inside = {*match.nodes}
    for node in match.nodes:
        if node in match.outputs:
            continue
        for user in node.users:
            if user not in inside and (user.users or user.target is not operator.getitem):
                return "an inner result is read elsewhere"
    return ""


def _place(match: Match) -> fx.Node | None:
    """Where the replacement goes: after its arguments and before all that read its results."""
    given: list[fx.Node] = []
    fx.node.map_arg(tuple(match.bindings.values()), given.append)
    last = max(given, default=None)
    first = min(match.outputs)
    if last is None or last < first:
        return first
    readers = [user for node in match.outputs for user in node.users if user not in match.nodes]
    place = last.next
    return place if all(not user < place for user in readers) else None


def _fake_mode(nodes: Sequence[fx.Node]) -> FakeTensorMode | None:
    for node in nodes:
        for value in (node.meta.get("val"), *(source.meta.get("val") for source in node.all_input_nodes)):
            if isinstance(value, FakeTensor):
                return value.fake_mode
    return None


def _unfaithful(match: Match, results: tuple[Any, ...], made: set[fx.Node]) -> str:
    """Why the replacement's results may not stand for the pattern's, or ""."""
    if len(results) != len(match.outputs):
        raise DeclarationError(f"a replacement returned {len(results)} results for {len(match.outputs)}")
    for old, new in zip(match.outputs, results, strict=True):
        if not isinstance(new, fx.Node):
            raise DeclarationError(f"a replacement returned {new!r}, which is no result of an op")
        was, now = _facts(old.meta.get("val")), _facts(new.meta.get("val"))
        if was != now:
            return "the replacement has another shape, dtype or device"
        root = _root(new, may_be_view)
        if root not in made and root is not _root(old, is_view) and reaches_output(old):
            return "the graph returns its result, which must be fresh memory"
    return ""


def _facts(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        sizes: Any = value.shape
        return value.dtype, value.device, tuple(s if type(s) is int else s.node.expr for s in sizes)
    return tuple(map(_facts, value)) if isinstance(value, list | tuple) else type(value)


def _root(node: fx.Node, shares: Callable[[Any], bool]) -> fx.Node:
    """The node whose memory this one's result is a view of, or the node itself."""
    while node.op == "call_function" and shares(node.target) and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node
