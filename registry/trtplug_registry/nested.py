"""Specs made of other specs: lists, what may be None, alternatives."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from trtplug_registry.facts import Call, TensorFacts
from trtplug_registry.specs import Because, Negation, Several, Spec, Tensor, between, seen
from trtplug_registry.support import Reason, ReasonCode


@dataclasses.dataclass(frozen=True)
class ListOf(Spec):
    """A list of between `shortest` and `longest` items, each as `item` says."""

    item: Spec
    shortest: int = 0
    longest: int = 1_000_000
    because: Because = ""

    def refusal(self, argument: str, value: Any, call: Call) -> Reason | None:
        if not isinstance(value, list | tuple):
            return Reason(ReasonCode.ARGUMENT, argument, "a list", seen(value))
        if not self.shortest <= len(value) <= self.longest:
            wanted = between("as many items as", self.shortest, self.longest)
            return Reason(ReasonCode.ARGUMENT, argument, wanted, f"{len(value)} items", self.reason("length"))
        for place, item in enumerate(value):
            refusal = self.item.refusal(f"{argument}[{place}]", item, call)
            if refusal is not None:
                return refusal
        return None

    def negations(self) -> Iterator[Negation]:
        for negation in self.item.negations():
            yield dataclasses.replace(negation, spec=dataclasses.replace(self, item=negation.spec))
        if self.shortest > 0:
            fewer = dataclasses.replace(self, shortest=0, longest=self.shortest - 1)
            yield Negation(ReasonCode.ARGUMENT, f"fewer than {self.shortest}", fewer)
        if self.longest < 1_000_000:
            more = dataclasses.replace(self, shortest=self.longest + 1, longest=self.longest + 3)
            yield Negation(ReasonCode.ARGUMENT, f"more than {self.longest}", more)

    def __str__(self) -> str:
        return f"a list of: {self.item}"


@dataclasses.dataclass(frozen=True)
class Optional(Several):
    """None, or as `item` says."""

    item: Spec
    because: Because = ""

    def refusal(self, argument: str, value: Any, call: Call) -> Reason | None:
        return None if value is None else self.item.refusal(argument, value, call)

    def negations(self) -> Iterator[Negation]:
        return self.item.negations()

    def disjoint(self, other: Spec) -> bool:
        return not isinstance(other, Optional) and self.item.disjoint(other) and other.refusal("", None, {}) is not None

    def __str__(self) -> str:
        return f"none, or {self.item}"


@dataclasses.dataclass(frozen=True, init=False)
class Either(Several):
    """As any one of these specs says: a tensor or a number, say, where an op takes both."""

    options: tuple[Spec, ...]
    because: Because = ""

    def __init__(self, *options: Spec, because: Because = "") -> None:
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "because", because)

    def refusal(self, argument: str, value: Any, call: Call) -> Reason | None:
        reasons = [option.refusal(argument, value, call) for option in self.options]
        if None in reasons:
            return None
        is_tensor = isinstance(value, TensorFacts)
        nearest = [r for o, r in zip(self.options, reasons, strict=True) if isinstance(o, Tensor) == is_tensor]
        return (nearest or reasons)[0]

    def negations(self) -> Iterator[Negation]:
        for option in self.options:
            yield from option.negations()

    def disjoint(self, other: Spec) -> bool:
        return all(option.disjoint(other) for option in self.options)

    def __str__(self) -> str:
        return ", or ".join(map(str, self.options))
