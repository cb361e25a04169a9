"""Which ops a name stands for: an opset, a namespace, an op, or what real architectures hold."""

from __future__ import annotations

import csv
import functools
import importlib.resources
from collections.abc import Mapping

import torch
from torch._ops import OpOverload

from trtplug_registry import Registry, UnknownNameError, overloads_named, unknown_name

CORE, ALL, ZOO, CLAIMED = "core_aten", "all", "zoo", "claimed"


def overloads_in(subject: str, registry: Registry) -> tuple[OpOverload, ...]:
    """The overloads that a name stands for, by name.

    Args:
        subject: ``"core_aten"`` (what ATen tags as core), ``"all"`` (every functional ATen overload), ``"zoo"`` (what
            real architectures hold after export), ``"claimed"`` (what some converter claims), a namespace
            (``"torchvision"``), or an op (``"aten::add"``, ``"aten.add.Tensor"``).
        registry: says what is claimed.

    Raises:
        UnknownNameError: it stands for nothing here.
    """
    if subject == CORE:
        return tuple(found for name in _names("aten") if _is_core(name) and (found := overload(name)) is not None)
    if subject == ALL:
        return tuple(op for op in _overloads("aten") if not op._schema.is_mutable and not is_out(op))
    if subject == ZOO:
        return tuple(found for name in zoo() if (found := overload(name)) is not None)
    if subject == CLAIMED:
        return registry.targets
    if "." in subject or "::" in subject:
        known = frozenset(torch._C._dispatch_get_all_op_names())  # TorchScript's own overloads on numbers are not
        named = tuple(op for op in overloads_named(subject) if op.name() in known)
        return tuple(op for op in named if not is_out(op)) or named
    functional = tuple(op for op in _overloads(subject) if not op._schema.is_mutable)
    if not functional:
        try:
            return overloads_named(f"aten::{subject}")
        except UnknownNameError:
            spaces = {name.partition("::")[0] for name in torch._C._dispatch_get_all_op_names()}
            raise unknown_name("opset or namespace", subject, {CORE, ALL, ZOO, CLAIMED, *spaces}) from None
    return functional


def is_op(subject: str) -> bool:
    """Whether a name is that of an op rather than of a set."""
    return subject not in (CORE, ALL, ZOO, CLAIMED) and not _overloads(subject)


@functools.cache
def zoo() -> Mapping[str, tuple[int, int]]:
    """How many of 202 architectures hold an op after export, and how many calls they have in all, by overload.

    A checked-in count (``zoo.tsv``), over exported graphs of vision, text and audio architectures.
    """
    text = importlib.resources.files("trtplug.covering").joinpath("zoo.tsv").read_text()
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    return {row["op"]: (int(row["models"]), int(row["calls"])) for row in rows}


def is_out(op: OpOverload) -> bool:
    return any(argument.is_out for argument in op._schema.arguments)


def overload(name: str) -> OpOverload | None:
    """The overload of a qualified name such as ``aten::add.Tensor`` or ``aten::relu``, if it is registered."""
    space, _, rest = name.partition("::")
    op, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, space), op, None)
    return getattr(packet, overload or "default", None) if packet is not None else None


def _is_core(name: str) -> bool:
    """Whether ATen tags an overload as core. The dispatcher says so ten times as fast as making all overloads."""
    op, _, overload = name.partition(".")
    found = torch._C._get_operation_overload(op, overload)
    return found is not None and torch.Tag.core in found[2]


def _overloads(space: str) -> tuple[OpOverload, ...]:
    return tuple(found for name in _names(space) if (found := overload(name)) is not None)


def _names(space: str) -> list[str]:
    return sorted(name for name in torch._C._dispatch_get_all_op_names() if name.startswith(f"{space}::"))
