"""One block as a GraphModule of its own."""

from __future__ import annotations

import copy
import operator
from typing import Any

from torch import fx

from trtplug.partition.sizes import Expr, Sizes, Writer, expression
from trtplug.partition.value import Block, Value, value_of


def extract(gm: fx.GraphModule, block: Block) -> fx.GraphModule:
    """The block alone. `gm` and its tensors are shared, not changed or copied.

    Placeholders are the block's tensor inputs, then its size inputs (`meta["val"]` is a SymInt: an int64 shape input
    for TensorRT); they and the nodes carry the names and all metadata of the nodes they come from. Sizes that the
    block uses are read with `aten.sym_size.int` and integer arithmetic. The output is a flat tuple of
    `block.outputs`.
    """
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    sizes = _BlockSizes(block, graph, copied)
    for node in (*block.inputs, *block.sizes):
        copied[node] = graph.placeholder(node.name)
        copied[node].meta = copy.copy(node.meta)
    for node in block.copies:
        if value_of(node) is not Value.SIZE:
            copied[node] = graph.node_copy(node, sizes.argument)
    for node in block.nodes:
        copied[node] = graph.node_copy(node, sizes.argument)
    output = graph.output(tuple(copied[node] for node in block.outputs))
    output.meta["val"] = tuple(node.meta.get("val") for node in block.outputs)
    attributes = {str(n.target): operator.attrgetter(str(n.target))(gm) for n in graph.nodes if n.op == "get_attr"}
    return fx.GraphModule(attributes, graph, class_name=f"Block{block.index}")


class _BlockSizes:
    """Arguments of a block's nodes; sizes among them are written over what the block can see."""

    def __init__(self, block: Block, graph: fx.Graph, copied: dict[fx.Node, fx.Node]) -> None:
        self._block = block
        self._copied = copied
        self._writer = Writer(graph, copied.__getitem__)
        self._known = Sizes()
        self._known.add(*block.inputs)
        for node in block.sizes:
            self._known.add(node)
        self._inner_added = False

    def argument(self, node: fx.Node) -> Any:
        if node in self._copied:
            return self._copied[node]
        val = node.meta.get("val")
        if value_of(node) is Value.NUMBER:
            return val
        return self._writer.write(*self._resolved(expression(val)))

    def _resolved(self, expr: Expr) -> tuple[Expr, Any]:
        sources = self._known.resolve(expr)
        if sources is None and not self._inner_added:  # a data-dependent size that the block itself makes
            self._inner_added = True
            for node in self._block.nodes:
                self._known.add(node)
            sources = self._known.resolve(expr)
        if sources is None:
            raise AssertionError(
                f"block {self._block.index}: no way to the size {expr}; the graph changed after partition()"
            )
        return expr, sources
