"""What a converter forbids, each thing as a domain from which calls can be drawn that violate just that."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from trtplug.testing.drawn import DrawnCall
from trtplug_registry import Converter, Domain, ListOf, Not, Optional, ReasonCode, Restriction, Spec, Tensor


@dataclasses.dataclass(frozen=True)
class Forbidden:
    """One thing that a converter forbids.

    Attributes:
        code: the reason that it gives.
        arguments: those that the reason may name.
        label: in words.
        because: why.
        domain: admits what is forbidden, and everything else as the converter's own does.
        own: the converter's own domain.
        all_dynamic: whether it is symbolic sizes as such that the converter forbids.
    """

    code: ReasonCode
    arguments: tuple[str, ...]
    label: str
    because: str
    domain: Domain
    own: Domain
    all_dynamic: bool = False

    def violated_by(self, call: DrawnCall) -> bool:
        """Whether a drawn call is in `domain`, but not in the converter's own."""
        pinned = self.arguments[0] not in self.own.arguments
        try:
            inside = self.domain.refusal(call.arguments) is None
            return inside and (pinned or self.own.refusal(call.arguments) is not None)
        except Exception:  # a relation that was not written for such calls
            return False

    def __str__(self) -> str:
        return f"{self.code.value}, {', '.join(self.arguments)}: {self.label}"


def forbidden(converter: Converter) -> Iterator[Forbidden]:
    """Everything that a converter forbids: its domain's restrictions, arguments that must have their defaults, and
    symbolic sizes where it takes none at all.
    """
    domain = converter.domain
    for restriction in domain.restrictions():
        negated, arguments = _with_linked(domain, restriction)
        because = restriction.because
        yield Forbidden(restriction.code, arguments, restriction.label, because, negated, domain)
    for argument in converter.overloads()[0]._schema.arguments:
        if argument.name not in domain.arguments and str(argument.real_type) in _SPOKEN_OF:
            spec = Not((argument.default_value,))
            label = f"not its default, {argument.default_value!r}"
            open_domain = _replaced(domain, {argument.name: spec})
            yield Forbidden(ReasonCode.ARGUMENT, (argument.name,), label, "", open_domain, domain)
    if not converter.dynamic_shapes and domain.tensors():
        opened = {name: _opened(spec, dynamic=True, static_axes=()) for name, spec in domain.arguments.items()}
        names = tuple(domain.tensors())
        code = ReasonCode.DYNAMIC_SHAPE
        yield Forbidden(code, names, "a symbolic size", "", _replaced(domain, opened), domain, all_dynamic=True)


_SPOKEN_OF = frozenset(
    f"{wrap}{kind}{']' if wrap else ''}"
    for wrap in ("", "Optional[")
    for kind in ("bool", "int", "float", "number", "str", "ScalarType", "List[int]")
) - {"Optional[bool]"}
"""Types of arguments of which other values than the default are known; ``pin_memory`` and its like say nothing here."""


def _with_linked(domain: Domain, restriction: Restriction) -> tuple[Domain, tuple[str, ...]]:
    """The negated domain, opened alike for tensors that a relation keeps alike (of one dtype, of one shape)."""
    negated = restriction.negated
    if restriction.code not in _LINKED or len(restriction.arguments) != 1:
        return negated, restriction.arguments
    (name,) = restriction.arguments
    tensors = domain.tensors()
    if name not in tensors:
        return negated, restriction.arguments
    linked = {other for relation in domain.relations if name in relation.arguments for other in relation.arguments}
    forced = negated.tensors()[name]
    changed: dict[str, Spec] = {}
    for other in linked & set(tensors) - {name}:
        changes: dict[str, Any] = {}
        if restriction.code is ReasonCode.DTYPE and tensors[other].dtypes == tensors[name].dtypes:
            changes["dtypes"] = forced.dtypes
        if restriction.code is ReasonCode.RANK:
            ranks = (*tensors[other].rank, *forced.rank)
            changes["rank"] = (min(ranks), max(ranks))
        if restriction.code is ReasonCode.ZERO_SIZE:
            changes["zero_size"] = True
        if restriction.code is ReasonCode.DYNAMIC_SHAPE:
            changes |= {"dynamic": True, "static_axes": ()}
        changed[other] = _opened(negated.arguments[other], **changes)
    return _replaced(negated, changed), (name, *sorted(changed))


_LINKED = (ReasonCode.DTYPE, ReasonCode.RANK, ReasonCode.ZERO_SIZE, ReasonCode.DYNAMIC_SHAPE)


def _opened(spec: Spec, **changes: Any) -> Spec:
    if isinstance(spec, Tensor):
        return dataclasses.replace(spec, **changes)
    if isinstance(spec, Optional | ListOf):
        return dataclasses.replace(spec, item=_opened(spec.item, **changes))
    return spec


def _replaced(domain: Domain, changes: dict[str, Spec]) -> Domain:
    return Domain(*domain.relations, *domain.outputs, **{**domain.arguments, **changes})
