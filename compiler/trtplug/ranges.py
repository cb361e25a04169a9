"""The values that dynamic sizes may take: min, opt and max of each symbol."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import sympy
import torch
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

Bounds: TypeAlias = tuple[float, float]
"""Smallest and largest value, possibly infinite."""


Span: TypeAlias = tuple[int, int, int]
"""Smallest, typical and largest value."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Smallest, typical and largest value of a size; and what the user calls it, or "".

    Attributes:
        parts: the same for each optimization profile, where there are several: then what none of them holds is not
            meant, though it lies between `min` and `max`. See `trtplug.profiles`.
    """

    min: int
    opt: int
    max: int
    name: str = dataclasses.field(default="", compare=False)
    parts: tuple[Span, ...] = ()

    def __str__(self) -> str:
        return f"{self.min}..{self.opt}..{self.max}"

    def part(self, number: int) -> Span:
        """The values in the optimization profile of a number; the whole where there are no several."""
        return self.parts[number] if self.parts else (self.min, self.opt, self.max)


def size_range(size: Any, ranges: Mapping[sympy.Symbol, Range]) -> Range:
    """The range of a size expression, from its symbols' ranges.

    A symbol that is not in `ranges` gets what the graph's own constraints say, and its hint as the typical value.

    Raises:
        ValueError: a symbol has no upper bound.
    """
    if not isinstance(size, torch.SymInt):
        return Range(int(size), int(size), int(size))
    expression = size.node.expr
    symbols = sorted(expression.free_symbols, key=str)
    spans = [ranges.get(symbol) or _constraint(symbol, size.node.shape_env) for symbol in symbols]
    count = max((len(span.parts) for span in spans), default=0)
    parts = [_between(expression, symbols, [span.part(number) for span in spans]) for number in range(count)]
    low, typical, high = _between(expression, symbols, [(span.min, span.opt, span.max) for span in spans])
    if parts:
        low, typical, high = min(part[0] for part in parts), parts[0][1], max(part[2] for part in parts)
    return Range(low, typical, high, size_name(size, ranges), tuple(parts))


def _between(expression: sympy.Expr, symbols: list[sympy.Symbol], spans: Sequence[Span]) -> Span:
    corners = itertools.product(*((low, high) for low, _, high in spans))
    extremes = [_evaluate(expression, symbols, corner) for corner in corners]
    return min(extremes), _evaluate(expression, symbols, [opt for _, opt, _ in spans]), max(extremes)


def size_bounds(size: Any, ranges: Mapping[sympy.Symbol, Range]) -> Bounds:
    """What a size expression certainly lies between: every value of its symbols is thought of, not only the corners."""
    if not isinstance(size, torch.SymInt):
        return (int(size), int(size))
    expression = size.node.expr
    spans = {symbol: _values(symbol, ranges, size.node.shape_env) for symbol in expression.free_symbols}
    found = bound_sympy(expression, spans)
    return (float(found.lower), float(found.upper))


def _values(symbol: sympy.Symbol, ranges: Mapping[sympy.Symbol, Range], shape_env: Any) -> Any:
    span = ranges.get(symbol)
    return _assumed(symbol, shape_env) if span is None else ValueRanges(span.min, span.max)


def _assumed(symbol: sympy.Symbol, shape_env: Any) -> Any:
    """What the tracer knows; nothing of some numbers that a tensor holds."""
    return shape_env.bound_sympy(symbol) or ValueRanges.unknown_int()


def size_name(size: Any, ranges: Mapping[sympy.Symbol, Range]) -> str:
    """A size (an int, a SymInt or an expression) in words, with the user's names for its symbols."""
    expression = size.node.expr if isinstance(size, torch.SymInt) else size
    if not isinstance(expression, sympy.Expr):
        return str(expression)
    named = {symbol: ranges[symbol].name for symbol in expression.free_symbols if symbol in ranges}
    return str(expression.xreplace({symbol: sympy.Symbol(name) for symbol, name in named.items() if name}))


def _evaluate(expression: sympy.Expr, symbols: list[sympy.Symbol], values: Any) -> int:
    return int(expression.xreplace({s: sympy.Integer(v) for s, v in zip(symbols, values)}))


def _constraint(symbol: sympy.Symbol, shape_env: Any) -> Range:
    found = _assumed(symbol, shape_env)
    low, high = float(found.lower), float(found.upper)
    if high == float("inf") or high >= 2**31:
        raise ValueError(f"the size {symbol} has no upper bound; give one, as the max of its input's range")
    hints = shape_env.backed_var_to_val if hasattr(shape_env, "backed_var_to_val") else shape_env.var_to_val
    hint = hints.get(symbol)
    typical = int(hint) if hint is not None else int(high)
    return Range(int(low), min(max(typical, int(low)), int(high)), int(high))
