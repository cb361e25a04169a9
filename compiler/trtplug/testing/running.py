"""Running a single op through a registry, as the scripts in failure messages do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import fx, nn
from torch._ops import OpOverload
from torch.fx import Node
from torch.utils import _pytree as pytree

from trtplug.convert import convert
from trtplug.errors import ConversionError
from trtplug.lowering import Lifted, lower_lifted
from trtplug.network import Network
from trtplug.partition import extract, link, partition
from trtplug.ranges import Range
from trtplug.testing.drawn import DrawnCall, call_of, static_shape
from trtplug.testing.graphs import allowed_results, call_graph
from trtplug.testing.symbolic import Plan, SizeOf, SymbolicCall, symbolic_call
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
    call, tensors = _described(op, args, kwargs or {}, beside or {})
    forced = _named(registry, converter) if converter else None
    allowed = allowed_results(forced) if forced else None
    if not symbolic:
        graph = call_graph(call, tensors, constants, allowed)
        network = convert(graph.module, lambda node: forced or _asked(registry, node), name="call")
        return tuple(network.lift()(*graph.inputs(tensors)))
    dynamic, spans = _dynamic(call, tensors, constants, symbolic, example or {}, ranges or {}, sizes or {}, allowed)
    network = convert(dynamic.graph.module, lambda node: forced or _asked(registry, node), ranges=spans, name="call")
    return tuple(network.lift()(*dynamic.graph.inputs(tensors)))


def run_lowered_op(
    registry: Registry,
    op: OpOverload,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    constants: Sequence[str] = (),
    symbolic: Mapping[str, Sequence[int]] | None = None,
    example: Mapping[str, Sequence[int]] | None = None,
    ranges: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    sizes: Mapping[str, SizeOf] | None = None,
    beside: Mapping[str, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, ...]:
    """Lowers one call of an op, converts what the registry takes of it and runs the whole; arguments as for `run_op`.

    Raises:
        ConversionError: a conversion fails.
    """
    call, tensors = _described(op, args, kwargs or {}, beside or {})
    if symbolic:
        dynamic, spans = _dynamic(call, tensors, constants, symbolic, example or {}, ranges or {}, sizes or {})
        linked, _, _ = lowered_module(registry, dynamic.graph.module, spans)
        return tuple(linked(*dynamic.graph.inputs(tensors)))
    graph = call_graph(call, tensors, constants)
    linked, _, _ = lowered_module(registry, graph.module, {})
    return tuple(linked(*graph.inputs(tensors)))


def _described(
    op: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], beside: Mapping[str, torch.Tensor]
) -> tuple[DrawnCall, dict[str, torch.Tensor]]:
    """The call as the laws draw it, with its tensors and those beside it by place."""
    call, tensors = call_of(op, tuple(args), kwargs)
    call = dataclasses.replace(call, beside={place: describe_tensor(tensor) for place, tensor in beside.items()})
    return call, {**tensors, **beside}


def _dynamic(
    call: DrawnCall,
    tensors: Mapping[str, torch.Tensor],
    constants: Sequence[str],
    symbolic: Mapping[str, Sequence[int]],
    example: Mapping[str, Sequence[int]],
    ranges: Mapping[str, Sequence[tuple[int, int]]],
    sizes: Mapping[str, SizeOf],
    allowed: Sequence[int] | None = None,
) -> tuple[SymbolicCall, dict[sympy.Symbol, Range]]:
    """The call with symbolic sizes, and their ranges."""
    plan = Plan({place: tuple(axes) for place, axes in symbolic.items()}, dict(sizes))
    traced = _example(call, plan, example)
    drawn = {
        place: tensors[place] if place in constants else torch.ones(static_shape(facts), dtype=facts.dtype)
        for place, facts in traced.tensors.items()
    }
    dynamic = symbolic_call(traced, drawn, constants, plan, allowed=allowed)
    if dynamic is None:
        raise ConversionError(f"no size of {traced} can be symbolic")
    spans = {symbol: Range(hint, hint, hint) for symbol, hint in dynamic.hints.items()}
    for place, limits in ranges.items():
        for axis, (low, high) in zip(symbolic[place], limits):
            size = dynamic.shapes[place][axis]
            if size in spans:
                spans[size] = Range(low, dynamic.hints[size], high)
    dynamic.restrict(spans)
    return dynamic, spans


def lowered_module(
    registry: Registry,
    graph_module: fx.GraphModule,
    ranges: Mapping[sympy.Symbol, Range],
    runner: Callable[[Network], nn.Module] | None = None,
) -> tuple[fx.GraphModule, tuple[Node, ...], int]:
    """A graph lowered, partitioned and converted: the module that runs it, what is left to Torch, how many blocks.

    Args:
        registry: decides.
        graph_module: changed in place.
        ranges: of its symbols.
        runner: makes of a block's network what runs it; on the reference executor where None.

    Raises:
        ConversionError: a converter fails on what it claims.
    """
    spec = pytree.tree_flatten(((), {}))[1]
    names = tuple(node.name for node in graph_module.graph.find_nodes(op="placeholder"))
    lowered = lower_lifted(Lifted(graph_module, spec, spec, names, (), {}, False), ranges, registry, strict=True)
    parts = partition(lowered.graph_module, lambda node: bool(registry.lookup(node)), min_block_size=1)
    runners: list[nn.Module] = []
    for block in parts.blocks:
        inner = extract(lowered.graph_module, block)
        verdicts = {node.name: registry.lookup(node).converter for node in (*block.nodes, *block.copies)}

        def converter_of(node: Node, verdicts: Mapping[str, Converter | None] = verdicts) -> Converter:
            found = verdicts[node.name]
            assert found is not None
            return found

        network = convert(inner, converter_of, ranges=ranges, name="block")
        runners.append(_Runner(network.lift()) if runner is None else runner(network))
    return link(lowered.graph_module, parts, runners), parts.torch_nodes, len(parts.blocks)


class _Runner(nn.Module):
    """A lifted network in the place of an engine; sizes arrive as ints."""

    def __init__(self, lifted: fx.GraphModule) -> None:
        super().__init__()
        self.lifted = lifted

    def forward(self, *inputs: Any) -> Any:
        with torch.no_grad():
            return self.lifted(*(value if isinstance(value, torch.Tensor) else torch.tensor(value) for value in inputs))


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
