"""What a graph in a file may call, by name: registered ops, and the functions listed here. Nothing is ever imported."""

from __future__ import annotations

import builtins
import functools
import math
import operator
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch.nn import functional

from trtplug.artefacts.malformed import Malformed, need
from trtplug_registry import qualified_name

_PYTHON: Mapping[ModuleType, str] = {  # arithmetic on sizes and numbers, as exported graphs hold it
    operator: """getitem add sub mul floordiv truediv mod pow neg pos abs eq ne lt le gt ge and_ or_ xor not_ lshift
        rshift""",
    math: "ceil floor trunc sqrt pow fmod log log2 exp",
    builtins: "abs bool float int max min pow round",
    torch: "sym_float sym_int sym_ite sym_max sym_min sym_not sym_sum",
}

_TORCH: Mapping[ModuleType, str] = {  # what the reference executor calls besides its own functions
    torch: """abs acos acosh add asin asinh atan atanh cat ceil cos cosh einsum eq erf exp floor gt isinf isnan log
        logical_and logical_not logical_or logical_xor lt matmul maximum minimum mul neg permute pow reciprocal relu
        round sigmoid sign sin sinh softmax sqrt sub tan tanh where""",
    functional: "elu gelu leaky_relu softsign",
}

_HIGHER_ORDER = frozenset({"cond", "while_loop", "scan", "associative_scan", "map_impl"})
_QUALIFIED = re.compile(r"(\w+)::(\w+)(?:\.(\w+))?", re.ASCII)

# Ops that read or write what their arguments name outside of the process.
_FOREIGN_SPACES = frozenset({"debugprims"})
_FOREIGN_ARGUMENT = re.compile(r"file|path|url", re.IGNORECASE)


@functools.cache
def functions() -> Mapping[str, Callable[..., Any]]:
    """Every function that is not an op, by the name that it has in a file."""
    named = {
        f"{module.__name__}.{name}": getattr(module, name)
        for table in (_PYTHON, _TORCH)
        for module, names in table.items()
        for name in names.split()
        if hasattr(module, name)  # torch.sym_sum is young
    }
    for module in _semantics():
        for name, value in vars(module).items():
            if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__ and callable(value):
                named[f"reference.{module.__name__.rpartition('.')[2]}.{name}"] = value
    return named


def _semantics() -> tuple[ModuleType, ...]:
    """The modules whose public functions the reference executor's graphs call."""
    from trtplug.reference.semantics import (
        attention,
        boxes,
        checks,
        control,
        indexing,
        layout,
        pointwise,
        quantization,
        reductions,
        resampling,
        windows,
    )

    modules = attention, boxes, checks, control, indexing, layout
    return (*modules, pointwise, quantization, reductions, resampling, windows)


@functools.cache
def _names() -> Mapping[Callable[..., Any], str]:
    return {function: name for name, function in reversed(list(functions().items()))}


def name_of(target: Any) -> str:
    """The name of what a node calls.

    Raises:
        Malformed: it is neither an op nor one of the functions.
    """
    if isinstance(target, OpOverload):
        name = qualified_name(target)
        _check_harmless(target, name)
        return name
    if isinstance(target, HigherOrderOperator):
        if target.name() in _HIGHER_ORDER:
            return f"higher_order::{target.name()}"
    elif target in _names():
        return _names()[target]
    raise Malformed(f"a file cannot hold a call of {target}: it is not a registered op")


def target_of(name: str) -> Callable[..., Any]:
    """What a name calls; the opposite of `name_of`.

    Raises:
        Malformed: it calls nothing that a file may call, or the op is not registered here.
    """
    known = functions().get(name)
    if known is not None:
        return known
    parts = _QUALIFIED.fullmatch(name)
    if parts is None:
        raise Malformed(f"{name!r} is not something that a file may call")
    space, op, overload = parts.groups()
    if space == "higher_order":
        return _higher_order(op)
    found = _op(space, op, overload or "default")
    if found is None:
        raise Malformed(
            f"the op {name} is not registered here: import the library that defines it, then load; "
            f"if it is one of Torch's own, the file was made with another version of Torch"
        )
    _check_harmless(found, name)
    return found


def _op(space: str, op: str, overload: str) -> OpOverload | None:
    packet = getattr(getattr(torch.ops, space), op, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket) or overload not in packet.overloads():
        return None
    found = getattr(packet, overload)
    return found if isinstance(found, OpOverload) else None


def _higher_order(op: str) -> Callable[..., Any]:
    import torch._higher_order_ops

    need(op in _HIGHER_ORDER, f"higher_order::{op} is not something that a file may call")
    found = getattr(torch.ops.higher_order, op, None)
    if not isinstance(found, HigherOrderOperator):
        raise Malformed(f"this version of Torch has no higher-order op {op!r}")
    return found


def _check_harmless(op: OpOverload, name: str) -> None:
    """Refuses TorchScript's own ops, and those that read or write files."""
    if not torch._C._dispatch_has_kernel(op.name()):
        raise Malformed(f"{name} is not an op of Torch's dispatcher")
    named = [a.name for a in op._schema.arguments if "str" in str(a.type) and _FOREIGN_ARGUMENT.search(a.name)]
    if named or op.namespace in _FOREIGN_SPACES:
        raise Malformed(f"{name} reads or writes files, so a .trtp file cannot call it")
