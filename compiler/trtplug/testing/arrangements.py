"""How drawn calls are arranged so that eager takes them, family by family: shapes that fit, places that exist."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from trtplug_registry import (
    FLOATS,
    INTS,
    Choose,
    Domain,
    Only,
    Relation,
    Spec,
    Tensor,
    same_dtype,
)

HALVES = (torch.float16, torch.bfloat16)
Arrange = Callable[[dict[str, Any], Choose], None]

FLOAT, ANY = Tensor(FLOATS, rank=(0, 5)), Tensor(rank=(0, 5))
SOME = Tensor(rank=(1, 4), zero_size=False)
PLACES = Tensor(INTS[1:], rank=(1, 1))
YES_NO = Only(False, True)


def arranged(name: str, arrange: Arrange, *arguments: str) -> Relation:
    return Relation(name, arguments, None, arrange)


NOT_NAN = (-math.inf, math.inf)
"""Values, where eager itself says nothing of nan."""

_AS_WIDE: Mapping[int, tuple[torch.dtype, ...]] = {
    1: (torch.uint8, torch.int8),
    2: HALVES,
    4: (torch.float32, torch.int32),
    8: (torch.int64, torch.float64),
}


READ_AS = tuple(dtype for dtypes in _AS_WIDE.values() for dtype in dtypes)


def as_wide(call: dict[str, Any], choose: Choose) -> None:
    """A dtype to read the same memory as: of the same width, or, where there is a last axis to grow, of a smaller."""
    own = call["self"].dtype.itemsize
    widths = [width for width in _AS_WIDE if width == own or (width < own and call["self"].shape)]
    call["dtype"] = choose.one_of([dtype for width in widths for dtype in _AS_WIDE[width]])


def shaped(facts: Any, *sizes: int) -> Any:
    return facts._replace(shape=sizes)


# --- places -----------------------------------------------------------------------------------------------------------


def slices_at_places(source: str = "source") -> Arrange:
    """A 1-D list of places along an axis, and a source of as many slices."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        whole = call["self"].shape
        count = choose.integer(1, max(1, whole[call["dim"]])) if whole else 1
        axis = call["dim"] % max(1, len(whole))
        call["index"] = shaped(call["index"], count)._replace(values=(0, (whole[axis] if whole else 1) - 1))
        if source in call:
            call[source] = shaped(call[source], *whole[:axis], count, *whole[axis + 1 :]) if whole else call[source]
            if not whole:
                call[source] = shaped(call[source])

    return arrange


def kth(call: dict[str, Any], choose: Choose) -> None:
    size = call["self"].shape[call["dim"]] if call["self"].rank else 1
    call["k"] = choose.integer(1, size)


