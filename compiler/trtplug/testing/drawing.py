"""Whole calls, drawn from a converter's domain: arguments by their specs, then put in order by the relations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from hypothesis import assume, reject
from hypothesis import strategies as st
from torch._ops import OpOverload

from trtplug.testing.arguments import Bounds, Draws, Request, draw_argument
from trtplug.testing.descriptions.places import IN_ORDER, UP_TO_THE_END
from trtplug.testing.drawn import DrawnCall, Layout
from trtplug.testing.elements import Fill, fills, in_order
from trtplug.testing.errors import UndescribedError
from trtplug.testing.strategies import permutations, sampled
from trtplug_registry import (
    Axis,
    Converter,
    Domain,
    ListOf,
    Optional,
    Relation,
    Spec,
    TensorFacts,
    qualified_name,
    tensors_in,
)


def leading(domain: Domain) -> str | None:
    """The argument whose dtype a law test is about: the first tensor that may have several, else the first."""
    tensors = domain.tensors()
    several = [name for name, spec in tensors.items() if len(spec.dtypes) > 1]
    return next(iter(several or tensors), None)


def dtypes_of(domain: Domain) -> tuple[torch.dtype | None, ...]:
    """The dtypes of the leading argument; (None,) for an op without tensors."""
    name = leading(domain)
    return (None,) if name is None else domain.tensors()[name].dtypes


def one_of_each_kind(dtypes: tuple[torch.dtype | None, ...]) -> tuple[torch.dtype | None, ...]:
    """The first float, the first integer, and bool, of those that are there."""
    kinds: dict[object, torch.dtype | None] = {}
    for dtype in dtypes:
        kinds.setdefault("float" if dtype is not None and dtype.is_floating_point else dtype is torch.bool, dtype)
    return tuple(kinds.values())


@st.composite
def calls(
    draw: st.DrawFn,
    converter: Converter,
    dtype: torch.dtype | None = None,
    *,
    domain: Domain | None = None,
    overload: OpOverload | None = None,
    bounds: Bounds | None = None,
) -> DrawnCall:
    """A well-formed call of the converter's op, as far as its domain can say; eager has the last word.

    Args:
        draw: given by Hypothesis.
        converter: whose op, overloads and domain.
        dtype: of the leading tensor (see `leading`); any that the domain takes where None.
        domain: drawn from instead of the converter's own, as for a refusal test.
        overload: of the converter's; any where None.
        bounds: how large tensors may be.
    """
    draws = Draws(draw)
    domain = converter.domain if domain is None else domain
    options = converter.overloads()
    op = overload or (draws(sampled(options), "overload") if len(options) > 1 else options[0])
    arguments = _arguments(draws, domain, op, dtype, bounds or Bounds())
    for relation in domain.relations:
        draws.subject = relation.name
        if relation.arrange is not None:
            _arrange(relation, arguments, draws, strict=domain is converter.domain)
    lead = leading(domain)
    if lead is not None and dtype is not None and dtype in domain.tensors()[lead].dtypes:
        assume(all(facts.dtype == dtype for facts in tensors_in(arguments[lead])))
    call = DrawnCall(op, arguments)
    assume(all(facts.numel <= 4096 for facts in call.tensors.values()))
    layouts = {place: draw(_layouts(facts), label=f"{place}: layout") for place, facts in call.tensors.items()}
    return DrawnCall(op, arguments, layouts)


def _arguments(
    draws: Draws, domain: Domain, op: OpOverload, dtype: torch.dtype | None, bounds: Bounds
) -> dict[str, Any]:
    """Every argument that the domain names, tensors first, since an axis depends on a rank; in the schema's order."""
    schema = {argument.name: argument for argument in op._schema.arguments}
    names = [name for name in schema if name in domain.arguments]
    drawn: dict[str, Any] = {}
    for name in sorted(names, key=lambda name: _has_axis(domain.arguments[name])):
        argument = schema[name]
        default = argument.default_value if argument.has_default_value() else ...
        request = Request(name, str(argument.real_type), default, dtype, bounds, drawn)
        drawn[name] = draw_argument(draws, domain.arguments[name], request)
    return {name: drawn[name] for name in names}


def _arrange(relation: Relation, arguments: dict[str, Any], draws: Draws, strict: bool) -> None:
    """Arranges a call; where it is drawn from a negated domain, which the relation was not written for, in vain."""
    assert relation.arrange is not None
    try:
        relation.arrange(arguments, draws)
    except (IndexError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, AssertionError) as error:
        if strict:
            shown = ", ".join(f"{name}={arguments.get(name)}" for name in relation.arguments)
            raise UndescribedError(
                f"the relation {relation.name!r} cannot arrange a call with {shown}: {type(error).__name__}: {error}"
            ) from error
        reject()


def _has_axis(spec: Spec) -> bool:
    inner = spec
    while isinstance(inner, Optional | ListOf):
        inner = inner.item
    return isinstance(inner, Axis)


@st.composite
def _layouts(draw: st.DrawFn, facts: TensorFacts) -> Layout:
    kind = draw(sampled(("contiguous", "contiguous", "permuted", "sliced", "offset", "expanded")))
    if kind == "permuted" and facts.rank > 1:
        order = tuple(draw(permutations(facts.rank)))
        return Layout(kind, order) if order != tuple(range(facts.rank)) else Layout()
    if kind == "expanded":
        axes = tuple(axis for axis, size in enumerate(facts.shape) if size not in (0, 1))[:1]
        return Layout(kind, axes) if axes else Layout()
    return Layout(kind) if kind in ("sliced", "offset") else Layout()


@st.composite
def values(draw: st.DrawFn, call: DrawnCall) -> dict[str, torch.Tensor]:
    """Values for every tensor of a call, by place, laid out as the call says."""
    return {
        place: _filled(call, place, facts, draw(fills(facts, place), label=f"{place}: values"))
        for place, facts in call.tensors.items()
    }


def plain_values(call: DrawnCall) -> Mapping[str, torch.Tensor]:
    """Small positive values, which no op refuses that takes any at all."""
    return {place: _filled(call, place, facts, Fill("positive")) for place, facts in call.tensors.items()}


def _filled(call: DrawnCall, place: str, facts: TensorFacts, fill: Fill) -> torch.Tensor:
    elements = fill(facts)
    if IN_ORDER.get(qualified_name(call.op)) == place:
        elements = in_order(elements)
    if UP_TO_THE_END.get(qualified_name(call.op)) == place and facts.values is not None:
        return in_order(elements).index_fill_(0, torch.tensor([-1]), facts.values[1])
    return call.layouts.get(place, Layout())(elements)
