"""Where the symbols in shapes can be read, and size expressions written as graph nodes.

A size is known by its sympy expression (`SymInt.node.expr`), whatever chain of nodes computed it. `Sizes` collects
tensors and scalars that show symbols; `Writer` emits `sym_size` and integer arithmetic for an expression over them.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import sympy
import torch
from torch import fx
from torch.utils._sympy import functions as ts

Expr: TypeAlias = Any  # sympy.Expr: sympy has no annotations


def expression(val: object) -> Expr | None:
    """The sympy expression of an int or SymInt; None for anything else (a nested-tensor size has none)."""
    if isinstance(val, int):
        return sympy.Integer(int(val))
    if not isinstance(val, torch.SymInt):
        return None
    expr = getattr(val.node, "expr", None)
    return sympy.Integer(expr) if isinstance(expr, int) else expr


class Source(NamedTuple):
    """The expression is `(size - offset) / scale`, `size` being the node's dimension `dim`, or the node itself."""

    node: fx.Node
    dim: int | None
    scale: int = 1
    offset: int = 0


_BINARY: dict[type, Callable[..., Any]] = {
    ts.FloorDiv: operator.floordiv,
    ts.CleanDiv: operator.floordiv,
    ts.Mod: operator.mod,
    ts.PythonMod: operator.mod,
    sympy.Mod: operator.mod,
    ts.PowByNatural: operator.pow,
}
_EXTREME: dict[type, Callable[..., Any]] = {
    ts.Max: torch.sym_max,
    ts.Min: torch.sym_min,
    sympy.Max: torch.sym_max,
    sympy.Min: torch.sym_min,
}


def writable(expr: Expr) -> bool:
    """Whether `Writer` knows how to write the expression, its symbols given."""
    if expr.is_Integer or expr.is_Symbol:
        return True
    if expr.is_Pow:
        return bool(expr.exp.is_Integer) and expr.exp >= 0 and writable(expr.base)
    known = expr.is_Add or expr.is_Mul or expr.func in _BINARY or expr.func in _EXTREME
    return bool(known or expr.func is ts.ModularIndexing) and all(map(writable, expr.args))


class Sizes:
    """Nodes that show symbols. The first to show one is kept, so that an answer once given stays right."""

    def __init__(self) -> None:
        self._sources: dict[Expr, Source] = {}
        self._resolved: dict[Expr, Mapping[Expr, Source]] = {}

    def add(self, *nodes: fx.Node) -> None:
        """Take the nodes' own values and dimensions as sources; what can be written without them stays as it was."""
        shown: list[tuple[Expr, Source]] = []
        for node in nodes:
            val = node.meta.get("val")
            if isinstance(val, torch.SymInt):
                shown.append((expression(val), Source(node, None)))
            elif isinstance(val, torch.Tensor):
                shown.extend(
                    (expression(size), Source(node, dim))
                    for dim, size in enumerate(val.shape)
                    if isinstance(size, torch.SymInt)
                )
        news = [
            (expr, source)
            for expr, source in shown
            if expr is not None and not all(symbol in self._sources for symbol in expr.free_symbols)
        ]
        for expr, source in news:
            self._sources.setdefault(expr, source)
        for expr, source in news:
            offset, term = expr.as_coeff_Add()  # scale * symbol + offset is solved for the symbol
            scale, symbol = term.as_coeff_Mul()
            if symbol.is_Symbol and offset.is_Integer and scale.is_Integer and scale != 0:
                self._sources.setdefault(symbol, source._replace(scale=int(scale), offset=int(offset)))

    def resolve(self, expr: Expr | None) -> Mapping[Expr, Source] | None:
        """The sources that the expression is written over: of the whole, else of each of its symbols. None: no way."""
        if expr is None:
            return None
        found = self._resolved.get(expr)
        if found is not None:
            return found
        whole = self._sources.get(expr)
        if whole is not None and whole.scale == 1 and not whole.offset:
            found = {expr: whole}
        elif writable(expr) and all(symbol in self._sources for symbol in expr.free_symbols):
            found = {symbol: self._sources[symbol] for symbol in expr.free_symbols}
        else:
            return None
        self._resolved[expr] = found
        return found


class Writer:
    """Writes size expressions at the end of a graph. Nothing is written twice; `meta["val"]` is set."""

    def __init__(self, graph: fx.Graph, image: Callable[[fx.Node], fx.Node]) -> None:
        self._graph = graph
        self._image = image  # where a source lies in the graph that is written
        self._written: dict[tuple[Any, ...], fx.Node] = {}

    def write(self, expr: Expr, sources: Mapping[Expr, Source]) -> fx.Node | int:
        """The node (or int) that computes the expression over `sources`, as `Sizes.resolve` gave them."""
        if expr in sources:
            return self._read(sources[expr])
        if expr.is_Integer:
            return int(expr)
        if expr.is_Add:
            return self._sum(expr, sources)
        args = [self.write(arg, sources) for arg in expr.args]
        if expr.is_Mul:
            return self._product(args)
        if expr.is_Pow:
            return self._call(operator.pow, *args)
        if expr.func in _BINARY:
            return self._call(_BINARY[expr.func], *args)
        if expr.func in _EXTREME:
            return functools.reduce(functools.partial(self._call, _EXTREME[expr.func]), args)
        base, divisor, modulus = args  # ModularIndexing, by `writable`
        return self._call(operator.mod, self._call(operator.floordiv, base, divisor), modulus)

    def _read(self, source: Source) -> fx.Node | int:
        node = self._image(source.node)
        size = node if source.dim is None else self._call(torch.ops.aten.sym_size.int, node, source.dim)
        if source.offset:
            size = self._call(operator.sub, size, source.offset)
        return size if source.scale == 1 else self._call(operator.floordiv, size, source.scale)

    def _sum(self, expr: Expr, sources: Mapping[Expr, Source]) -> fx.Node | int:
        negative = [term for term in expr.args if term.as_coeff_Mul()[0] < 0]
        positive = [term for term in expr.args if term not in negative]
        total: fx.Node | int = 0
        for count, term in enumerate(sorted(positive, key=str)):
            value = self.write(term, sources)
            total = self._call(operator.add, total, value) if count else value
        for count, term in enumerate(sorted(negative, key=str)):
            value = self.write(-term, sources)
            first = not count and not positive
            total = self._call(operator.neg, value) if first else self._call(operator.sub, total, value)
        return total

    def _product(self, args: list[fx.Node | int]) -> fx.Node | int:
        if -1 in args:
            args.remove(-1)
            return self._call(operator.neg, self._product(args))
        return functools.reduce(functools.partial(self._call, operator.mul), args)

    def _call(self, function: Callable[..., Any], *args: fx.Node | int) -> fx.Node | int:
        if not any(isinstance(arg, fx.Node) for arg in args):
            return int(function(*args))
        key = (function, *args)
        if key not in self._written:
            # a name that no call of the model has: a block's calls are known by the names they had before
            name = f"size_of_{getattr(function, '__name__', 'dim')}"
            node = self._graph.create_node("call_function", function, args, name=name)
            vals = [arg.meta.get("val") if isinstance(arg, fx.Node) else arg for arg in args]
            if all(val is not None for val in vals):
                node.meta["val"] = function(*vals)
            self._written[key] = node
        return self._written[key]
