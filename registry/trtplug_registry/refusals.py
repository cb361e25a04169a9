"""Whether one converter takes a call, and why not: its domain, asked with care, and the TensorRT at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from torch.fx import Node

from trtplug_registry.claims import Claims
from trtplug_registry.conversion import DATA_DEPENDENT_SHAPES, Converter
from trtplug_registry.errors import raised
from trtplug_registry.facts import SymbolicSize
from trtplug_registry.relations import tensors_in
from trtplug_registry.specs import seen
from trtplug_registry.support import Reason, ReasonCode


class Capabilities(Protocol):
    """What the TensorRT at hand can do."""

    @property
    def version(self) -> str: ...

    def has(self, name: str) -> bool:
        """Whether the module has this (dotted) name, or this ability (`DATA_DEPENDENT_SHAPES`)."""


class Refusals:
    """The refusals of one registry's converters. A domain that raises, or changes its mind, refuses; nothing raises.

    Args:
        capabilities: the TensorRT at hand; None where every name that a converter `needs` is there.

    Attributes:
        faults: what was found wrong with converters, in words.
    """

    def __init__(self, capabilities: Capabilities | None) -> None:
        self.faults: dict[Converter, str] = {}
        self._capabilities = capabilities
        self._distrusted: dict[Converter, Reason] = {}

    def of_op(self, claims: Claims, converter: Converter) -> Reason | None:
        """Why it takes no call, whatever its arguments."""
        return conflict(claims, converter) or self._lack(converter)

    def of(self, claims: Claims, place: int, node: Node, call: dict[str, Any]) -> Reason | None:
        """Why the converter at this place of the claims does not take a call, or None."""
        converter = claims.converters[place]
        if converter in self._distrusted:
            return self._distrusted[converter]
        try:
            reason = self._asked(converter, claims, place, node, call)
            if not converter.built_in and (converter.domain.relations or converter.domain.outputs):
                self._check_stable(converter, reason, self._asked(converter, claims, place, node, call))
        except (Exception, SystemExit) as error:  # a plugin's relation may raise anything
            text = f"its domain raised {raised(error)}"
            self.faults[converter] = text
            reason = Reason(ReasonCode.RELATION, required="a domain that can be asked", seen=text)
        reason = self._distrusted.get(converter, reason)
        return None if reason is None else dataclasses.replace(reason, converter=converter.id)

    def _check_stable(self, converter: Converter, one: Reason | None, two: Reason | None) -> None:
        """A domain that answers differently when asked twice is not asked again: its converter takes nothing."""
        if (one is None) is (two is None):
            return
        text = f"its domain, asked twice about one call, said {one or 'yes'}, then {two or 'yes'}"
        self.faults[converter] = text
        reason = Reason(ReasonCode.RELATION, required="a domain that answers alike when asked twice", seen=text)
        self._distrusted[converter] = dataclasses.replace(reason, converter=converter.id)

    def _asked(
        self, converter: Converter, claims: Claims, place: int, node: Node, call: dict[str, Any]
    ) -> Reason | None:
        reason = conflict(claims, converter)
        if reason is not None:
            return reason
        for name, default in claims.pinned[place].items():
            if call[name] != default:
                return Reason(ReasonCode.ARGUMENT, name, f"its default, {default!r}", seen(call[name]))
        reason = converter.domain.refusal(call)
        if reason is None and not converter.dynamic_shapes:
            reason = dynamic(call)
        return reason or converter.domain.refusal_of_use(node) or self._lack(converter)

    def _lack(self, converter: Converter) -> Reason | None:
        """What a converter needs that this TensorRT has not; said of calls that it would take otherwise."""
        capabilities = self._capabilities
        if capabilities is None:
            return None
        lacking = (name for name in converter.needs if not capabilities.has(name))
        return next((missing(name, capabilities.version) for name in lacking), None)


def conflict(claims: Claims, converter: Converter) -> Reason | None:
    """The refusal of a converter that another one conflicts with."""
    rival = claims.conflicts.get(converter)
    if rival is None:
        return None
    return Reason(
        ReasonCode.CONFLICT,
        required=f"prefer=[{converter.plugin!r}] or prefer=[{rival.plugin!r}]",
        seen=f"{converter.id} and {rival.id} both claim the op with equal priority",
    )


def missing(name: str, version: str) -> Reason:
    """The refusal of a converter that needs what this TensorRT has not."""
    if name != DATA_DEPENDENT_SHAPES:
        return Reason(ReasonCode.TENSORRT_VERSION, required=name, seen=f"TensorRT {version} has not")
    return Reason(
        ReasonCode.DATA_DEPENDENT_SHAPE,
        required="one that builds engines whose results' shapes depend on values",
        seen=f"TensorRT {version} declares the layer and has no implementation of it",
        because="the shape of the op's result depends on values, not only on the inputs' shapes",
    )


def dynamic(call: Mapping[str, Any]) -> Reason | None:
    """The refusal of a call with a symbolic size, by a converter that takes none."""
    for name, value in call.items():
        for facts in tensors_in(value):
            if any(isinstance(size, SymbolicSize) for size in facts.shape):
                return Reason(ReasonCode.DYNAMIC_SHAPE, name, "static shapes", seen(facts))
    return None
