"""What depends on constants only is computed now."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from trtplug_lowering_passes._nodes import constant_of, folded_from
from trtplug_registry import Returned, free_name, lowering_pass

aten = torch.ops.aten

SMALL = 64 * 1024
"""Bytes up to which a result is always folded."""

NEVER = frozenset(
    {
        aten.empty,
        aten.empty_like,
        aten.empty_strided,
        aten.empty_permuted,
        aten.new_empty,
        aten.new_empty_strided,
        aten.dequantize,
        aten.quantize_per_tensor,
        aten.quantize_per_channel,
        aten.fake_quantize_per_tensor_affine,
        aten.fake_quantize_per_channel_affine,
        aten.fake_quantize_per_tensor_affine_cachemask,
        aten.fake_quantize_per_channel_affine_cachemask,
        aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams,
        aten.item,
        aten._local_scalar_dense,
    }
)
"""Never folded: memory that is not initialized; quantization, which TensorRT must see; numbers that leave tensors.

Nor are random ops, ops that write, ops outside ``aten`` and ``prims`` (what they do besides is not known), a cast to a
wider dtype, or anything else that takes more memory than it saves, unless it is small.
"""

_FILLS = {
    aten.new_ones: 0,
    aten.new_zeros: 0,
    aten.new_full: 0,
    aten.ones_like: 1,
    aten.zeros_like: 1,
    aten.full_like: 1,
}
"""Ops that read only the metadata of their first argument: 0 its dtype and device, 1 its shape too."""


def folded(graph_module: fx.GraphModule) -> bool:
    """Computes calls whose arguments are all constants, and keeps the result as a buffer.

        weight ─ t ─┐              weight_t ─┐
               x ─ mm           →         x ─ mm
        arange(4) ─ unsqueeze(0)   →   unsqueeze: buffer int64[1, 4]

    A view of a weight shares its memory. ``meta["folded_from"]`` of the new ``get_attr`` node holds the names of the
    model's tensors that it was computed from: when those change, it must be computed anew. Stays: see `NEVER`; what the
    graph returns (each call returns a fresh tensor); buffers that the graph updates, which lowering marks with
    ``meta["written"]``.
    """
    folding = _Folding(graph_module)
    for node in graph_module.graph.nodes:
        folding.visit(node)
    return folding.finish()


fold_constants_early = lowering_pass("constant-folding-early", phase="early", after=["no-ops-early"])(folded)
fold_constants = lowering_pass("constant-folding", after=["no-ops", "type-promotion"])(folded)


class _Folding:
    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.graph_module, self.returned = graph_module, Returned(graph_module.graph)
        self.values: dict[fx.Node, Any] = {}
        self.sources: dict[fx.Node, frozenset[str]] = {}
        """The model's tensors that each value was computed from."""
        self.folded: list[fx.Node] = []

    def visit(self, node: fx.Node) -> None:
        """Computes a node where it can and should be."""
        if node.op == "get_attr":
            value = constant_of(self.graph_module, node)
            if value is not None:
                self.values[node], self.sources[node] = value, folded_from(node)
            return
        if node.op != "call_function" or not self._knows(node) or not self._foldable(node):
            return
        try:
            with torch.no_grad():
                value = self._compute(node)
        except Exception:  # what cannot be computed here is left to be computed there
            return
        if self._worth(node, value):
            self.values[node] = value
            known = (self.sources[source] for source in node.all_input_nodes if source in self.sources)
            self.sources[node] = frozenset().union(*known)
            self.folded.append(node)

    def _foldable(self, node: fx.Node) -> bool:
        target = node.target
        if target is operator.getitem:
            return True
        if not isinstance(target, OpOverload) or target.namespace not in ("aten", "prims"):
            return False
        if target._schema.is_mutable or torch.Tag.nondeterministic_seeded in target.tags:
            return False
        return target.overloadpacket not in NEVER and _static(node.meta.get("val")) and node not in self.returned

    def _knows(self, node: fx.Node) -> bool:
        """Whether the arguments are known, as far as the op reads them; most calls' are not, so this is asked first."""
        sources = node.all_input_nodes
        if isinstance(node.target, OpOverload) and node.target.overloadpacket in _FILLS:
            return all(source is node.args[0] for source in sources)
        return all(source in self.values for source in sources)

    def _compute(self, node: fx.Node) -> Any:
        target: Any = node.target
        args: Any = list(node.args)
        if target in (operator.getitem,):
            return self.values[args[0]][args[1]]
        if target.overloadpacket in _FILLS and args[0] not in self.values:
            like = args[0].meta["val"]
            shape = node.meta["val"].shape if _FILLS[target.overloadpacket] else (0,)
            if node.meta["val"].numel() * node.meta["val"].element_size() > SMALL:
                raise ValueError("not small")
            args[0] = torch.empty(tuple(shape), dtype=like.dtype, device=like.device)
        args, kwargs = fx.node.map_arg((tuple(args), node.kwargs), lambda source: self.values[source])
        result = target(*args, **kwargs)
        promised = node.meta["val"]
        if isinstance(result, torch.Tensor) and (result.dtype != promised.dtype or result.shape != promised.shape):
            raise ValueError("the metadata says something else")
        return result

    def _worth(self, node: fx.Node, value: Any) -> bool:
        """Whether the result takes no more memory than what it replaces, or is small."""
        sources = [self.values[source] for source in node.all_input_nodes if source in self.values]
        memory = {tensor.untyped_storage().data_ptr() for source in sources for tensor in _tensors(source)}
        fresh = [tensor for tensor in _tensors(value) if tensor.untyped_storage().data_ptr() not in memory]
        size = sum(tensor.untyped_storage().nbytes() for tensor in fresh)
        if size <= SMALL:
            return True
        replaced = [
            tensor
            for source in node.all_input_nodes
            if source in self.values and len(source.users) == 1  # else the original stays beside the result
            for tensor in _tensors(self.values[source])
        ]
        widest = max((tensor.element_size() for tensor in replaced), default=0)
        return size <= sum(map(_bytes, replaced)) and all(tensor.element_size() <= widest for tensor in fresh)

    def finish(self) -> bool:
        """Puts buffers in place of the folded nodes that are read by others, and removes what is no longer read."""
        graph = self.graph_module.graph
        for node in self.folded:
            value = self.values[node]
            if not isinstance(value, torch.Tensor) or all(user in self.values for user in node.users):
                continue
            name = free_name(self.graph_module, f"folded_{node.name}")
            self.graph_module.register_buffer(name, value)
            with graph.inserting_before(node):
                constant = graph.get_attr(name)
            constant.meta = {key: item for key, item in node.meta.items() if key != "tensor_meta"}
            constant.meta["folded_from"] = self.sources[node]
            node.replace_all_uses_with(constant, lambda user: user not in self.values)
        changed = False
        for node in reversed(self.folded):
            if not node.users:
                graph.erase_node(node)
                changed = True
        return changed


def _static(value: Any) -> bool:
    tensors = _tensors(value)
    return bool(tensors) and all(type(size) is int for tensor in tensors for size in tensor.shape)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, list | tuple) else []


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
