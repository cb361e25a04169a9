"""A finite range for every size that Dynamo leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
import torch

from trtplug.ranges import Range

MAX_SIZE = 8192
"""The maximum of a size that nothing bounds, unless the size that was seen is larger; it becomes a guard."""

_UNBOUNDED = 2**31


def bounded(fakes: Sequence[Any]) -> dict[sympy.Symbol, Range]:
    """A finite range for every symbol in the inputs' shapes. A maximum that is ours becomes a guard of Dynamo's."""
    ranges: dict[sympy.Symbol, Range] = {}
    for value in fakes:
        sizes = value.shape if isinstance(value, torch.Tensor) else [value]
        for size in sizes:
            if isinstance(size, torch.SymInt):
                _bound(size, ranges)
    return ranges


def _bound(size: torch.SymInt, ranges: dict[sympy.Symbol, Range]) -> None:
    environment = size.node.shape_env
    for symbol in sorted(size.node.expr.free_symbols, key=str):
        if symbol in ranges:
            continue
        span = environment.var_to_range[symbol]
        hint = int(_hints(environment).get(symbol, 0) or 0)
        low = max(int(span.lower), 0)
        high = int(span.upper) if float(span.upper) < _UNBOUNDED else max(MAX_SIZE, 2 * hint)
        if float(span.upper) >= _UNBOUNDED and size.node.expr == symbol:
            assert size <= high  # evaluated now, so that it is a guard: a larger size compiles again
        ranges[symbol] = Range(low, min(max(hint, low), high), high)


def _hints(environment: Any) -> Any:
    """The sizes that were seen, by symbol; the attribute's name changed after torch 2.11."""
    found = getattr(environment, "backed_var_to_val", None)
    return environment.var_to_val if found is None else found
