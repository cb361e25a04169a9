"""Equal calls become one."""

from __future__ import annotations

import functools
import operator
from collections.abc import Hashable
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from trtplug_lowering_passes._nodes import size_key
from trtplug_registry import Returned, lowering_pass

_SIZE_MATH = frozenset({operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.neg})


@lowering_pass("common-subexpressions", after=["no-ops", "type-promotion"], before=["constant-folding"])
def merge_common_subexpressions(graph_module: fx.GraphModule) -> bool:
    """Computes each call once: same op, same arguments.

        x ─ exp ─ a              x ─ exp ─ a, b
        x ─ exp ─ b       →

    Numbers are compared with their types and signs: ``x + 1`` is not ``x + 1.0``, nor is 0.0 the same as -0.0. Stays:
    random ops; ops outside ``aten`` and ``prims``, whose effects are not known; assertions; two results that the graph
    returns (the caller may write to one of them).
    """
    seen: dict[Hashable, fx.Node] = {}
    returned = Returned(graph_module.graph)
    changed = False
    for node in list(graph_module.graph.nodes):
        key = _key(node)
        if key is None:
            continue
        first = seen.setdefault(key, node)
        if first is node or (node in returned and first in returned):
            continue
        if node in returned:
            returned.add(first)
        node.replace_all_uses_with(first)
        graph_module.graph.erase_node(node)
        changed = True
    return changed


def _key(node: fx.Node) -> Hashable | None:
    """Equal for two nodes only where they give the same; None where that is not known."""
    if node.op == "get_attr":
        return ("get_attr", str(node.target))
    if node.op != "call_function" or not _is_pure(node):
        return None
    try:
        key = (node.target, _frozen(node.args), _frozen(node.kwargs))
        hash(key)
    except TypeError:
        return None
    return key


def _is_pure(node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, OpOverload):
        return target is operator.getitem or target in _SIZE_MATH
    return _op_is_pure(target) and node.meta.get("val") is not None


@functools.cache
def _op_is_pure(op: OpOverload) -> bool:
    if op.namespace not in ("aten", "prims") or op._schema.is_mutable or not op._schema.returns:
        return False
    return torch.Tag.nondeterministic_seeded not in op.tags


def _frozen(value: Any) -> Hashable:
    if isinstance(value, fx.Node):
        return value
    if isinstance(value, _SEQUENCES):
        return tuple([_frozen(item) for item in value])
    if isinstance(value, dict):
        return tuple([(name, _frozen(value[name])) for name in sorted(value)])
    if isinstance(value, torch.SymInt):
        return (torch.SymInt, size_key(value))
    if isinstance(value, _NUMBERS):
        return (type(value), repr(value))  # 0.0 == -0.0, and nan != nan
    if isinstance(value, slice):
        return (slice, _frozen((value.start, value.stop, value.step)))
    return value  # type: ignore[no-any-return]  # None, a string, a dtype, a device, …


_SEQUENCES = (list, tuple)  # a union would be made anew at each of many calls
_NUMBERS = (int, float, complex)
