"""A node once more, with other metadata: to see whether the registry would take it then. The graph is not touched."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from trtplug.partition.value import size_hint

_OTHER = {
    torch.float64: (torch.float32,),
    torch.int16: (torch.int32,),
    torch.int8: (torch.int32,),
    torch.uint8: (torch.int32,),
    torch.float16: (torch.float32,),
    torch.bfloat16: (torch.float32, torch.float16),
    torch.int64: (torch.int32,),
    torch.int32: (torch.int64, torch.float32),
    torch.bool: (torch.int32, torch.float32),
}
"""What a tensor may be cast to instead, the least change first."""


Change: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


def with_dtype(node: Node, argument: str) -> Iterator[tuple[str, Node]]:
    """The node with its tensors of the refused dtype in another one, and the change in words."""
    refused = _dtype_of(node, argument)
    for dtype in _OTHER.get(refused, ()) if refused is not None else ():

        def cast(value: torch.Tensor, to: torch.dtype = dtype) -> torch.Tensor:
            return value.to(to) if value.dtype == refused else value

        other = _again(node, cast)
        if other is not None:
            yield f"{_name(refused)} tensors as {_name(dtype)}", other


def with_other_sizes(node: Node) -> Iterator[tuple[str, Node]]:
    """The node with sizes that are never 0, then with static ones, and the change in words."""
    symbols = sorted({str(s) for size in _symbolic(node) for s in size.node.expr.free_symbols})
    if not symbols:
        return
    mode = FakeTensorMode(shape_env=ShapeEnv())
    named = ", ".join(symbols)
    for text, change in (
        (f"a minimum of at least 2 for the size {named}", functools.partial(_never_empty, mode)),
        (f"a static size instead of {named}", _static),
    ):
        other = _again(node, change)
        if other is not None:
            yield text, other


def _symbolic(node: Node) -> Iterator[torch.SymInt]:
    for source in node.all_input_nodes:
        value = source.meta.get("val")
        for size in value.shape if isinstance(value, torch.Tensor) else (value,):
            if isinstance(size, torch.SymInt):
                yield size


def _never_empty(mode: FakeTensorMode, value: torch.Tensor) -> torch.Tensor:
    """The same shape, every symbolic size a new symbol, which is at least 2."""
    real = torch.empty([max(2, size_hint(size)) for size in value.shape], dtype=value.dtype, device="meta")
    dynamic = [DimDynamic.STATIC if type(size) is int else DimDynamic.DYNAMIC for size in value.shape]
    context: Any = StatelessSymbolicContext(dynamic_sizes=dynamic)
    return mode.from_tensor(real, symbolic_context=context)


def _static(value: torch.Tensor) -> torch.Tensor:
    with FakeTensorMode():
        return torch.empty([size_hint(size) for size in value.shape], dtype=value.dtype)


def _again(node: Node, change: Change) -> Node | None:
    """The call in a graph of its own, its tensors changed; None where eager would not take it."""
    graph = Graph()
    try:
        image = {source: _copied(graph, source, change) for source in node.all_input_nodes}
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda source: image[source])
        again = graph.create_node("call_function", node.target, args, kwargs, name=node.name)
        with FakeTensorMode(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = torch.fx.node.map_arg((args, kwargs), lambda source: _hinted(source.meta["val"]))
            assert isinstance(node.target, OpOverload)
            node.target(*values[0], **values[1])
    except Exception:  # whatever eager raises for a call that it does not take
        return None
    return again


def _copied(graph: Graph, source: Node, change: Change) -> Any:
    value = source.meta.get("val")
    if isinstance(value, torch.SymInt) and change is _static:
        return size_hint(value)
    new = graph.placeholder(source.name)
    new.meta["constant"] = source.op == "get_attr" or bool(source.meta.get("constant"))
    new.meta["val"] = change(value) if isinstance(value, torch.Tensor) else value
    return new


def _hinted(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.empty([size_hint(size) for size in value.shape], dtype=value.dtype)
    return size_hint(value) if isinstance(value, torch.SymInt) else value


def _dtype_of(node: Node, argument: str) -> torch.dtype | None:
    """The dtype of the argument that a reason names (``self``, ``tensors[1]``)."""
    assert isinstance(node.target, OpOverload)
    name, _, place = argument.partition("[")
    for position, formal in enumerate(node.target._schema.arguments):
        if formal.name != name:
            continue
        value = node.args[position] if position < len(node.args) else node.kwargs.get(name)
        if place and isinstance(value, list | tuple):
            value = value[int(place.rstrip("]"))]
        found = value.meta.get("val") if isinstance(value, Node) else None
        return found.dtype if isinstance(found, torch.Tensor) else None
    return None


def _name(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")
