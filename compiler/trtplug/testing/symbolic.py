"""Calls with symbolic sizes: the graph that stands for a whole range of calls, and the single calls in it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch._guards import GuardSource, Source
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, free_symbols
from torch.utils._sympy.value_ranges import ValueRanges

from trtplug.ranges import Range
from trtplug.testing.drawn import DrawnCall, static_shape
from trtplug.testing.graphs import CallGraph, GraphWriter
from trtplug_registry import TensorFacts

Point = Mapping[sympy.Symbol, int]


@dataclasses.dataclass(frozen=True)
class SizeOf:
    """A size argument that depends on input sizes: the product of some, times a factor, plus an offset.

    Attributes:
        sizes: (place, axis) of each factor.
    """

    sizes: tuple[tuple[str, int], ...]
    factor: int = 1
    offset: int = 0

    def of(self, shapes: Callable[[str, int], Any]) -> Any:
        """The value, from a function that gives the size at a place and axis."""
        return math.prod(shapes(place, axis) for place, axis in self.sizes) * self.factor + self.offset


@dataclasses.dataclass(frozen=True)
class Plan:
    """What of a call is symbolic.

    Attributes:
        axes: the symbolic axes of each input, by place.
        sizes: the int arguments that depend on them, by place (``size[0]``).
    """

    axes: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, SizeOf] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class SymbolicCall:
    """A call with symbolic sizes.

    Attributes:
        call: the example that it was traced with.
        plan: what is symbolic.
        graph: of the block.
        shapes: by place, ints and expressions.
        hints: the example's value of every symbol that is left.
        env: knows the symbols' ranges.
    """

    call: DrawnCall
    plan: Plan
    graph: CallGraph
    shapes: Mapping[str, tuple[Any, ...]]
    hints: Point
    env: ShapeEnv

    def at(self, point: Point) -> DrawnCall:
        """The call at these sizes. Indices along a symbolic axis get a range that fits it."""
        shapes = {
            place: tuple(evaluate(size, point) for size in self.shapes.get(place, facts.shape))
            for place, facts in self.call.tensors.items()
        }
        moved = {old: point[symbol] for symbol, old in self.hints.items()}

        def tensor(place: str, facts: TensorFacts) -> TensorFacts:
            return facts._replace(shape=shapes[place], values=_rescaled(facts.values, moved))

        def size(place: str, value: Any) -> Any:
            if isinstance(value, list):
                return [size(f"{place}[{index}]", item) for index, item in enumerate(value)]
            expression = self.plan.sizes.get(place)
            return value if expression is None else expression.of(lambda where, axis: shapes[where][axis])

        changed = self.call.replace_tensors(tensor)
        arguments = {name: size(name, value) for name, value in changed.arguments.items()}
        return DrawnCall(self.call.op, arguments, beside=changed.beside)

    def promised(self, point: Point) -> list[list[int | None]] | None:
        """The shapes of the results at these sizes, as far as the graph's metadata says.

        Of a size that depends on values it says nothing. None where it has no answer: a view's last size is what its
        others leave, and of nothing nobody can say.
        """
        value = self.graph.node.meta["val"]
        every = value if isinstance(value, list | tuple) else (value,)
        shapes = [every[number].shape for number in self.graph.results]
        try:
            return [
                [evaluate(n, point) if free_symbols(n) <= point.keys() else None for n in shape] for shape in shapes
            ]
        except ZeroDivisionError:
            return None

    def promises(self, point: Point, shapes: Sequence[Sequence[int]]) -> bool:
        """Whether the results have these shapes at these sizes, as far as the graph's metadata says."""
        promised = self.promised(point)
        if promised is None or [len(shape) for shape in promised] != [len(shape) for shape in shapes]:
            return False
        pairs = (pair for one, two in zip(promised, shapes, strict=True) for pair in zip(one, two, strict=True))
        return all(size is None or size == made for size, made in pairs)

    def restrict(self, ranges: Mapping[sympy.Symbol, Range]) -> None:
        """Makes the symbols' ranges known to the graph's own metadata, as an exported program's are."""
        for symbol, span in ranges.items():
            self.env.var_to_range[symbol] = ValueRanges(span.min, span.max)


def symbolic_call(
    call: DrawnCall,
    tensors: Mapping[str, torch.Tensor],
    constants: Sequence[str],
    plan: Plan,
    *,
    allowed: Sequence[int] | None = None,
) -> SymbolicCall | None:
    """Traces a call with symbolic sizes; None where eager's own rules fix every one of them.

    Sizes that the op demands to be equal become one symbol, sizes that it compares with a number become that number:
    the op's fake implementation decides, as under `torch.export`.

    Raises:
        Exception: whatever the fake implementation raises.
    """
    env = ShapeEnv(duck_shape=False)
    shapes: dict[str, tuple[Any, ...]] = {}
    for place, axes in plan.axes.items():
        given = enumerate(static_shape(call.tensors[place]))
        shapes[place] = tuple(new_symbol(env, f"{place}_{a}", size) if a in axes else size for a, size in given)
    with _quiet():
        graph = _trace(call, tensors, constants, plan, env, shapes, allowed)  # its guards decide what is left symbolic
    left = {place: tuple(map(env.replace, map(sympy.sympify, sizes))) for place, sizes in shapes.items()}
    if left != shapes:
        graph = _trace(call, tensors, constants, plan, env, left, allowed)
    shapes = left
    symbols = sorted({s for sizes in shapes.values() for size in sizes for s in size.free_symbols}, key=str)
    if not symbols:
        return None
    hints = {symbol: int(env.backed_var_to_val[symbol]) for symbol in symbols}
    return SymbolicCall(call, plan, graph, shapes, hints, env)


