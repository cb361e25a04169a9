"""Writes become values, through views too.

A write to a tensor is a new value of that tensor: what reads it later reads the new value. A write to a view is written
back: the value of the tensor below is put together again from the view's new value and the rest. A view that is read
after its tensor was written is taken again, from the new value.
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from trtplug.lowering import graphs
from trtplug.lowering.aliases import Aliases
from trtplug_registry.guards import unguarded_call

aten = torch.ops.aten

_REARRANGED = frozenset(
    f"aten::{name}"
    for name in (
        *("alias", "detach", "lift_fresh", "dropout", "contiguous", "to", "type_as"),
        *("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as"),
        *("expand", "expand_as", "slice", "narrow"),
    )
)
"""Views with the elements of their tensor in the same order (where they have as many): a reshape takes them back."""


_VIEWS = (aten.view.default, aten._unsafe_view.default)


@dataclasses.dataclass(frozen=True)
class Write:
    """An in-place call.

    Attributes:
        node: the call.
        target: what it writes to, a tensor or a view.
        functional: the op that computes the new value; None for ``copy_``.
    """

    node: fx.Node
    target: fx.Node
    functional: OpOverload | None


def plan_write(node: fx.Node, aliases: Aliases) -> Write | None:
    """How a call that writes becomes a value; None where it does not."""
    target = node.target
    assert isinstance(target, OpOverload)
    schema = target._schema
    written = [formal for formal in schema.arguments if formal.alias_info is not None and formal.alias_info.is_write]
    if len(written) != 1 or written[0].kwarg_only or len(schema.returns) > 1 or torch.Tag.inplace_view in target.tags:
        return None
    place = graphs.argument(node, written[0].name)
    if not isinstance(place, fx.Node) or place not in aliases.base or aliases.base[place] in aliases.doubtful:
        return None
    if not all(_inverse(view, aliases.parent[view]) for view in aliases.chain(place)[:-1]):
        return None
    if target is aten.copy_.default:
        return Write(node, place, None)
    functional = _functional_form(target)
    return None if functional is None else Write(node, place, functional)


def _functional_form(target: OpOverload) -> OpOverload | None:
    schema = target._schema
    space, _, name = schema.name.partition("::")
    if not name.endswith("_") or name in ("resize_", "set_", "resize_as_"):
        return None
    packet = getattr(getattr(torch.ops, space), name.removesuffix("_"), None)
    functional = getattr(packet, schema.overload_name or "default", None)
    if not isinstance(functional, OpOverload) or functional._schema.is_mutable:
        return None
    same = [formal.name for formal in functional._schema.arguments] == [formal.name for formal in schema.arguments]
    return functional if same else None


class Rewriting:
    """Rewrites a graph whose writes have all been planned, in one walk."""

    def __init__(self, graph: fx.Graph, plan: Mapping[fx.Node, Write], aliases: Aliases) -> None:
        self.graph, self.plan, self.aliases = graph, plan, aliases
        self.versions = dict.fromkeys((aliases.base[write.target] for write in plan.values()), 0)
        self.values: dict[fx.Node, tuple[int, fx.Node]] = {}
        """The current value of each tensor and view, and the version of its base that it is of."""
        self.members = [node for node in graph.nodes if self._written(node)]
        self.calls = {node: (node.args, node.kwargs) for node in self.members}
        self.new: list[fx.Node] = []
        self.fakes = _Fakes()

    def run(self) -> dict[fx.Node, fx.Node]:
        """Rewrites. Returns the final value of each base."""
        for node in self.members:
            if node.target in _VIEWS:  # of a value, which may lie in memory otherwise
                node.target = aten.reshape.default
        for node in list(self.graph.nodes):
            if any(map(self._written, node.all_input_nodes)):
                node.args, node.kwargs = self._now((node.args, node.kwargs), node)
            if node in self.plan:
                self._write(self.plan[node])
            elif self._written(node):
                self.values[node] = (self.versions[self.aliases.base[node]], node)
        final = {base: self.values[base][1] for base in self.versions}
        kept = {*final.values()}
        for node in reversed(self.members):
            if node in self.plan or (not node.users and node.op == "call_function" and node not in kept):
                self.graph.erase_node(node)
        for node in reversed(self.new):
            if not node.users and node not in kept:
                self.graph.erase_node(node)
        return final

    def _written(self, node: fx.Node) -> bool:
        return self.aliases.base.get(node) in self.versions

    def _now(self, args: Any, reader: fx.Node) -> Any:
        """Arguments as `reader` finds them."""
        return fx.node.map_arg(args, lambda arg: self._latest(arg, reader))

    def _latest(self, node: fx.Node, reader: fx.Node) -> fx.Node:
        """What stands for a node when `reader` reads it; a view whose tensor was written is taken again."""
        if not self._written(node):
            return node
        version = self.versions[self.aliases.base[node]]
        known = self.values.get(node)
        if known is not None and known[0] == version:
            return known[1]
        if node in self.plan:
            value = self._latest(self.aliases.parent[node], reader)
        else:
            args, kwargs = self._now(self.calls[node], reader)
            with self.graph.inserting_before(reader):
                value = self.graph.create_node("call_function", node.target, args, kwargs)
            value.meta = dict(node.meta)
            self.new.append(value)
        self.values[node] = (version, value)
        return value

    def _write(self, write: Write) -> None:
        build = _Builder(self.graph, write.node, self.new, self.fakes)
        value = (
            self._copied(write, build) if write.functional is None else self._computed(write, write.functional, build)
        )
        chain = self.aliases.chain(write.target)
        values = [value]
        for view, parent in itertools.pairwise(chain):
            inverse = _inverse(view, parent)
            assert inverse is not None  # as planned
            values.append(inverse(build, view, values[-1], self._latest(parent, write.node)))
        base = chain[-1]
        self.versions[base] += 1
        for node, new in zip((write.node, *chain), (value, *values)):
            self.values[node] = (self.versions[base], new)

    def _computed(self, write: Write, functional: OpOverload, build: _Builder) -> fx.Node:
        node, wanted = write.node, write.target.meta["val"]
        name = node.name.replace("_", "", 1) if node.name.startswith("_") else node.name.rstrip("_")
        with self.graph.inserting_before(node):
            result = self.graph.create_node("call_function", functional, node.args, node.kwargs, name=name or None)
        value = self.fakes.of(result.target, result.args, result.kwargs)
        result.meta = {**node.meta, "val": value}
        if value.dtype == wanted.dtype:
            return result
        return build.cast(result, wanted)  # an in-place op keeps its tensor's dtype

    def _copied(self, write: Write, build: _Builder) -> fx.Node:
        """The value that ``copy_`` gives its tensor: the other's, cast and broadcast."""
        place, source = graphs.argument(write.node, "self"), graphs.argument(write.node, "src")
        wanted, given = write.target.meta["val"], source.meta["val"]
        if given.dtype != wanted.dtype or given.device != wanted.device:
            source = build.cast(source, wanted)
        if graphs.sizes(given.shape) != graphs.sizes(wanted.shape):
            source = build.call(aten.expand.default, source, build.sizes(place))
        return build.call(aten.clone.default, source)


