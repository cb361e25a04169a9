"""Which dtype each node computes in. TensorRT takes the dtypes that the network states, so this is what decides."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from trtplug_lowering_passes._dtypes import (
    FLOATS,
    argument_or_none,
    dtype_name,
    float_tensors,
    is_outer_product,
    is_quantization,
    numbers,
    peak,
    same_but_for_dtype,
    stated_dtype,
    value_as,
)
from trtplug_lowering_passes._nodes import (
    ORIGIN,
    constant_of,
    folded_from,
    new_constant,
    positions,
    tensor_of,
    with_arguments,
)
from trtplug_lowering_passes.range_sensitive import BOUNDED, EXACT, PRODUCTS, packets, range_sensitive
from trtplug_registry import Selection, applied, decline, lowering_pass
from trtplug_registry.guards import unguarded

aten = torch.ops.aten

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_CAST = aten._to_copy.default
_CASTS = frozenset({aten._to_copy, aten.to, aten.type_as})
_OURS = "precision_cast"
"""Metadata of the casts that this pass makes: to the dtypes that it has decided on, or that the model promises."""

_WIDENINGS = frozenset(
    (narrow, wide)
    for narrow, wides in (
        (torch.float16, (torch.float32, torch.float64)),
        (torch.bfloat16, (torch.float32, torch.float64)),
        (torch.float32, (torch.float64,)),
    )
    for wide in wides
)
"""Casts that lose nothing, so that casting back restores the value."""


@lowering_pass("precision", phase="early", after=["no-ops-early"], before=["dead-code-early"], rounds=True)
def set_precision(
    graph_module: fx.GraphModule,
    *,
    precision: str = "keep",
    precision_exclude: Sequence[str] = (),
    precision_include: Sequence[str] = (),
) -> bool:
    """Casts each node's arguments to the dtype that it is to compute in; inputs and outputs keep theirs.

        x: float32 ─ linear(weight: float32) ─ softmax ─ y: float32
        →
        x: float32 ─ cast(float16) ─ linear(weight: float16) ─ cast(float32) ─ softmax ─ y: float32

    Weights are cast once, now. A value is cast from where it was computed, once for each dtype, so that no two kept ops
    exchange rounded values; a cast to a wider dtype and back is left out, because it changes nothing.
    ``meta["precision"]`` of a node that does not compute in `precision` says why.

    Computed in float32 all the same: what `RANGE_SENSITIVE` lists; what takes a number that the dtype has no normal
    value for, and what is computed from such numbers; what is made of integers alone (positions, masks), until it meets
    features in a product. Stays as the model has it: what `precision_exclude` names, ops outside ATen, random ops, and
    ops that state a dtype themselves. Ops that only move or compare elements go where their arguments are.
    """
    if precision == "keep":
        return False
    exclude, include = Selection(precision_exclude), Selection(precision_include)
    changed = _Precision(graph_module, DTYPES[precision], exclude, include).run()
    for setting, selection in (("precision_exclude", exclude), ("precision_include", include)):
        met = {name for node in graph_module.graph.nodes for name in selection.matches(node)}
        for name in set(selection.names) - met:
            warnings.warn(
                f"{setting} names {name!r}, which is no op or module of this graph", UserWarning, stacklevel=2
            )
    return changed


class _Precision:
    def __init__(
        self, graph_module: fx.GraphModule, dtype: torch.dtype, exclude: Selection, include: Selection
    ) -> None:
        self.graph_module, self.dtype, self.exclude, self.include = graph_module, dtype, exclude, include
        self.original = {
            node: tensor.dtype for node in graph_module.graph.nodes if (tensor := tensor_of(node)) is not None
        }
        self.casts: dict[tuple[fx.Node, torch.dtype], fx.Node] = {}
        self.counted: set[fx.Node] = set()
        """Floats that are made of integers alone."""
        self.values: dict[tuple[fx.Node, torch.dtype], tuple[Any, Any]] = {}
        self.peaks: dict[fx.Node, float] = {}
        self.wide: set[fx.Node] = set()
        """What may hold numbers beyond the dtype's range."""
        self.changed = False

    def run(self) -> bool:
        for node in list(self.graph_module.graph.nodes):
            if node.op == "call_function" and isinstance(node.target, OpOverload):
                self._visit(node)
            elif node.op == "call_function" and node.target is operator.getitem:
                self._pick(node)
            elif node.op in ("call_function", "output"):
                self._restore(node)
        return self.changed

    def _visit(self, node: fx.Node) -> None:
        if node.meta.get(_OURS) or not (float_tensors(node.meta.get("val")) or self._float_inputs(node)):
            return
        if node.target.overloadpacket in _CASTS and self._cast(node):  # type: ignore[union-attr]  # an OpOverload
            return
        if is_quantization(node) and self.exclude.match(node) is None:
            return  # it quantizes halves as they are; who reads what it dequantizes says in what: see `_call`
        if stated_dtype(node) == torch.float64 and self.exclude.match(node) is None:
            self._state(node, torch.float32)
        dtype, why = self._decide(node)
        if dtype is not None and not self._rewrite(node, dtype):
            why, dtype = f"has no result of {dtype_name(dtype)}", None
        if dtype is None:
            self._restore(node)
        self._note(node, why if dtype != self.dtype else "")
        if dtype == self.dtype:
            applied(self.graph_module, dtype_name(dtype))
        self._track(node, dtype)

    # --- deciding ---------------------------------------------------------------------------------------------------

    def _decide(self, node: fx.Node) -> tuple[torch.dtype | None, str]:
        """The dtype to compute in (None: the model's own), and why it is not what was asked for."""
        target: Any = node.target
        packet = target.overloadpacket
        excluded = self.exclude.match(node)
        included = self.include.match(node)
        if excluded is not None:
            return None, f"precision_exclude names {excluded!r}"
        if included is not None:
            return self.dtype, ""
        if target.namespace not in ("aten", "prims"):
            return None, "not an ATen op: what it does in another dtype is not known"
        if target._schema.is_mutable:
            return None, "writes to a tensor of the model's dtype"
        if torch.Tag.nondeterministic_seeded in target.tags and argument_or_none(node, "dropout_p") != 0.0:
            return None, "draws other numbers in another dtype"
        stated = stated_dtype(node)
        if stated is not None:
            return stated, f"the model states {dtype_name(stated)}"
        kept = range_sensitive().get(packet) or self._number(node) or self._lineage(node, packet)
        if kept:
            return torch.float32, kept
        if packet in packets(EXACT):
            return self._following(node)
        return self.dtype, ""

    def _number(self, node: fx.Node) -> str:
        """Why a number among the arguments, or a constant, does not fit the dtype; or ""."""
        info = torch.finfo(self.dtype)
        found = [value for name, value in numbers(node)]
        for source in node.all_input_nodes:
            found += self._extremes(source)
        for value in found:
            size = abs(value)
            if info.max < size < float("inf") or 0 < size < info.tiny:
                return f"{value:g} is not a normal number of {dtype_name(self.dtype)}"
        return ""

    def _extremes(self, node: fx.Node) -> list[float]:
        """The element of largest magnitude of a constant; of a constant without dimensions, its value."""
        if node.op != "get_attr":
            return []
        if node not in self.peaks:
            value = constant_of(self.graph_module, node)
            self.peaks[node] = 0.0 if value is None else peak(value)
        dims = tensor_of(node)
        alone = dims is not None and dims.dim() == 0
        return [self.peaks[node]] if alone or self.peaks[node] > torch.finfo(self.dtype).max else []

    def _lineage(self, node: fx.Node, packet: Any) -> str:
        """Why the way in which the arguments were computed keeps a node in float32; or ""."""
        if any(source in self.wide for source in node.all_input_nodes):
            return f"an argument may be beyond the range of {dtype_name(self.dtype)}"
        if self._counts(node, packet):
            return "made of integers alone, such as positions and masks"
        return ""

    def _counts(self, node: fx.Node, packet: Any) -> bool:
        floats = [source for source in self._float_inputs(node) if source.op != "get_attr"]
        if not floats:
            return not self._float_inputs(node) and bool(float_tensors(node.meta.get("val")))
        if any(source not in self.counted for source in floats):
            return False
        return packet not in packets(PRODUCTS) or is_outer_product(node)

    def _following(self, node: fx.Node) -> tuple[torch.dtype, str]:
        """Where its arguments are; where they are in several dtypes, or constant, as asked."""
        found = {self._current(source) for source in self._float_inputs(node) if source.op != "get_attr"}
        if found != {torch.float32}:
            return self.dtype, ""
        return torch.float32, "moves or compares elements of float32"

    # --- rewriting --------------------------------------------------------------------------------------------------

    def _rewrite(self, node: fx.Node, dtype: torch.dtype) -> bool:
        """Makes a node compute in a dtype; False, and nothing is changed, where it cannot."""
        before = node.meta["val"]
        given = [tensor for source in node.all_input_nodes for tensor in float_tensors(source.meta.get("val"))]
        if all(tensor.dtype == dtype for tensor in (*given, *float_tensors(before))):
            return True
        target: Any = node.target
        vals, named = fx.node.map_arg((node.args, node.kwargs), lambda source: self._value(source, dtype))
        try:
            with torch.no_grad(), unguarded(*pytree.tree_leaves(vals)):  # the sizes are as before
                after = target(*vals, **named) if self._float_inputs(node) else value_as(before, dtype)
        except Exception:  # an op may refuse a dtype in any way
            return False
        if not same_but_for_dtype(before, after, dtype):
            return False
        self._map(node, lambda source: self._as(source, dtype, node))
        node.meta["val"] = after
        node.meta.pop("tensor_meta", None)
        return True

    def _cast(self, node: fx.Node) -> bool:
        """A cast of the model's own: from wherever its argument is, to what it states. False: it states no dtype."""
        source, result = node.args[0], tensor_of(node)
        assert isinstance(source, fx.Node)
        stated = self.original[node]
        changes = self.original.get(source) != stated
        if result is None or not (changes or stated_dtype(node) is not None):
            return False
        wanted = torch.float32 if stated == torch.float64 and self.exclude.match(node) is None else stated
        if wanted != stated or "other" in positions(node.target):
            node.target, node.args, node.kwargs = _CAST, (source,), {"dtype": wanted}
            node.meta["val"] = value_as(result, wanted)
            self.changed = True
        if wanted in FLOATS:
            if source in self.counted or self.original[source] not in FLOATS:
                self.counted.add(node)
            if source in self.wide:
                self.wide.add(node)
        return True

    def _state(self, node: fx.Node, dtype: torch.dtype) -> None:
        """Replaces the dtype that a call states."""
        with_arguments(node, lambda name, value: dtype if name == "dtype" else value)
        node.meta["val"] = value_as(node.meta["val"], dtype)
        self.changed = True

    def _pick(self, node: fx.Node) -> None:
        source, place = node.args
        value = source.meta.get("val") if isinstance(source, fx.Node) else None
        if isinstance(value, list | tuple) and isinstance(place, int):
            node.meta["val"] = value[place]
            for known in (self.counted, self.wide):
                if source in known:
                    known.add(node)

    def _restore(self, node: fx.Node) -> None:
        """Gives a node its arguments in the dtypes that the model has them in."""
        self._map(
            node, lambda source: self._as(source, self.original[source], node) if source in self.original else source
        )

    def _map(self, node: fx.Node, change: Any) -> None:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), change)
        if (args, kwargs) != (node.args, node.kwargs):
            node.args, node.kwargs = args, dict(kwargs)
            self.changed = True

    def _as(self, node: fx.Node, dtype: torch.dtype, place: fx.Node) -> fx.Node:
        """A node's value in a dtype, for the use of `place`."""
        current = self._current(node)
        if current not in FLOATS or current == dtype:
            return node
        source = node
        while getattr(source.target, "overloadpacket", None) in _CASTS:
            widened, source = source, source.args[0]  # type: ignore[assignment]  # a cast's argument
            before, after = self._current(source), self._current(widened)
            if before != after and (before, after) not in _WIDENINGS:
                break
            if self._current(source) == dtype:
                return source
        key = node, dtype
        if key not in self.casts:
            name = f"{node.name}_{dtype_name(dtype)}"
            constant = constant_of(self.graph_module, node)
            if constant is None:
                self.casts[key] = self._call(node, dtype, place, name)
            else:
                self.casts[key] = self._constant(node, constant.to(dtype), name)
        return self.casts[key]

    def _call(self, node: fx.Node, dtype: torch.dtype, place: fx.Node, name: str) -> fx.Node:
        """A cast; of what is dequantized, the same in another dtype, so that TensorRT sees no cast before a product."""
        call: tuple[Any, Any, dict[str, Any]] = (_CAST, (node,), {"dtype": dtype})
        if is_quantization(node):
            call = (node.target, node.args, {**node.kwargs, "out_dtype": dtype})
        with self.graph_module.graph.inserting_before(place):
            cast = self.graph_module.graph.create_node("call_function", *call, name=name)
        cast.meta = {key: place.meta[key] for key in ORIGIN if key in place.meta}
        cast.meta |= {"val": self._value(node, dtype), _OURS: True}
        return cast

    def _value(self, node: fx.Node, dtype: torch.dtype) -> Any:
        """A node's fake value with its floats in a dtype."""
        value = node.meta.get("val")
        if not float_tensors(value):
            return value
        known = self.values.get((node, dtype))
        if known is None or known[0] is not value:
            known = self.values[node, dtype] = (value, value_as(value, dtype))
        return known[1]

    def _constant(self, node: fx.Node, value: torch.Tensor, name: str) -> fx.Node:
        attribute = str(node.target).replace(".", "_") + f"_{dtype_name(value.dtype)}"
        constant = new_constant(self.graph_module, node.next, attribute, value, folded_from(node))
        constant.name = name
        constant.meta |= {key: item for key, item in node.meta.items() if key in ORIGIN}
        constant.meta["val"] = self._value(node, value.dtype)
        return constant

    # --- what is known of values --------------------------------------------------------------------------------------

    def _track(self, node: fx.Node, dtype: torch.dtype | None) -> None:
        """Notes where a result's numbers come from."""
        packet = node.target.overloadpacket  # type: ignore[union-attr]  # an OpOverload
        if not float_tensors(node.meta.get("val")):
            return
        if self._counts(node, packet):
            self.counted.add(node)
        info = torch.finfo(self.dtype)
        beyond = any(info.max < abs(value) < float("inf") for _, value in numbers(node))
        beyond |= any(peak > info.max for source in node.all_input_nodes for peak in self._extremes(source))
        inherited = any(source in self.wide for source in node.all_input_nodes)
        if dtype != self.dtype and (beyond or inherited) and packet not in packets(BOUNDED):
            self.wide.add(node)

    def _float_inputs(self, node: fx.Node) -> list[fx.Node]:
        return [source for source in node.all_input_nodes if self._current(source) in FLOATS]

    @staticmethod
    def _current(node: Any) -> torch.dtype | None:
        tensor = tensor_of(node)
        return None if tensor is None else tensor.dtype

    def _note(self, node: fx.Node, why: str) -> None:
        if why:
            node.meta["precision"] = why
            decline(self.graph_module, dtype_name(self.dtype), why)
        else:
            node.meta.pop("precision", None)