def strided(call: dict[str, Any], choose: Choose) -> None:
    """A view within the tensor's elements."""
    room = math.prod(call["self"].shape) - 1
    start = choose.integer(0, room)
    room -= start
    sizes, steps = [], []
    for _ in range(choose.integer(0, 3)):
        step = choose.integer(0, 3)
        size = choose.integer(1, min(4, room // step + 1) if step else 3)
        room -= step * (size - 1)
        sizes.append(size)
        steps.append(step)
    call |= {"size": sizes, "stride": steps, "storage_offset": start}


def one_place_each(call: dict[str, Any], choose: Choose) -> None:
    """Strides of a contiguous tensor, so that no place is written twice."""
    strided(call, choose)
    size = [choose.integer(1, 2) for _ in range(2)]
    room = math.prod(call["self"].shape)
    size = size if math.prod(size) <= room else [1, 1]
    call |= {"size": size, "stride": [size[1], 1], "storage_offset": choose.integer(0, room - math.prod(size))}
    call["src"] = shaped(call["src"], *size)


def put_places(call: dict[str, Any], choose: Choose) -> None:
    """Distinct places where nothing accumulates: of equals eager leaves open which stays."""
    room = math.prod(call["self"].shape)
    count = choose.integer(1, 3) if call["accumulate"] else 1
    call["index"] = shaped(call["index"], count)._replace(values=(-room, room - 1))
    call["source"] = shaped(call["source"], count)


def narrowed(call: dict[str, Any], choose: Choose) -> None:
    size = call["self"].shape[call["dim"]]
    call["start"] = choose.integer(0, size)
    call["length"] = choose.integer(0, size - call["start"])


def selected(call: dict[str, Any], choose: Choose) -> None:
    shape = list(call["self"].shape)
    size = shape.pop(call["dim"])
    call["index"] = choose.integer(-size, size - 1)
    call["src"] = shaped(call["src"], *shape)


def sliced(call: dict[str, Any], choose: Choose) -> None:
    shape = list(call["self"].shape)
    axis = call["dim"] % len(shape)
    start, end, step = choose.integer(-5, 4), choose.integer(-4, 6), choose.integer(1, 3)
    shape[axis] = len(range(*slice(start, end, step).indices(shape[axis])))
    call |= {"start": start, "end": end, "step": step, "src": shaped(call["src"], *shape)}


def on_diagonal(call: dict[str, Any], choose: Choose) -> None:
    """Two axes, an offset that leaves something, and a source as long as the diagonal."""
    rank = call["self"].rank
    one = choose.integer(-rank, rank - 1)
    two = choose.one_of([axis for axis in range(-rank, rank) if (axis - one) % rank])
    rows, columns = call["self"].shape[one], call["self"].shape[two]
    call |= {"dim1": one, "dim2": two, "offset": choose.integer(1 - rows, columns - 1)}
    if "src" in call:
        offset = call["offset"]
        length = min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)
        rest = [size for axis, size in enumerate(call["self"].shape) if axis not in (one % rank, two % rank)]
        call["src"] = shaped(call["src"], *rest, length)


def bags(call: dict[str, Any], choose: Choose) -> None:
    rows = call["weight"].shape[0]
    count = choose.integer(1, 4)
    call["indices"] = shaped(call["indices"], count)._replace(values=(0, rows - 1))
    call["offsets"] = shaped(call["offsets"], choose.integer(1, 3))._replace(values=(0, 0))
    call["offsets"] = call["offsets"]._replace(dtype=call["indices"].dtype)


def embedded(call: dict[str, Any], choose: Choose) -> None:
    call["num_weights"] = choose.integer(9, 12)  # unlike any axis: a symbolic one would take the indices along
    call["indices"] = call["indices"]._replace(values=(0, call["num_weights"] - 1))
    call["grad_output"] = shaped(call["grad_output"], *call["indices"].shape, choose.integer(1, 3))


def classes(call: dict[str, Any], choose: Choose) -> None:
    call["num_classes"] = choose.integer(1, 5)
    call["self"] = call["self"]._replace(values=(0, call["num_classes"] - 1))


def layer_normed(call: dict[str, Any], choose: Choose) -> None:
    shape = call["input"].shape
    kept = choose.integer(1, len(shape))
    call["normalized_shape"] = list(shape[kept - 1 :]) if kept > 1 else list(shape[1:]) or list(shape)
    inner = len(call["normalized_shape"])
    statistics = (*shape[: len(shape) - inner], *[1] * inner)
    for name in ("mean", "rstd"):
        call[name] = shaped(call[name], *statistics)
    call["grad_out"] = shaped(call["grad_out"], *shape)
    for name in ("weight", "bias"):
        call[name] = shaped(call[name], *call["normalized_shape"]) if call[name] is not None else None


def group_normed(call: dict[str, Any], choose: Choose) -> None:
    batch, group, each, size = (choose.integer(1, 3) for _ in range(4))
    for name in ("grad_out", "input"):
        call[name] = shaped(call[name], batch, group * each, size)
    for name in ("mean", "rstd"):
        call[name] = shaped(call[name], batch, group)
    call["weight"] = shaped(call["weight"], group * each) if call["weight"] is not None else None
    call |= {"N": batch, "C": group * each, "HxW": size, "group": group}


def channels(*names: str) -> Arrange:
    """Statistics and parameters of one element a channel."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        for name in names:
            call[name] = shaped(call[name], call["input"].shape[1]) if call[name] is not None else None

    return arrange


def shuffled(factor: str, down: bool) -> Arrange:
    def arrange(call: dict[str, Any], choose: Choose) -> None:
        by = call[factor] = choose.integer(1, 2)
        *lead, count, high, wide = call["self"].shape
        shape = (*lead, count, high * by, wide * by) if down else (*lead, count * by * by, high, wide)
        call["self"] = shaped(call["self"], *shape)

    return arrange


def expanded(call: dict[str, Any], choose: Choose) -> None:
    whole = call["self"].shape
    kept = whole[choose.integer(0, len(whole)) :]
    call["src"] = shaped(call["src"], *(1 if choose.integer(0, 3) == 0 else size for size in kept))


def positive(*names: str) -> Arrange:
    def arrange(call: dict[str, Any], choose: Choose) -> None:
        for name in names:
            call[name] = call[name]._replace(values=(0.125, 4))

    return arrange


def normed(arguments: Mapping[str, Spec]) -> Domain:
    given = [name for name in ("weight", "bias", "running_mean", "running_var") if name in arguments]
    found = [same_dtype("input", *given), arranged("one a channel", channels(*given), *given, "input")]
    if "running_var" in arguments:
        found.append(arranged("positive variances", positive("running_var"), "running_var"))
    return Domain(*found, **arguments)


# --- more places ------------------------------------------------------------------------------------------------------


def one_slice(call: dict[str, Any], choose: Choose) -> None:
    """One slice at one place: which of several that are written to one place stays, eager leaves open."""
    shape = list(call["self"].shape)
    axis = call["dim"] % len(shape)
    call["index"] = shaped(call["index"], 1)._replace(values=(0, shape[axis] - 1))
    shape[axis] = 1
    call["source"] = shaped(call["source"], *shape)


def masked_places(call: dict[str, Any], choose: Choose) -> None:
    """Places along the first axis, and a mask of them."""
    first, *rest = call["self"].shape
    count = choose.integer(1, 4)
    call["mask"] = shaped(call["mask"], count)
    call["indices"] = [shaped(places, count)._replace(values=(0, first - 1)) for places in call["indices"]]
    if "values" in call:
        call["values"] = shaped(call["values"], count, *rest)


def taken_places(call: dict[str, Any], choose: Choose) -> None:
    count = math.prod(call["self"].shape)
    call["index"] = call["index"]._replace(values=(-count, count - 1))


def searched(call: dict[str, Any], choose: Choose) -> None:
    """One list for all, or a list for each row."""
    lead = call["self"].shape[:-1] if choose.integer(0, 2) == 0 else ()
    call["sorted_sequence"] = shaped(call["sorted_sequence"], *lead, choose.integer(0, 6))


def renormed(call: dict[str, Any], choose: Choose) -> None:
    call["indices"] = shaped(call["indices"], choose.integer(1, 4))._replace(values=(0, call["self"].shape[0] - 1))


# --- more shapes ------------------------------------------------------------------------------------------------------


def unfolded(call: dict[str, Any], choose: Choose) -> None:
    size = call["self"].shape[call["dimension"]] if call["self"].rank else 1
    call["size"] = choose.integer(1, max(1, size))
    call["step"] = choose.integer(1, 3)


def even(call: dict[str, Any], choose: Choose) -> None:
    shape = list(call["self"].shape)
    shape[call["dim"]] = 2 * choose.integer(0, 2)
    call["self"] = shaped(call["self"], *shape)


def weighed(call: dict[str, Any], choose: Choose) -> None:
    """A weight of the same rank, of sizes that expand."""
    sizes = (choose.one_of((1, size)) for size in call["self"].shape)
    call["weight"] = shaped(call["weight"], *sizes)


def of_three(call: dict[str, Any], choose: Choose) -> None:
    shape = list(call["self"].shape)
    shape[call["dim"]] = 3
    for name in ("self", "other"):
        call[name] = shaped(call[name], *shape)


def chunked(call: dict[str, Any], choose: Choose) -> None:
    shape = call["tensors"][0].shape
    call["tensors"] = [shaped(facts, *shape) for facts in call["tensors"]]
    call["dim"] = choose.integer(0, len(shape) - 1)


def contiguous_view(call: dict[str, Any], choose: Choose) -> None:
    first, *rest = call["self"].shape
    call |= {"size": [first, math.prod(rest)], "stride": [math.prod(rest), 1]}


def grouped_channels(call: dict[str, Any], choose: Choose) -> None:
    batch, _, *rest = call["self"].shape
    call["self"] = shaped(call["self"], batch, call["groups"] * choose.integer(1, 2), *rest)


def new_diagonal(call: dict[str, Any], choose: Choose) -> None:
    rank = call["self"].rank + 1
    one = choose.integer(-rank, rank - 1)
    call |= {"dim1": one, "dim2": choose.one_of([axis for axis in range(-rank, rank) if (axis - one) % rank])}


def turned(call: dict[str, Any], choose: Choose) -> None:
    rank = call["self"].rank
    one = choose.integer(-rank, rank - 1)
    call["dims"] = [one, choose.one_of([axis for axis in range(-rank, rank) if (axis - one) % rank])]
