"""Which calls of an op eager takes, in the words of a `Domain`: what the laws of lowering draw from.

A converter's domain says that for the ops that it takes. Of one that is decomposed, `trtplug.testing.descriptions` has
what a schema leaves open; for the rest the schema and Torch's own tags are enough.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch._ops import OpOverload

from trtplug.testing.arrangements import FLOAT
from trtplug.testing.descriptions import ALIKE, DESCRIPTIONS, LIKE
from trtplug_registry import (
    Axis,
    Converter,
    Domain,
    ListOf,
    Only,
    Optional,
    Registry,
    Spec,
    Static,
    Tensor,
    broadcastable,
    overloads_named,
    qualified_name,
    same_dtype,
    same_shape,
)


class Described(Converter):
    """The calls of one op that eager takes, where a converter is expected. Nothing is converted by it."""

    def overloads(self) -> tuple[OpOverload, ...]:
        assert isinstance(self.target, OpOverload)
        return (self.target,)


def described(op: OpOverload, registry: Registry) -> Described | None:
    """An op's calls; None where nobody has described them and the schema does not say enough.

    Args:
        op: the overload.
        registry: whose converters' domains say what calls look like, where there is one of the op.
    """
    name = qualified_name(op)
    domain = DESCRIPTIONS.get(name)
    if name in LIKE:
        other, changes = LIKE[name]
        domain = _of_converter(overloads_named(other)[0], registry, changes)
    if domain is None:
        domain = _of_converter(op, registry, {}) or _of_schema(op)
    return None if domain is None else Described(op, domain, _nothing, name="described")


def is_hand_written(op: OpOverload) -> bool:
    """Whether more than a converter's domain or the schema describes the op's calls."""
    return qualified_name(op) in {**DESCRIPTIONS, **LIKE}


def _nothing(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("a description converts nothing")


def _of_converter(op: OpOverload, registry: Registry, changes: Mapping[str, Spec]) -> Domain | None:
    """What a converter's domain says of the shape of calls, without what it restricts them to."""
    found = next(iter(registry.candidates(op)), None)
    if found is None:
        return None
    domain = found.domain
    relations = [dataclasses.replace(relation, holds=None) for relation in domain.relations if relation.arrange]
    arguments = {name: _widened(spec) for name, spec in domain.arguments.items()}
    return Domain(*relations, **{**arguments, **changes})


def _widened(spec: Spec) -> Spec:
    """A spec without TensorRT's own restrictions on a tensor; which dtypes there are, eager says."""
    if isinstance(spec, Optional | ListOf):
        return dataclasses.replace(spec, item=_widened(spec.item))
    if isinstance(spec, Tensor):
        return dataclasses.replace(spec, dynamic=True, static_axes=(), constant=False, zero_size=True)
    return spec


def _of_schema(op: OpOverload) -> Domain | None:
    """Tensors that broadcast, numbers by their type: of ops that are pointwise by their tags or that `ALIKE` names."""
    name = op._schema.name.partition("::")[2]
    pointwise = torch.Tag.pointwise in op.tags
    if name.startswith("_") or not (pointwise or name in ALIKE):  # internal ops do not check their arguments
        return None
    arguments: dict[str, Spec] = {}
    leading = next((a.name for a in op._schema.arguments if str(a.real_type) == "Tensor"), "")
    for argument in op._schema.arguments:
        spec = _spec(argument, leading, Tensor(rank=(0, 5)) if pointwise else FLOAT)
        if spec is None and not argument.has_default_value():
            return None
        if spec is not None:
            arguments[argument.name] = spec
    tensors = [name for name, spec in arguments.items() if isinstance(spec, Tensor)]
    if len(tensors) < 2:
        return Domain(**arguments)
    alike = [broadcastable(*tensors)] if pointwise else [same_dtype(*tensors), same_shape(*tensors)]
    return Domain(*alike, **arguments)


def _spec(argument: Any, leading: str, tensor: Tensor) -> Spec | None:
    """What an argument may be; None for one that keeps its default."""
    name, kind = argument.name, str(argument.real_type)
    if kind == "Tensor":
        return tensor
    if kind == "number":
        return Static(-4, 4)
    if kind == "bool" and not argument.has_default_value():
        return Only(False, True)
    if kind in ("int", "SymInt") and name in ("dim", "dim0", "dim1", "axis") and leading:
        return Axis(leading)
    if kind in ("int", "SymInt") and name == "reduction":
        return Only(0, 1, 2)
    if kind == "float":
        return Static(0.125, 4)
    return None
