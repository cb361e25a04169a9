"""Running a single op through a registry, as the scripts in failure messages do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node

from trtplug.convert import convert
from trtplug.errors import ConversionError
from trtplug.ranges import Range
from trtplug.testing.drawn import DrawnCall, call_of, static_shape
from trtplug.testing.graphs import allowed_results, call_graph
from trtplug.testing.symbolic import Plan, SizeOf, symbolic_call
from trtplug_registry import (
    Converter,
    LoweringPass,
    Plugin,
    Registry,
    TensorFacts,
    describe_tensor,
    unknown_name,
)


def registry_of(
    converters: Iterable[Converter] = (), passes: Iterable[LoweringPass] = (), name: str = "tested"
) -> Registry:
    """A registry that holds just these, as if one plugin had brought them."""
    stamped = tuple(dataclasses.replace(converter, plugin=name) for converter in converters)
    stamped_passes = tuple(dataclasses.replace(lowering_pass, plugin=name) for lowering_pass in passes)
    return Registry([Plugin(name, converters=stamped, passes=stamped_passes)])


def run_op(
    registry: Registry,
    op: OpOverload,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    constants: Sequence[str] = (),
    converter: str = "",
    symbolic: Mapping[str, Sequence[int]] | None = None,
    example: Mapping[str, Sequence[int]] | None = None,
    ranges: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    sizes: Mapping[str, SizeOf] | None = None,
    beside: Mapping[str, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, ...]:
    """Converts one call of an op and runs it on the reference executor.

    Args:
        registry: says who converts it.
        op: the overload.
        args, kwargs: of the call, with real tensors.
        constants: the places (``weight``, ``tensors[1]``) of tensors that are constants of the graph.
        converter: the id of the converter to use, even where its domain refuses the call.
        symbolic: the axes of each input that are symbolic, by place.
        example: the shapes of these inputs when the graph is traced, where they differ from those of `args`.
        ranges: smallest and largest size of each of these axes.
        sizes: int arguments that are computed from input sizes, by place.
        beside: inputs that are no arguments, but whose sizes `sizes` may name.

    Returns:
        The results that the converter makes, in order.

    Raises:
        ConversionError: no converter takes the call, or its conversion fails.
    """
    call, tensors = call_of(op, tuple(args), kwargs or {})
    call = dataclasses.replace(call, beside={place: describe_tensor(t) for place, t in (beside or {}).items()})
    tensors |= beside or {}
    forced = _named(registry, converter) if converter else None
    allowed = allowed_results(forced) if forced else None
    if not symbolic:
        graph = call_graph(call, tensors, constants, allowed)
        network = convert(graph.module, lambda node: forced or _asked(registry, node), name="call")
        return tuple(network.lift()(*graph.inputs(tensors)))
    plan = Plan({place: tuple(axes) for place, axes in symbolic.items()}, dict(sizes or {}))
    traced = _example(call, plan, example or {})
    drawn = {
        place: tensors[place] if place in constants else torch.ones(static_shape(facts), dtype=facts.dtype)
        for place, facts in traced.tensors.items()
    }
    dynamic = symbolic_call(traced, drawn, constants, plan, allowed=allowed)
    if dynamic is None:
        raise ConversionError(f"no size of {traced} can be symbolic")
    spans = {symbol: Range(hint, hint, hint) for symbol, hint in dynamic.hints.items()}
    for place, limits in (ranges or {}).items():
        for axis, (low, high) in zip(symbolic[place], limits):
            size = dynamic.shapes[place][axis]
            if size in spans:
                spans[size] = Range(low, dynamic.hints[size], high)
    dynamic.restrict(spans)
    network = convert(dynamic.graph.module, lambda node: forced or _asked(registry, node), ranges=spans, name="call")
    return tuple(network.lift()(*dynamic.graph.inputs(tensors)))


def _example(call: DrawnCall, plan: Plan, example: Mapping[str, Sequence[int]]) -> DrawnCall:
    """The call with the shapes that the graph is traced with."""

    def tensor(place: str, facts: TensorFacts) -> TensorFacts:
        return facts._replace(shape=tuple(example.get(place, facts.shape)))

    traced = call.replace_tensors(tensor)

    def size(place: str, value: Any) -> Any:
        if isinstance(value, list):
            return [size(f"{place}[{index}]", item) for index, item in enumerate(value)]
        expression = plan.sizes.get(place)
        return value if expression is None else expression.of(lambda where, axis: traced.tensors[where].shape[axis])

    return dataclasses.replace(traced, arguments={name: size(name, value) for name, value in traced.arguments.items()})


def _named(registry: Registry, name: str) -> Converter:
    for converter in registry:
        if converter.id == name:
            return converter
    raise unknown_name("converter", name, [converter.id for converter in registry])


def _asked(registry: Registry, node: Node) -> Converter:
    support = registry.lookup(node)
    if support.converter is None:
        raise ConversionError(f"no converter takes it: {support}", node)
    return support.converter
