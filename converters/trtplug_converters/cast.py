"""Changes of dtype, and ops that change nothing: copies, layouts, aliases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trtplug_registry import (
    ALL,
    NUMBERS,
    Anything,
    Choose,
    Converter,
    Domain,
    Only,
    Optional,
    Relation,
    Tensor,
    TensorFacts,
    converter,
    converter_table,
    tensors_in,
)

aten = torch.ops.aten

SOURCE = Tensor((*ALL, torch.uint8))
DTYPE = Only(*ALL, because="not a type that TensorRT computes with")
MEMORY = Anything(because="where and how tensors lie in memory means nothing in an engine")
DEVICE = Anything(because="an engine runs on one device")
STRIDED = Only(None, torch.strided)
FLAG = Anything(because="copies mean nothing in an engine")


def within_target(argument: str = "dtype") -> Relation:
    """What eager casts from floats to integers lies within the integers' range: outside, C++ leaves it undefined."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        source, target = call["self"], call.get(argument)
        target = target.dtype if isinstance(target, TensorFacts) else target
        if target is None or target.is_floating_point or not source.dtype.is_floating_point or target == torch.bool:
            return
        most = 2.0 ** (torch.iinfo(target).bits - 2)
        call["self"] = source._replace(values=(-most, most))

    return Relation("elements within the range of the dtype", ("self", argument), None, arrange)


def computed_bytes(name: str = "self") -> Relation:
    """A byte tensor comes from outside: a picture, say."""

    def is_constant(call: Mapping[str, Any]) -> bool:
        return any(facts.constant for facts in tensors_in(call[name]) if facts.dtype == torch.uint8)

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        call[name] = call[name]._replace(constant=call[name].constant and not is_constant(call))

    return Relation(
        "bytes that are not known at compile time",
        (name,),
        lambda call: not is_constant(call),
        arrange,
        "TensorRT has no constants of bytes",
    )


HOW = {"non_blocking": FLAG, "copy": FLAG, "memory_format": MEMORY}
COPY = {"dtype": Optional(DTYPE), "layout": STRIDED, "device": DEVICE, "pin_memory": MEMORY, "non_blocking": FLAG}


@converter(aten._to_copy.default, Domain(computed_bytes(), within_target(), self=SOURCE, **COPY, memory_format=MEMORY))
def to_copy(
    ctx: Any,
    self: Any,
    *,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
    non_blocking: bool = False,
    memory_format: Any = None,
) -> Any:
    """_to_copy(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None,
    bool non_blocking=False, MemoryFormat? memory_format=None) -> Tensor

    One cast, or none.
    """
    return ctx.cast(self, ctx.outputs[0].dtype)


@converter(
    aten.to.dtype_layout,
    Domain(computed_bytes(), within_target(), self=SOURCE, **{**COPY, **HOW}),
)
def to_layout(
    ctx: Any,
    self: Any,
    *,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: Any = None,
) -> Any:
    """to.dtype_layout(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None, bool non_blocking=False, bool copy=False, MemoryFormat? memory_format=None) -> Tensor

    One cast, or none.
    """
    return ctx.cast(self, ctx.outputs[0].dtype)


@converter(
    aten.to.dtype,
    Domain(computed_bytes(), within_target(), self=SOURCE, dtype=DTYPE, **HOW),
)
def to_dtype(
    ctx: Any, self: Any, dtype: Any, non_blocking: bool = False, copy: bool = False, memory_format: Any = None
) -> Any:
    """to.dtype(Tensor self, ScalarType dtype, bool non_blocking=False, bool copy=False,
    MemoryFormat? memory_format=None) -> Tensor

    One cast, or none.
    """
    return ctx.cast(self, dtype)


@converter(
    aten.to.device,
    Domain(
        computed_bytes(),
        within_target(),
        self=SOURCE,
        device=DEVICE,
        dtype=DTYPE,
        non_blocking=FLAG,
        copy=FLAG,
        memory_format=MEMORY,
    ),
)
def to_device(
    ctx: Any,
    self: Any,
    device: Any,
    dtype: Any,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: Any = None,
) -> Any:
    """to.device(Tensor self, Device device, ScalarType dtype, bool non_blocking=False, bool copy=False,
    MemoryFormat? memory_format=None) -> Tensor

    One cast, or none.
    """
    return ctx.cast(self, dtype)


@converter(aten.type_as.default, Domain(computed_bytes(), within_target("other"), self=SOURCE, other=Tensor()))
def type_as(ctx: Any, self: Any, other: Any) -> Any:
    """type_as(Tensor self, Tensor other) -> Tensor

    One cast, or none.
    """
    return ctx.cast(self, ctx.dtype(other))


# --- ops that change nothing --------------------------------------------------------------------------------------


@converter_table(
    dict.fromkeys(
        (
            aten.alias.default,
            aten.detach.default,
            aten.lift_fresh.default,
            aten.lift_fresh_copy.default,
        )
    ),
    Domain(self=Tensor()),
)
def same(row: None, ctx: Any, self: Any) -> Any:
    """alias(Tensor(a) self) -> Tensor(a)

    The tensor itself.
    """
    return self


@converter(aten.positive.default, Domain(self=Tensor(NUMBERS)))
def positive(ctx: Any, self: Any) -> Any:
    """positive(Tensor(a) self) -> Tensor(a)

    The tensor itself.
    """
    return self


@converter(aten.clone.default, Domain(self=Tensor(), memory_format=MEMORY))
def clone(ctx: Any, self: Any, *, memory_format: Any = None) -> Any:
    """clone(Tensor self, *, MemoryFormat? memory_format=None) -> Tensor

    The tensor itself: nothing in an engine is changed in place.
    """
    return self


@converter(aten.contiguous.default, Domain(self=Tensor(), memory_format=MEMORY))
def contiguous(ctx: Any, self: Any, *, memory_format: Any = 0) -> Any:
    """contiguous(Tensor(a) self, *, MemoryFormat memory_format=contiguous_format) -> Tensor(a)

    The tensor itself. (The schema spells contiguous_format 0.)
    """
    return self


CONVERTERS: tuple[Converter, ...] = (
    to_copy,
    to_layout,
    to_dtype,
    to_device,
    type_as,
    *same,
    positive,
    clone,
    contiguous,
)
