"""Parts of a tensor, and the opposite, padding. Every dtype goes through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from trtplug_converters.joining import divisible
from trtplug_registry import (
    Axis,
    Call,
    Choose,
    Converter,
    ConverterContext,
    Domain,
    ListOf,
    NetworkSize,
    NetworkTensor,
    Only,
    Optional,
    Relation,
    Size,
    Static,
    SymbolicSize,
    Tensor,
    converter,
    converter_table,
)

aten = torch.ops.aten

UNBOUNDED = 2**63 - 1
"""How graphs spell an end that is not given."""


# --- places along an axis ---------------------------------------------------------------------------------------------


def from_start(ctx: ConverterContext, place: NetworkSize, size: NetworkSize) -> NetworkSize:
    """A place that counts from the end where negative, counted from the start."""
    if isinstance(place, int):
        return ctx.size_math("SUM", size, place) if place < 0 else place
    negated = ctx.size_math("SUB", 0, place)
    is_negative = ctx.size_math("MIN", ctx.size_math("MAX", negated, 0), 1)
    return ctx.size_math("SUM", place, ctx.size_math("PROD", is_negative, size))


def clamped(ctx: ConverterContext, place: NetworkSize, size: NetworkSize) -> NetworkSize:
    """As slices take their bounds: from the start, and within 0 … size."""
    return ctx.size_math("MIN", ctx.size_math("MAX", from_start(ctx, place, size), 0), size)


@converter(
    aten.slice.Tensor,
    Domain(
        divisible("self"),
        Relation("a positive step", ("step",), None, lambda call, choose: call.update(step=abs(call["step"]) or 1)),
        self=Tensor(),
        dim=Axis("self"),
        start=Optional(Size()),
        end=Optional(Size()),
        step=Size(),
    ),
)
def slice_(
    ctx: ConverterContext,
    self: NetworkTensor,
    dim: int = 0,
    start: NetworkSize | None = None,
    end: NetworkSize | None = None,
    step: NetworkSize = 1,
) -> NetworkTensor:
    """``slice.Tensor(Tensor(a) self, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1) -> Tensor(a)``:
    a slice layer along one axis; none for the whole.
    """
    size = ctx.sizes(self)[dim]
    first = clamped(ctx, 0 if start is None else start, size)
    last = size if end is None or (isinstance(end, int) and end == UNBOUNDED) else clamped(ctx, end, size)
    length = ctx.size_math("MAX", ctx.size_math("SUB", last, first), 0)
    if isinstance(first, int) and first == 0 and isinstance(step, int) and step == 1 and last is size:
        return self
    steps = ctx.size_math("FLOOR_DIV", ctx.size_math("SUM", length, ctx.size_math("SUB", step, 1)), step)
    return ctx.slice(self, [first], [steps], [step], axes=[dim])


def place_within(place: str, axis: str, length: str | None = None) -> Relation:
    """A place of the axis, from the end where negative, or a stretch that stays within (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        shape = list(call["self"].shape)
        if length is None and shape and not shape[call[axis]]:
            shape[call[axis]] = choose.integer(1, 3)
            call["self"] = call["self"]._replace(shape=tuple(shape))
        size = shape[call[axis]] if shape else 1
        if length is None:
            call[place] = choose.integer(-size, size - 1)
        else:
            call[place] = choose.integer(-size, size)
            call[length] = choose.integer(0, size - call[place] if call[place] >= 0 else -call[place])

    names = (place, axis, "self") if length is None else (place, length, axis, "self")
    return Relation(f"{place} within the axis", names, None, arrange)


@converter(
    aten.select.int,
    Domain(divisible("self"), place_within("index", "dim"), self=Tensor(), dim=Axis("self"), index=Size()),
)
def select(ctx: ConverterContext, self: NetworkTensor, dim: int, index: NetworkSize) -> NetworkTensor:
    """``select.int(Tensor(a) self, int dim, SymInt index) -> Tensor(a)``: a gather layer with one place."""
    place = from_start(ctx, index, ctx.sizes(self)[dim])
    return ctx.gather(self, ctx.constant(place, torch.int64) if isinstance(place, int) else place, dim)


@converter(
    aten.narrow.default,
    Domain(
        divisible("self"),
        place_within("start", "dim", "length"),
        self=Tensor(),
        dim=Axis("self"),
        start=Size(),
        length=Size(),
    ),
)
def narrow(
    ctx: ConverterContext, self: NetworkTensor, dim: int, start: NetworkSize, length: NetworkSize
) -> NetworkTensor:
    """``narrow(Tensor(a) self, int dim, SymInt start, SymInt length) -> Tensor(a)``: a slice layer along one axis."""
    first = from_start(ctx, start, ctx.sizes(self)[dim])
    return ctx.slice(self, [first], [length], [1], axes=[dim])


# --- padding ----------------------------------------------------------------------------------------------------------


def padded(ctx: ConverterContext, tensor: NetworkTensor, pad: list[NetworkSize], **how: Any) -> NetworkTensor:
    """The tensor seen through a window that sticks out; `how` says what is seen there.

    Args:
        ctx: the context.
        tensor: what is padded.
        pad: before and after, last axis first; negative numbers crop.
        **how: of the slice layer: ``fill`` or ``mode``.
    """
    count = len(pad) // 2
    if not count:
        return tensor
    rank = ctx.rank(tensor)
    axes = [rank - 1 - place for place in range(count)]
    before, after, own = pad[::2], pad[1::2], ctx.sizes(tensor)
    start = [ctx.size_math("SUB", 0, cut) for cut in before]
    added = [ctx.size_math("SUM", one, two) for one, two in zip(before, after, strict=True)]
    sizes = [ctx.size_math("SUM", own[axis], more) for axis, more in zip(axes, added, strict=True)]
    return ctx.slice(tensor, start, sizes, [1] * count, axes=axes, **how)


def filled(ctx: ConverterContext, tensor: NetworkTensor, pad: list[NetworkSize], value: float) -> NetworkTensor:
    """Padded with a number, converted to the tensor's dtype as Torch does: 2.5 is 2 among integers, and True."""
    if all(isinstance(count, int) and count <= 0 for count in pad):
        value = 0  # nobody looks at it, so that it may be one that the dtype has not
    fill = ctx.constant(torch.full((), value, dtype=ctx.dtype(tensor)))
    return padded(ctx, tensor, pad, fill=fill)


def pairs_for_axes(pad: str, least: int = 0) -> Relation:
    """Two numbers for each of some last axes, which leave no axis negative (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        shape = call["self"].shape
        count = max(least, min(len(call[pad]), len(shape)))
        pairs = []
        for size in shape[::-1][:count]:
            before = choose.integer(-min(size, 2), 3)
            pairs += [before, choose.integer(max(-2, -size - min(before, 0)), 3)]
        call[pad] = pairs

    return Relation(f"{pad} for some last axes", (pad, "self"), None, arrange)


@converter(
    aten.constant_pad_nd.default,
    Domain(pairs_for_axes("pad"), self=Tensor(), pad=ListOf(Size()), value=Static(nan=True)),
)
def constant_pad(ctx: ConverterContext, self: NetworkTensor, pad: list[NetworkSize], value: float = 0) -> NetworkTensor:
    """``constant_pad_nd(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor``: a slice layer in mode FILL."""
    return filled(ctx, self, pad, value)


MODES = {"reflect": "REFLECT", "replicate": "CLAMP", "circular": "WRAP"}
"""Torch's padding modes, and the slice layer's names for them."""


def stretch(call: dict[str, Any], pad: str, spatial: int, choose: Choose) -> None:
    """Shapes and paddings that eager takes in modes other than constant."""
    shape = tuple(choose.integer(1, 2) for _ in range(choose.integer(1, 2)))
    shape += tuple(choose.integer(2, 4) for _ in range(spatial))
    call["self"] = call["self"]._replace(shape=shape)
    call[pad] = []
    for size in shape[: -spatial - 1 : -1]:
        before = choose.integer(-1, size - 1)
        call[pad] += [before, choose.integer(max(-1, 1 - size - before), size - 1)]


def _pairs(call: Mapping[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """The size of each padded axis, from the last, and what is put before and after it."""
    pad = call["pad"]
    yield from zip(call["self"].shape[::-1], pad[::2], pad[1::2])


def _wraps_what_is_left(call: Call) -> bool:
    """Where an axis is cropped at one end, no more is put at the other than is left."""
    if call["mode"] != "circular":
        return True
    for size, *cuts in _pairs(call):
        if all(isinstance(cut, int) for cut in cuts) and min(cuts) < 0:
            least = size.bounds()[0] if isinstance(size, SymbolicSize) else size
            if max(cuts) > least + sum(min(cut, 0) for cut in cuts):
                return False
    return True


def _arrange_pad(call: dict[str, Any], choose: Choose) -> None:
    if call["mode"] == "constant":
        assert CONSTANT_PAD.arrange is not None
        CONSTANT_PAD.arrange(call, choose)
    else:
        call["value"] = None
        stretch(call, "pad", choose.integer(1, 3), choose)


CONSTANT_PAD = pairs_for_axes("pad")


@converter(
    aten.pad.default,
    Domain(
        Relation("pad that eager takes in this mode", ("pad", "self", "mode", "value"), None, _arrange_pad),
        Relation(
            "no more put around an axis than is left of it",
            ("pad", "self", "mode"),
            _wraps_what_is_left,
            because="eager then copies what it has not written yet",
        ),
        self=Tensor(),
        pad=ListOf(Size()),
        mode=Only("constant", *MODES),
        value=Optional(Static(nan=True)),
    ),
)
def pad(
    ctx: ConverterContext,
    self: NetworkTensor,
    pad: list[NetworkSize],
    mode: str = "constant",
    value: float | None = None,
) -> NetworkTensor:
    """``pad(Tensor self, SymInt[] pad, str mode="constant", float? value=None) -> Tensor``: a slice layer, in mode
    FILL, REFLECT, CLAMP or WRAP.
    """
    if mode == "constant":
        return filled(ctx, self, pad, value or 0.0)
    if mode == "circular":  # Torch crops first, and wraps what is left
        if any(not isinstance(cut, int) or cut < 0 for cut in pad):
            self = padded(ctx, self, [ctx.size_math("MIN", cut, 0) for cut in pad])
        pad = [ctx.size_math("MAX", more, 0) for more in pad]
    return padded(ctx, self, pad, mode=getattr(ctx.trt.SampleMode, MODES[mode]))


def spatial_padding(spatial: int) -> Domain:
    def arrange(call: dict[str, Any], choose: Choose) -> None:
        stretch(call, "padding", spatial, choose)

    relation = Relation(f"padding of {spatial} axes", ("padding", "self"), None, arrange)
    return Domain(relation, self=Tensor(), padding=ListOf(Size()))


def mode_pads_over(spatial: int) -> tuple[Converter, ...]:
    """Padding by mode over so many spatial axes."""
    rows = {
        getattr(aten, f"reflection_pad{spatial}d").default: "REFLECT",
        getattr(aten, f"replication_pad{spatial}d").default: "CLAMP",
    }

    @converter_table(rows, spatial_padding(spatial))
    def mode_pads(mode: str, ctx: ConverterContext, self: NetworkTensor, padding: list[NetworkSize]) -> NetworkTensor:
        """``reflection_pad2d(Tensor self, SymInt[4] padding) -> Tensor``: a slice layer in mode REFLECT or CLAMP."""
        return padded(ctx, self, padding, mode=getattr(ctx.trt.SampleMode, mode))

    return mode_pads


CONVERTERS: tuple[Converter, ...] = (
    slice_,
    select,
    narrow,
    constant_pad,
    pad,
    *mode_pads_over(1),
    *mode_pads_over(2),
    *mode_pads_over(3),
)
