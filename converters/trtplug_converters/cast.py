"""Changes of dtype, and ops that change nothing: copies, layouts, aliases."""

from __future__ import annotations

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
)

aten = torch.ops.aten

BYTES = (torch.uint8, torch.int8)
SOURCE = Tensor((*ALL, *BYTES))
DTYPE = Only(*ALL, *BYTES, because="not a TensorRT type")
MEMORY = Anything(because="memory layouts mean nothing in an engine")
DEVICE = Anything(because="an engine runs on one device")
STRIDED = Only(None, torch.strided)
UNPINNED = Only(None, False)
FLAG = Anything(because="copies mean nothing in an engine")


def within_target(argument: str = "dtype") -> Relation:
    """What eager casts from floats to integers lies within the integers' range: outside, C++ leaves it undefined."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        source, target = call["self"], call.get(argument)
        target = target.dtype if isinstance(target, TensorFacts) else target
        if target is None or target.is_floating_point or not source.dtype.is_floating_point or target == torch.bool:
            return
        info = torch.iinfo(target)
        most = 2.0 ** (info.bits - 2) if info.bits > 8 else float(info.max)
        call["self"] = source._replace(values=(float(info.min) if info.bits <= 8 else -most, most))

    return Relation("elements within the range of the dtype", ("self", argument), None, arrange)


COPY = {"dtype": Optional(DTYPE), "layout": STRIDED, "device": DEVICE, "pin_memory": UNPINNED, "non_blocking": FLAG}


@converter(aten._to_copy.default, Domain(within_target(), self=SOURCE, **COPY, memory_format=MEMORY))
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


@converter(aten.to.dtype_layout, Domain(within_target(), self=SOURCE, **COPY, copy=FLAG, memory_format=MEMORY))
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
    aten.to.dtype, Domain(within_target(), self=SOURCE, dtype=DTYPE, non_blocking=FLAG, copy=FLAG, memory_format=MEMORY)
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
        within_target(), self=SOURCE, device=DEVICE, dtype=DTYPE, non_blocking=FLAG, copy=FLAG, memory_format=MEMORY
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


@converter(aten.type_as.default, Domain(within_target("other"), self=SOURCE, other=SOURCE))
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