class _Fakes:
    """What new calls compute, in fake values. Calls of equal arguments share one: a model's blocks write alike."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def of(self, target: Any, args: Any, kwargs: Any) -> Any:
        key = (target, graphs.facts((args, kwargs)))
        if key not in self._known:
            given = graphs.values(args)
            with torch.no_grad(), unguarded_call(target, given):
                self._known[key] = target(*given, **graphs.values(dict(kwargs)))
        return self._known[key]

    def like(self, tensor: torch.Tensor) -> torch.Tensor:
        key = graphs.facts(tensor)
        if key not in self._known:
            with torch.no_grad():
                self._known[key] = torch.empty_like(tensor)
        found: torch.Tensor = self._known[key]
        return found


class _Builder:
    """New calls in front of a write, with its origin."""

    def __init__(self, graph: fx.Graph, place: fx.Node, made: list[fx.Node], fakes: _Fakes) -> None:
        self.graph, self.place, self.made, self.fakes = graph, place, made, fakes

    def call(self, target: Any, *args: Any, like: torch.Tensor | None = None, **kwargs: Any) -> fx.Node:
        """A call; `like` is what its result looks like where that is known."""
        with self.graph.inserting_before(self.place):
            node = self.graph.call_function(target, args, kwargs)
        value = self.fakes.of(target, args, kwargs) if like is None else self.fakes.like(like)
        node.meta = {**graphs.origin(self.place), "val": value}
        self.made.append(node)
        return node

    def cast(self, source: fx.Node, wanted: torch.Tensor) -> fx.Node:
        given = source.meta["val"]
        options: dict[str, Any] = {"dtype": wanted.dtype}
        if given.device != wanted.device:
            options["device"] = wanted.device
        return self.call(aten._to_copy.default, source, **options)

    def sizes(self, node: fx.Node) -> list[Any]:
        """The shape of a tensor, symbolic sizes as nodes."""
        return [
            size if type(size) is int else self.call(aten.sym_size.int, node, axis)
            for axis, size in enumerate(node.meta["val"].shape)
        ]


# --- writing a view back ----------------------------------------------------------------------------------------------

Inverse = Callable[[_Builder, fx.Node, fx.Node, fx.Node], fx.Node]
"""``(build, view, value, below)``: the tensor `below` with `value` in the place of the view."""


def _inverse(view: fx.Node, parent: fx.Node) -> Inverse | None:
    """How a view's new value is put back into what it is a view of; None where that cannot be said."""
    ours, theirs = view.meta.get("val"), parent.meta.get("val")
    if graphs.is_mutable(view.target):
        return _unchanged  # an in-place call is another name for what it writes to
    if not isinstance(ours, torch.Tensor) or not isinstance(theirs, torch.Tensor):
        return None
    if view.target is operator.getitem:
        return _inverse_of_piece(view)
    name = view.target._schema.name if isinstance(view.target, OpOverload) else ""
    if ours.dtype != theirs.dtype:
        return None  # the same memory, read as something else
    if name in _REARRANGED and graphs.sizes(ours.shape) == graphs.sizes(theirs.shape):
        return _unchanged
    known = _INVERSES.get(name)
    if known is not None:
        return known
    return _reshaped if name in _REARRANGED and _count(ours) == _count(theirs) else None


