"""Laws 2, 4 and 6: verdicts are total and pure, refusals say why, and registration order does not matter."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from trtplug.testing.drawing import calls
from trtplug.testing.drawn import DrawnCall
from trtplug.testing.errors import EnoughError, LawViolationError, UndrawableError
from trtplug.testing.graphs import bare_node
from trtplug.testing.restrictions import Forbidden, forbidden
from trtplug.testing.symbolic import new_symbol
from trtplug.testing.trial import Tally, Trial
from trtplug_registry import Converter, Plugin, Reason, ReasonCode, Registry, Supported, Unsupported

ENVIRONMENTAL = {
    ReasonCode.CONFLICT,
    ReasonCode.EXCLUDED_BY_USER,
    ReasonCode.TENSORRT_VERSION,
    ReasonCode.DATA_DEPENDENT_SHAPE,
    ReasonCode.OUTPUT_USED,
}
"""Refusals that do not come from the arguments."""

_ODD_LITERALS: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 10**30, 1.5, math.nan, math.inf, 2j, "x", ()),
    *([], [None], [[1]], [1, "x"], {"a": 1}, torch.float64, torch.device("meta"), slice(None), ..., object),
)
_ODD_DTYPES = (torch.float64, torch.complex64, torch.int8, torch.uint16, torch.float8_e4m3fn, torch.float32)


# --- law 2 ------------------------------------------------------------------------------------------------------------


def total(trial: Trial) -> None:
    """Law 2: any node of the op gets an answer; nothing raises, and asking leaves graph and guards as they were."""

    def check(data: st.DataObject) -> None:
        env = ShapeEnv(duck_shape=False)
        if data.draw(st.booleans(), label="a node that makes sense"):
            strategy = calls(trial.converter)
            call = data.draw(strategy, label="call")
            node = bare_node(call)
            _ask(trial, node, env)
            trial.tally.tried += 1
            if trial.refusal(call) is None:
                _taken(trial, node, call)
        else:
            _ask(trial, _odd_node(data, trial.converter, env), env)
            trial.tally.tried += 1

    trial.explore(check, trial.profile.calls)


def _taken(trial: Trial, node: Node, call: DrawnCall) -> None:
    for candidate in trial.registry.explain(node).candidates:
        reason = candidate.reason
        if candidate.converter is trial.converter and reason is not None and reason.code not in ENVIRONMENTAL:
            raise LawViolationError(
                f"{trial.law}: the domain of {trial.name} takes {call}, but the registry says: {reason}"
            )


def _ask(trial: Trial, node: Node, env: ShapeEnv) -> None:
    before = _state(node, env)
    try:
        support = trial.registry.lookup(node)
        again = trial.registry.lookup(node)
        trial.registry.explain(node)
    except Exception as error:
        raise LawViolationError(
            f"{trial.law}: asking about {node.format_node()} raised {type(error).__name__}: {error}"
        ) from error
    if _state(node, env) != before:
        raise LawViolationError(f"{trial.law}: asking about {node.format_node()} changed its graph or left a guard")
    if not isinstance(support, Supported | Unsupported) or support != again:
        raise LawViolationError(f"{trial.law}: asked twice about {node.format_node()}: {support!r}, then {again!r}")
    if isinstance(support, Unsupported) and not all(_well_said(reason) for reason in support.reasons):
        raise LawViolationError(f"{trial.law}: {node.format_node()} is refused without reason: {support.reasons!r}")


def _well_said(reason: Reason) -> bool:
    return isinstance(reason, Reason) and bool(reason.seen)


def _state(node: Node, env: ShapeEnv) -> tuple[Any, ...]:
    nodes = list(node.graph.nodes)
    metas = tuple(tuple((key, id(value)) for key, value in each.meta.items()) for each in nodes)
    return str(node.graph), metas, len(env.guards), dict(env.var_to_range), dict(env.replacements)


def _odd_node(data: st.DataObject, converter: Converter, env: ShapeEnv) -> Node:
    """A node whose arguments are of any kind and number."""
    graph = Graph()
    op = converter.overloads()[0]
    names = [argument.name for argument in op._schema.arguments]
    count = data.draw(st.integers(0, len(names) + 1), label="number of arguments")
    values = [_odd_value(data, graph, env, place) for place in range(count)]
    split = data.draw(st.integers(0, count), label="positional ones")
    kwargs = dict(zip([*names, "no_such_argument"][split:count], values[split:], strict=False))
    node = graph.create_node("call_function", op, tuple(values[:split]), kwargs)
    graph.output((node,))
    return node


def _odd_value(data: st.DataObject, graph: Graph, env: ShapeEnv, place: int) -> Any:
    kind = data.draw(st.sampled_from(("tensor", "literal", "symbolic", "list", "number", "nothing")), label="kind")
    if kind == "literal":
        return data.draw(st.sampled_from(_ODD_LITERALS), label=f"argument {place}")
    node = graph.placeholder(f"argument_{place}_{len(graph.nodes)}")
    mode = FakeTensorMode(shape_env=env, static_shapes=False)
    if kind == "nothing":
        return node
    if kind == "list":
        return [node, None, 1]
    sizes: list[Any] = [1] * data.draw(st.integers(0, 10), label="rank")
    if kind in ("symbolic", "number"):
        size = env.create_symintnode(new_symbol(env, f"size_{place}", 3), hint=3)
        if kind == "number":
            odd = (size, size * 2 + 1, torch.sym_float(size))
            node.meta["val"] = data.draw(st.sampled_from(odd), label=f"argument {place}")
            return node
        sizes = [size, *sizes]
    dtype = data.draw(st.sampled_from(_ODD_DTYPES), label="dtype")
    with mode:
        node.meta["val"] = torch.empty(sizes, dtype=dtype)
    return node


# --- law 4 ------------------------------------------------------------------------------------------------------------


def refused_with_reason(trial: Trial) -> None:
    """Law 4: a call outside the domain is refused with the argument, the requirement and what was seen."""
    for restriction in forbidden(trial.converter):
        if restriction.code is not ReasonCode.DYNAMIC_SHAPE:  # these are asked about when they are forced
            with contextlib.suppress(UndrawableError):
                _refused(dataclasses.replace(trial, tally=Tally()), restriction)


def _refused(trial: Trial, restriction: Forbidden) -> None:
    done = 0

    def check(data: st.DataObject) -> None:
        nonlocal done
        call = data.draw(calls(trial.converter, domain=restriction.domain), label="call")
        assume(restriction.violated_by(call))
        trial.tally.tried += 1
        check_reason(trial, bare_node(call), restriction, call)
        done += 1
        if done == 3:
            raise EnoughError

    try:
        trial.explore(check, 3 * trial.profile.forced)
    finally:
        if not trial.tally.tried:
            trial.memory.in_vain.add(str(restriction))


def check_reason(trial: Trial, node: Node, restriction: Forbidden, call: DrawnCall) -> None:
    """Raises unless the registry refuses the node for this restriction, in full."""
    found = [c.reason for c in trial.registry.explain(node).candidates if c.converter is trial.converter]
    reason = found[0] if found else None
    what = f"{trial.law} does not hold for {trial.name}: {call} is outside its domain ({restriction})"
    if reason is None:
        raise LawViolationError(f"{what}, but the registry does not refuse it")
    if reason.code in ENVIRONMENTAL:
        return
    missing = [field for field in ("argument", "required", "seen", "converter") if not getattr(reason, field)]
    if missing:
        raise LawViolationError(f"{what}; the reason does not say: {', '.join(missing)}: {reason}")
    if reason.code is not restriction.code or reason.argument.partition("[")[0] not in restriction.arguments:
        raise LawViolationError(f"{what}; the reason speaks of something else: {reason}")


# --- law 6 ------------------------------------------------------------------------------------------------------------


def order_does_not_matter(trial: Trial) -> None:
    """Law 6: the verdict does not depend on registration order, and a blocked plugin leaves no trace."""
    rivals = {c for op in trial.converter.overloads() for c in trial.registry.candidates(op)}
    plugins = [
        dataclasses.replace(plugin, converters=tuple(c for c in plugin.converters if c in rivals), passes=())
        for plugin in trial.registry.plugins
    ]
    forward, backward = _assembled(trial.registry, plugins), _assembled(trial.registry, _reversed(plugins))
    without = _assembled(trial.registry, [p for p in plugins if p.name != trial.converter.plugin])

    def check(data: st.DataObject) -> None:
        trial.tally.tried += 1
        node = bare_node(data.draw(calls(trial.converter), label="call"))
        whole = trial.registry.lookup(node)
        for other in (forward, backward):
            if str(other.lookup(node)) != str(whole) or other.lookup(node).converter is not whole.converter:
                raise LawViolationError(
                    f"{trial.law}: {node.format_node()}: {whole} in one order of registration, {other.lookup(node)}"
                    " in another"
                )
        left = without.explain(node)
        named = [str(r) for r in left.support.reasons if trial.converter.id in str(r)] if left.support else []
        if named or any(c.converter.plugin == trial.converter.plugin for c in left.candidates):
            raise LawViolationError(f"{trial.law}: plugin {trial.converter.plugin!r} is blocked, but is named: {named}")

    trial.explore(check, max(4, trial.profile.calls // 4))


def _reversed(plugins: Sequence[Plugin]) -> list[Plugin]:
    return [
        dataclasses.replace(
            p,
            converters=p.converters[::-1],
            passes=p.passes[::-1],
            pass_choices=p.pass_choices[::-1],
            executors=p.executors[::-1],
        )
        for p in reversed(plugins)
    ]


def _assembled(registry: Registry, plugins: Sequence[Plugin]) -> Registry:
    names = {plugin.name for plugin in plugins}
    prefer = [name for name in registry.prefer if name in names]
    return Registry(plugins, prefer=prefer, exclude=registry.exclude, capabilities=registry.capabilities)


def check_registry(registry: Registry) -> None:
    """Law 6 of a whole registry: converters, passes and fingerprint do not depend on registration order.

    Raises:
        LawViolationError: they do, or a plugin that is left out is still seen.
    """
    other = _assembled(registry, _reversed(registry.plugins))
    for what, one, two in (
        ("order of converters", [c.id for c in registry], [c.id for c in other]),
        ("order of passes", [p.id for p in registry.passes], [p.id for p in other.passes]),
        ("rulings about passes", _rulings(registry), _rulings(other)),
        ("fingerprint", registry.fingerprint, other.fingerprint),
    ):
        if one != two:
            raise LawViolationError(f"the {what} depends on the order of registration")
    for plugin in registry.plugins:
        try:
            rest = _assembled(registry, [p for p in registry.plugins if p is not plugin])
        except Exception as error:  # a pass of another plugin may name one of its passes
            if plugin.passes:
                continue
            raise LawViolationError(f"without plugin {plugin.name!r}: {error}") from error
        traces = [c.id for c in rest if c.plugin == plugin.name] + [
            p.id for p in rest.passes if p.plugin == plugin.name
        ]
        traces += [text for by, text in _rulings(rest) if by == plugin.name]
        if traces or plugin.name in {executor.plugin for executor in rest.executors}:
            raise LawViolationError(f"plugin {plugin.name!r} is blocked, but leaves {traces}")


def _rulings(registry: Registry) -> list[tuple[str, str]]:
    return [(item.by, str(item)) for item in registry.pass_rulings]
