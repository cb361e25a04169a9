"""Symbolic sizes are computed from the graph's inputs, once each."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from trtplug_registry import lowering_pass

_SIZE = torch.ops.aten.sym_size.int


@lowering_pass("sizes-from-inputs", after=["constant-folding"])
def sizes_from_inputs(graph_module: fx.GraphModule) -> bool:
    """Lets every size that follows from the inputs' shapes be computed from those, right after the inputs.

        x ─ linear ─ h ─ sym_size(0) ─┐        x ─ sym_size(0) ─┐
                     └────────────── view  →   └─ linear ─ h ─ view

    Equal sizes become one node. Stays: what depends on data (the number of non-zeros), what is rounded or true-divided.
    """
    return _Sizes(graph_module.graph).run()


class _Sizes:
    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.sources: dict[Any, tuple[fx.Node, int | None]] = {}
        self.known: dict[tuple[Any, ...], fx.Node] = {}
        self.written: set[fx.Node] = set()
        self.place: fx.Node | None = None
        self.changed = False

    @functools.cached_property
    def binary(self) -> Mapping[Any, Callable[..., Any]]:
        """What computes each of Torch's own sympy functions; imported only where a size is symbolic."""
        from torch.utils._sympy import functions

        return {
            functions.FloorDiv: operator.floordiv,
            functions.CleanDiv: operator.floordiv,
            functions.Mod: operator.mod,
            functions.PythonMod: operator.mod,
            functions.Max: torch.sym_max,
            functions.Min: torch.sym_min,
        }

    def run(self) -> bool:
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self.place = node
                self._show(node)
        if self.place is None:
            return False
        for node in list(self.graph.nodes):
            value = node.meta.get("val")
            if node.op != "call_function" or not isinstance(value, torch.SymInt) or node in self.written:
                continue
            expression = value.node.expr
            if not self._writable(expression):
                continue
            new = self._write(expression)
            if new is not node:
                _replace(node, new)
                self.changed = True
        return self.changed

    def _show(self, node: fx.Node) -> None:
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt):
            self.sources.setdefault(value.node.expr, (node, None))
        if isinstance(value, torch.Tensor):
            for axis, size in enumerate(value.shape):
                if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                    self.sources.setdefault(size.node.expr, (node, axis))

    def _writable(self, expression: Any) -> bool:
        if expression.is_Symbol:
            return expression in self.sources
        if expression.is_Integer:
            return True
        if expression.is_Pow:
            return bool(expression.exp.is_Integer and expression.exp > 0) and self._writable(expression.base)
        known = expression.is_Add or expression.is_Mul or expression.func in self.binary
        return bool(known) and all(map(self._writable, expression.args))

    def _write(self, expression: Any) -> Any:
        if expression.is_Integer:
            return int(expression)
        if expression.is_Symbol:
            source, axis = self.sources[expression]
            return source if axis is None else self._call(_SIZE, (source, axis))
        if expression.is_Pow:
            factors = [self._write(expression.base)] * int(expression.exp)
            return functools.reduce(lambda one, two: self._call(operator.mul, (one, two)), factors)
        from sympy import default_sort_key

        commutes = expression.is_Add or expression.is_Mul
        function = (
            operator.add if expression.is_Add else operator.mul if expression.is_Mul else self.binary[expression.func]
        )
        parts = sorted(expression.args, key=default_sort_key) if commutes else expression.args
        return functools.reduce(lambda one, two: self._call(function, (one, two)), map(self._write, parts))

    def _call(self, function: Any, args: tuple[Any, ...]) -> Any:
        """The one node that computes this, in the region after the inputs."""
        if not any(isinstance(arg, fx.Node) for arg in args):
            return function(*args)
        key = (function, *args)
        if key not in self.known:
            assert self.place is not None
            following = self.place.next
            if following.op == "call_function" and following.target is function and following.args == args:
                node = following  # in place already
            else:
                with self.graph.inserting_after(self.place):
                    node = self.graph.call_function(function, args)
                vals = fx.node.map_arg(args, lambda arg: arg.meta["val"])
                node.meta["val"] = function(*vals)
                self.changed = True
            self.known[key] = self.place = node
            self.written.add(node)
        return self.known[key]


def _replace(node: fx.Node, new: Any) -> None:
    if isinstance(new, fx.Node):
        node.replace_all_uses_with(new)
    else:
        for user in list(node.users):
            user.args, user.kwargs = fx.node.map_arg(
                (user.args, user.kwargs), lambda item: new if item is node else item
            )
    node.graph.erase_node(node)