def _unchanged(build: _Builder, view: fx.Node, value: fx.Node, below: fx.Node) -> fx.Node:
    return value


def _reshaped(build: _Builder, view: fx.Node, value: fx.Node, below: fx.Node) -> fx.Node:
    return build.call(aten.reshape.default, value, build.sizes(below), like=below.meta["val"])


def _transposed(build: _Builder, view: fx.Node, value: fx.Node, below: fx.Node) -> fx.Node:
    names = ("axis0", "axis1") if view.target is aten.swapaxes.default else ("dim0", "dim1")
    return build.call(aten.transpose.int, value, *(graphs.argument(view, name) for name in names))


def _matrix_transposed(build: _Builder, view: fx.Node, value: fx.Node, below: fx.Node) -> fx.Node:
    return build.call(aten.t.default, value)


def _permuted(build: _Builder, view: fx.Node, value: fx.Node, below: fx.Node) -> fx.Node:
    order: Any = graphs.argument(view, "dims")
    inverse = [0] * len(order)
    for place, axis in enumerate(order):
        inverse[axis % len(order)] = place
    return build.call(aten.permute.default, value, inverse)


def _sliced(build: _Builder, view: fx.Node, value: fx.Node, below: fx.Node) -> fx.Node:
    dim, start, end, step = (graphs.argument(view, name) for name in ("dim", "start", "end", "step"))
    begin, extent = _bounds(below.meta["val"].shape[dim], start), value.meta["val"].shape[dim]
    if step == 1 and begin is not None:
        if type(extent) is int:
            return _put(build, value, below, dim, begin, begin + extent)
        if end is None or end == sys.maxsize:
            return _put(build, value, below, dim, begin, None)
    like = below.meta["val"]
    return build.call(aten.slice_scatter.default, below, value, dim, start, end, step, like=like)


