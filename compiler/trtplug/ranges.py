"""The values that dynamic sizes may take: min, opt and max of each symbol."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, TypeAlias

import sympy
import torch
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

Bounds: TypeAlias = tuple[float, float]
"""Smallest and largest value, possibly infinite."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Smallest, typical and largest value of a size; and what the user calls it, or ""."""

    min: int
    opt: int
    max: int
    name: str = dataclasses.field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.min}..{self.opt}..{self.max}"


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
    corners = itertools.product(*((span.min, span.max) for span in spans))
    extremes = [_evaluate(expression, symbols, corner) for corner in corners]
    typical = _evaluate(expression, symbols, [span.opt for span in spans])
    return Range(min(extremes), typical, max(extremes), size_name(size, ranges))


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
    return shape_env.bound_sympy(symbol) if span is None else ValueRanges(span.min, span.max)


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
    found = shape_env.bound_sympy(symbol)
    low, high = float(found.lower), float(found.upper)
    if high == float("inf") or high >= 2**31:
        raise ValueError(f"the size {symbol} has no upper bound; give one, as the max of its input's range")
    hints = shape_env.backed_var_to_val if hasattr(shape_env, "backed_var_to_val") else shape_env.var_to_val
    hint = hints.get(symbol)
    typical = int(hint) if hint is not None else int(high)
    return Range(int(low), min(max(typical, int(low)), int(high)), int(high))
