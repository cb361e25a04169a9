"""The argument domain of a converter: a spec for each argument, and relations between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch.fx import Node

from trtplug_registry.errors import DeclarationError
from trtplug_registry.facts import Call
from trtplug_registry.nested import Either, ListOf, Optional
from trtplug_registry.relations import OutputsUsed, Relation
from trtplug_registry.specs import Axis, Negation, Only, Spec, Tensor
from trtplug_registry.support import Reason, ReasonCode


@dataclasses.dataclass(frozen=True)
class Restriction:
    """One thing that a domain forbids, for the refusal tests and the matrix.

    Attributes:
        code: the reason that the domain gives.
        arguments: the arguments that it speaks of.
        label: in words.
        because: why.
        negated: a domain that forbids everything else, and demands nothing here.
    """

    code: ReasonCode
    arguments: tuple[str, ...]
    label: str
    because: str
    negated: Domain

    def __str__(self) -> str:
        return f"{self.code.value} {', '.join(self.arguments)}: {self.label}"


class Domain:
    """What a converter accepts.

    Args:
        relations: `Relation` and `OutputsUsed` values.
        arguments: a spec for each argument, by the schema's name. An argument that is not named must have its schema's
            default; one that has none must be named.

    Raises:
        DeclarationError: what is given is no spec or relation, or speaks of arguments that are not there.
    """

    __slots__ = ("arguments", "outputs", "relations")

    def __init__(self, /, *relations: Relation | OutputsUsed, **arguments: Spec) -> None:
        for name, spec in arguments.items():
            if not isinstance(spec, Spec):
                raise DeclarationError(f"domain: {name}={spec!r} is not a spec such as Tensor(), Static() or Only()")
        for relation in relations:
            if not isinstance(relation, Relation | OutputsUsed):
                raise DeclarationError(f"domain: {relation!r} is not a Relation")
        self.arguments: Mapping[str, Spec] = dict(arguments)
        self.relations = tuple(relation for relation in relations if isinstance(relation, Relation))
        self.outputs = tuple(relation for relation in relations if isinstance(relation, OutputsUsed))
        for relation in self.relations:
            for name in relation.arguments:
                if name not in arguments:
                    raise DeclarationError(
                        f"domain: the relation {relation.name!r} speaks of {name!r}, which has no spec"
                    )
        for name, spec in arguments.items():
            _check_consistent(name, spec, arguments)

    def refusal(self, call: Call) -> Reason | None:
        """Why a call is outside the domain, or None. Looks at arguments in order, then at relations."""
        for name, spec in self.arguments.items():
            reason = spec.refusal(name, call[name], call)
            if reason is not None:
                return reason
        for relation in self.relations:
            reason = relation.refusal(call)
            if reason is not None:
                return reason
        return None

    def refusal_of_use(self, node: Node) -> Reason | None:
        """Why the way in which a node's results are used is outside the domain, or None."""
        for outputs in self.outputs:
            reason = outputs.refusal(node)
            if reason is not None:
                return reason
        return None

    def restrictions(self) -> Iterator[Restriction]:
        """Everything that the domain forbids, one at a time."""
        for name, spec in self.arguments.items():
            for negation in spec.negations():
                yield self._without(name, spec, negation)
        for relation in self.relations:
            if relation.holds is not None:
                rest = tuple(other for other in self.relations if other is not relation)
                negated = Domain(*rest, *self.outputs, **self.arguments)
                label = f"not: {relation.name}"
                yield Restriction(ReasonCode.RELATION, relation.arguments, label, relation.because, negated)

    def _without(self, name: str, spec: Spec, negation: Negation) -> Restriction:
        negated = Domain(*self.relations, *self.outputs, **{**self.arguments, name: negation.spec})
        because = spec.because if isinstance(spec.because, str) else "; ".join(spec.because.values())
        return Restriction(negation.code, (name,), negation.label, because, negated)

    def disjoint(self, other: Domain) -> bool:
        """Whether provably no call is in both, by some single argument."""
        shared = self.arguments.keys() & other.arguments.keys()
        return any(self.arguments[name].disjoint(other.arguments[name]) for name in shared)

    def tensors(self) -> Mapping[str, Tensor]:
        """The arguments that are tensors, optional tensors or lists of tensors, with their specs."""
        found = {name: _tensor_spec(spec) for name, spec in self.arguments.items()}
        return {name: spec for name, spec in found.items() if spec is not None}

    def __repr__(self) -> str:
        parts = [f"{name}: {spec}" for name, spec in self.arguments.items()]
        return "; ".join(parts + [str(relation) for relation in self.relations if relation.holds is not None])


def _tensor_spec(spec: Any) -> Tensor | None:
    while isinstance(spec, Optional | ListOf):
        spec = spec.item
    if isinstance(spec, Either):
        return next(filter(None, map(_tensor_spec, spec.options)), None)
    return spec if isinstance(spec, Tensor) else None


def _check_consistent(name: str, spec: Spec, arguments: Mapping[str, Spec]) -> None:
    inner: Any = spec
    while isinstance(inner, Optional | ListOf):
        inner = inner.item
    if isinstance(inner, Axis) and inner.of not in arguments:
        raise DeclarationError(f"domain: {name} is an axis of {inner.of!r}, which has no spec")
    if isinstance(inner, Tensor) and not (isinstance(inner.rank, tuple) and len(inner.rank) == 2):
        raise DeclarationError(f"domain: the rank of {name} is (lowest, highest), not {inner.rank!r}")
    if isinstance(inner, Tensor) and (not inner.dtypes or inner.rank[0] > inner.rank[1]):
        raise DeclarationError(f"domain: {name} admits nothing: {inner}")
    if isinstance(inner, Only) and not inner.values:
        raise DeclarationError(f"domain: {name} admits nothing")
    low, high = getattr(inner, "lo", 0), getattr(inner, "hi", 0)
    if low > high:
        raise DeclarationError(f"domain: {name} admits nothing: {low} to {high}")