def _narrowed(build: _Builder, view: fx.Node, value: fx.Node, below: fx.Node) -> fx.Node:
    dim, start, length = (graphs.argument(view, name) for name in ("dim", "start", "length"))
    begin = _bounds(below.meta["val"].shape[dim], start)
    if begin is not None and type(length) is int:
        return _put(build, value, below, dim, begin, begin + length)
    end = start + length if type(start) is type(length) is int else build.call(operator.add, start, length)
    return build.call(aten.slice_scatter.default, below, value, dim, start, end, 1, like=below.meta["val"])


def _selected(build: _Builder, view: fx.Node, value: fx.Node, below: fx.Node) -> fx.Node:
    dim, index = (graphs.argument(view, name) for name in ("dim", "index"))
    begin = _bounds(below.meta["val"].shape[dim], index)
    if begin is None:
        return build.call(aten.select_scatter.default, below, value, dim, index, like=below.meta["val"])
    return _one(build, value, below, dim, begin)


_SPLITS = ("aten::split", "aten::split_with_sizes", "aten::chunk", "aten::unbind")


def _inverse_of_piece(view: fx.Node) -> Inverse | None:
    """For one of the results of a split."""
    split, place = view.args
    assert isinstance(split, fx.Node)
    pieces = split.meta["val"]
    name = split.target._schema.name if isinstance(split.target, OpOverload) else ""
    if not isinstance(place, int) or name not in (
        "aten::split",
        "aten::split_with_sizes",
        "aten::chunk",
        "aten::unbind",
    ):
        return None
    place, axis = place % len(pieces), graphs.argument(split, "dim")
    if name == "aten::unbind":
        return lambda build, view, value, below: _one(build, value, below, axis, place)
    extents = [piece.shape[axis] for piece in pieces[: place + 1]]
    if any(type(extent) is not int for extent in extents):
        return None
    begin, end = sum(extents[:-1]), sum(extents)
    return lambda build, view, value, below: _put(build, value, below, axis, begin, end)


def _on_diagonal(build: _Builder, view: fx.Node, value: fx.Node, below: fx.Node) -> fx.Node:
    place = [graphs.argument(view, name) for name in ("offset", "dim1", "dim2")]
    return build.call(aten.diagonal_scatter.default, below, value, *place, like=below.meta["val"])


_INVERSES: Mapping[str, Inverse] = {
    "aten::transpose": _transposed,
    "aten::swapaxes": _transposed,
    "aten::swapdims": _transposed,
    "aten::t": _matrix_transposed,
    "aten::permute": _permuted,
    "aten::slice": _sliced,
    "aten::narrow": _narrowed,
    "aten::select": _selected,
    "aten::diagonal": _on_diagonal,
}


def _one(build: _Builder, value: fx.Node, below: fx.Node, dim: int, index: int) -> fx.Node:
    """The tensor with one index of an axis exchanged."""
    row = build.call(aten.unsqueeze.default, value, dim % below.meta["val"].dim())
    return _put(build, row, below, dim, index, index + 1)


def _put(build: _Builder, value: fx.Node, below: fx.Node, dim: int, begin: int, end: int | None) -> fx.Node:
    """The tensor with a stretch of one axis exchanged: what is before it, the new value, what is after it."""
    size = below.meta["val"].shape[dim]
    parts = [value]
    if begin > 0:
        parts.insert(0, build.call(aten.slice.Tensor, below, dim, 0, begin))
    if end is not None and end != size:
        parts.append(build.call(aten.slice.Tensor, below, dim, end, sys.maxsize))
    return value if len(parts) == 1 else build.call(aten.cat.default, parts, dim, like=below.meta["val"])


def _bounds(size: Any, start: Any) -> int | None:
    """Where a stretch begins, counted from the front; None where that depends on sizes."""
    if start is None:
        return 0
    if type(start) is not int:
        return None
    if type(size) is int:
        return min(max(start + size if start < 0 else start, 0), size)
    return start if start >= 0 else None


def _count(tensor: torch.Tensor) -> Any:
    count: Any = 1
    for size in graphs.sizes(tensor.shape):
        count = count * size
    return count