CallAt = tuple[DrawnCall, Mapping[str, torch.Tensor], Any]
"""A call at certain sizes, values, and what eager makes of them."""


@dataclasses.dataclass(frozen=True, eq=False)
class DynamicCall:
    """A supported call with symbolic sizes, ready to be converted.

    Attributes:
        symbolic: the call.
        tensors: values of the example.
        constants: the places of those that are constants of the graph.
        ranges: of the sizes.
        points: the call at several sizes, each with values and what eager makes of them.
    """

    symbolic: SymbolicCall
    tensors: Mapping[str, torch.Tensor]
    constants: tuple[str, ...]
    ranges: Mapping[sympy.Symbol, Range]
    points: tuple[CallAt, ...] = ()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Torch's log of what its metadata functions refuse: that is an answer here."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


class SizeSource(Source):
    """Where a symbol comes from, in the tracer's eyes. Dynamo's own sources take seconds to import."""

    guard_source = GuardSource.CONSTANT

    def __init__(self, name: str) -> None:
        self.name = name


def new_symbol(env: ShapeEnv, name: str, hint: int) -> sympy.Expr:
    """A symbol of its own; `hint`, at least 2, is its value in the example."""
    source = SizeSource(f"{name}_{len(env.backed_var_to_val)}")
    return env.create_symbol(hint, source, dynamic_dim=DimDynamic.DYNAMIC)


def _trace(
    call: DrawnCall,
    tensors: Mapping[str, torch.Tensor],
    constants: Sequence[str],
    plan: Plan,
    env: ShapeEnv,
    shapes: Mapping[str, tuple[Any, ...]],
    allowed: Sequence[int] | None,
) -> CallGraph:
    writer = GraphWriter(FakeTensorMode(shape_env=env, static_shapes=False, allow_non_fake_inputs=True))
    for place, tensor in tensors.items():
        if place in constants:
            writer.constant(place, tensor)
            continue
        sizes = [_size(env, size) for size in shapes.get(place, tuple(tensor.shape))]
        with writer.mode:
            writer.input(place, torch.empty(sizes, dtype=tensor.dtype))
    nodes = {place: _size_node(writer, expression) for place, expression in plan.sizes.items()}
    return writer.finish(call, allowed, nodes)


def _size(env: ShapeEnv, size: Any) -> Any:
    expression = sympy.sympify(size)
    if expression.is_number:
        return int(expression)
    hint = int(expression.xreplace(env.backed_var_to_val))
    return env.create_symintnode(expression, hint=hint)


def _size_node(writer: GraphWriter, size: SizeOf) -> Node:
    """The nodes that compute a size argument from the inputs."""
    factors = [writer.call(torch.ops.aten.sym_size.int, writer.nodes[place], axis) for place, axis in size.sizes]
    node = factors[0]
    for factor in factors[1:]:
        node = writer.call(operator.mul, node, factor)
    if size.factor != 1:
        node = writer.call(operator.mul, node, size.factor)
    return writer.call(operator.add, node, size.offset) if size.offset else node


def evaluate(size: Any, point: Point) -> int:
    """A size (int, SymInt or expression) at a point."""
    if isinstance(size, torch.SymInt):
        size = size.node.expr
    expression = sympy.sympify(size)
    return int(expression.xreplace({symbol: sympy.Integer(value) for symbol, value in point.items()}))


def _rescaled(values: tuple[float, float] | None, moved: Mapping[int, int]) -> tuple[float, float] | None:
    """A range of indices along an axis whose size has changed: ``(0, 4)`` of size 5 is ``(0, 1)`` of size 2."""
    if values is None or not math.isfinite(values[1]):
        return values
    low, high = values
    new = moved.get(int(high) + 1, int(high) + 1) if high == int(high) else None
    if new is None:
        return values
    return (-new if low == -(high + 1) else low), max(low if low >= 0 else 0, new - 1)


# --- ranges -----------------------------------------------------------------------------------------------------------

Accepts = Callable[[Point], bool]


def fitting_ranges(
    symbolic: SymbolicCall, wanted: Mapping[sympy.Symbol, tuple[int, int]], accepts: Accepts
) -> dict[sympy.Symbol, Range]:
    """The widest ranges within `wanted` at whose two joint ends eager takes the call and keeps the graph's promise."""
    hints = symbolic.hints
    spans: dict[sympy.Symbol, list[int]] = {}
    for symbol, hint in hints.items():
        least, most = symbolic.env.bound_sympy(symbol).lower, symbolic.env.bound_sympy(symbol).upper
        low, high = wanted[symbol]
        low = max(low, int(least)) if int(least) > 2 else low  # 2 is only the tracer's own assumption
        high = min(high, int(most)) if most < 2**31 else high
        span = [min(low, hint), max(high, hint)]
        for end in (0, 1):
            if not accepts({**hints, symbol: span[end]}):
                span[end] = hint
        spans[symbol] = span
    for end in (0, 1):
        if not accepts({symbol: span[end] for symbol, span in spans.items()}):
            for symbol, span in spans.items():
                span[end] = hints[symbol]
    return {symbol: Range(span[0], hints[symbol], span[1]) for symbol, span in spans.items()}


def corner_points(ranges: Mapping[sympy.Symbol, Range]) -> list[dict[sympy.Symbol, int]]:
    """All sizes at their opt, all at min, all at max; each once."""
    points = [{symbol: getattr(span, end) for symbol, span in ranges.items()} for end in ("opt", "min", "max")]
    return [point for place, point in enumerate(points) if point not in points[:place]]
