"""A drawn call: which op, with which arguments, tensors being facts and layouts until their values are drawn too."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._ops import OpOverload

from trtplug_registry import TensorFacts, describe_tensor, describe_value, qualified_name


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a tensor's elements lie in memory. What eager computes must not depend on it, nor what a converter does.

    Attributes:
        kind: ``contiguous``, ``permuted``, ``sliced`` (every second element of its storage), ``offset`` (not at its
            storage's start) or ``expanded`` (stride 0).
        axes: the permutation, or the axes of stride 0.
    """

    kind: str = "contiguous"
    axes: tuple[int, ...] = ()

    def code(self, name: str, tensor: torch.Tensor) -> str:
        """A Python expression that lays out the contiguous tensor called `name`."""
        if self.kind == "permuted":
            inverse = tuple(self.axes.index(place) for place in range(len(self.axes)))
            return f"{name}.permute({self.axes}).contiguous().permute({inverse})"
        if self.kind == "sliced":
            return f"torch.stack(({name}, torch.zeros_like({name})), dim=-1)[..., 0]"
        if self.kind == "offset":
            shape = tuple(tensor.shape)
            return f"torch.cat(({name}.new_zeros(1), {name}.flatten()))[1:].view({shape})"
        if self.kind == "expanded":
            narrow = "".join(f".narrow({axis}, 0, 1)" for axis in self.axes)
            return f"{name}{narrow}.expand({tuple(tensor.shape)})"
        return name

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same values in this layout; where expanded, the first ones along the axes of stride 0."""
        result: torch.Tensor = eval(self.code("x", tensor), {"torch": torch, "x": tensor.contiguous()})
        return result


@dataclasses.dataclass(frozen=True, eq=False)
class DrawnCall:
    """One well-formed call of an op.

    Attributes:
        op: the overload.
        arguments: by the schema's names; each tensor is a `TensorFacts` with int sizes.
        layouts: by place (``self``, ``tensors[1]``); contiguous where there is none.
        beside: tensors that are no arguments, but whose sizes arguments may be: an op without tensors has no others.
    """

    op: OpOverload
    arguments: Mapping[str, Any]
    layouts: Mapping[str, Layout] = dataclasses.field(default_factory=dict)
    beside: Mapping[str, TensorFacts] = dataclasses.field(default_factory=dict)

    @property
    def tensors(self) -> dict[str, TensorFacts]:
        """Every tensor argument by its place, in the order of the schema."""
        found: dict[str, TensorFacts] = {}
        self.spell(lambda place, leaf: found.setdefault(place, leaf) if isinstance(leaf, TensorFacts) else leaf)
        return {**found, **self.beside}

    def spell(self, leaf: Callable[[str, Any], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments, spelt as `torch.export` does: trailing defaults are left out.

        Args:
            leaf: called with the place and the value of everything that is not a list.
        """
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        keep = 0
        for argument in self.op._schema.arguments:
            given = argument.name in self.arguments
            drawn = self.arguments[argument.name] if given else argument.default_value
            is_default = argument.has_default_value() and same(drawn, argument.default_value)
            value = drawn if is_default else _map_leaves(argument.name, drawn, leaf)
            if not argument.kwarg_only:
                args.append(value)
                keep = keep if is_default else len(args)
            elif not is_default:
                kwargs[argument.name] = value
        return tuple(args[:keep]), kwargs

    def bind(self, tensors: Mapping[str, torch.Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with these tensors at their places."""
        return self.spell(lambda place, leaf: tensors[place] if isinstance(leaf, TensorFacts) else leaf)

    def replace_tensors(self, change: Callable[[str, TensorFacts], TensorFacts]) -> DrawnCall:
        def leaf(place: str, value: Any) -> Any:
            return change(place, value) if isinstance(value, TensorFacts) else value

        changed = {name: _map_leaves(name, value, leaf) for name, value in self.arguments.items()}
        beside = {place: change(place, facts) for place, facts in self.beside.items()}
        return dataclasses.replace(self, arguments=changed, beside=beside)

    def __str__(self) -> str:
        def show(value: Any) -> str:
            listed = isinstance(value, list | tuple) and not isinstance(value, TensorFacts)
            return f"[{', '.join(map(show, value))}]" if listed else repr(value)

        given = ", ".join(f"{name}={show(value)}" for name, value in self.arguments.items())
        layouts = ", ".join(f"{place} {layout.kind}" for place, layout in self.layouts.items() if layout != Layout())
        return f"{qualified_name(self.op)}({given})" + (f" where {layouts}" if layouts else "")


def call_of(op: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[DrawnCall, dict[str, Any]]:
    """The call that these concrete arguments make, and its tensors by place."""
    names = [argument.name for argument in op._schema.arguments]
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    tensors: dict[str, torch.Tensor] = {}

    def leaf(place: str, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            tensors[place] = value
            return describe_tensor(value)
        return describe_value(value)

    arguments = {name: _map_leaves(name, given[name], leaf) for name in names if name in given}
    return DrawnCall(op, arguments), tensors


def _map_leaves(place: str, value: Any, leaf: Callable[[str, Any], Any]) -> Any:
    if isinstance(value, list | tuple) and not isinstance(value, TensorFacts):
        return [_map_leaves(f"{place}[{index}]", item, leaf) for index, item in enumerate(value)]
    return leaf(place, value)


def static_shape(facts: TensorFacts) -> tuple[int, ...]:
    """The shape of a drawn tensor, whose sizes are ints."""
    shape = tuple(size for size in facts.shape if isinstance(size, int))
    assert len(shape) == facts.rank
    return shape


def same(one: Any, other: Any) -> bool:
    """Equal, and of equal types, so that 1 is not True."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)
