"""Strategies for single arguments: one for each kind of spec, and for what the schema alone says of an argument."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from hypothesis import strategies as st

from trtplug.testing.errors import UndrawableError
from trtplug.testing.strategies import BOOLEANS, integers, sampled
from trtplug_registry import (
    ALL,
    Axis,
    Either,
    ListOf,
    Not,
    Only,
    Optional,
    Size,
    Spec,
    Static,
    Tensor,
    TensorFacts,
)
from trtplug_registry.specs import axis_range

T = TypeVar("T")
OTHER_DTYPES = (torch.float64, torch.int16, torch.int8, torch.uint8, torch.complex64)
"""Dtypes that are no TensorRT types of arithmetic."""

_STRINGS = ("none", "tanh", "floor", "trunc", "mean", "sum", "constant", "reflect", "replicate", "circular")
_FLOATS = (0.0, 1.0, -1.0, 0.5, 2.0, -0.0, 3.0, -2.5, 0.1, 1e-5, 1e3, -1e3, 1e-12, 65504.0, math.inf, -math.inf)

_WIDE = (2**24 + 1, 2**31, -(2**31) - 1)
"""Integers that float32 rounds, and that int32 has not."""


class Draws:
    """Labelled draws from one `hypothesis` draw function; also the `Choose` that relations arrange calls with."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.subject = ""

    def __call__(self, strategy: st.SearchStrategy[T], label: str) -> T:
        return self._draw(strategy, label=label)

    def integer(self, low: int, high: int) -> int:
        return self(integers(low, high), f"{self.subject}: a number")

    def one_of(self, options: Sequence[T]) -> T:
        return self(sampled(options), f"{self.subject}: one of {len(options)}")

    def boolean(self) -> bool:
        return self(BOOLEANS, f"{self.subject}: yes or no")


@dataclasses.dataclass(frozen=True)
class Bounds:
    """How large drawn tensors may get.

    Attributes:
        numel: most elements of one tensor.
        smallest: smallest size of a dimension; 0 and 1 are then left out of shapes, for symbolic sizes.
    """

    numel: int = 96
    smallest: int = 0


@dataclasses.dataclass(frozen=True)
class Request:
    """One argument to draw.

    Attributes:
        place: where it is, for labels.
        type: of the schema, such as ``Optional[List[int]]``.
        default: the schema's, or ``...`` where there is none.
        dtype: the wanted dtype of a tensor, where the spec takes it.
        bounds: how large.
        call: the arguments that are drawn already.
    """

    place: str
    type: str
    default: Any
    dtype: torch.dtype | None
    bounds: Bounds
    call: Mapping[str, Any]

    def item(self, index: int) -> Request:
        inner = self.type.removeprefix("Optional[").removeprefix("List[").rstrip("]")
        return dataclasses.replace(self, place=f"{self.place}[{index}]", type=inner, default=...)


def draw_argument(draws: Draws, spec: Spec, request: Request) -> Any:
    """A value that `spec` takes, or for a relation still to arrange."""
    draws.subject = request.place
    return _DRAWS[type(spec)](draws, spec, request) if type(spec) in _DRAWS else _anything(draws, spec, request)


def _tensor(draws: Draws, spec: Tensor, request: Request) -> TensorFacts:
    wanted = request.dtype
    if wanted in spec.dtypes and wanted is not None and (len(spec.dtypes) == 1 or draws.integer(0, 3)):
        dtype = wanted
    else:
        dtype = draws(sampled(spec.dtypes), f"{request.place}: dtype")
    shape = draw_shape(draws, request.place, spec, request.bounds)
    return TensorFacts(shape, dtype, spec.constant, spec.values)


def draw_shape(draws: Draws, place: str, spec: Tensor, bounds: Bounds) -> tuple[int, ...]:
    """A shape; mostly of few dimensions and small sizes, now and then of eight, with sizes 0 and 1 always in play."""
    low, high = spec.rank
    ranks = [rank for rank in range(low, high + 1) for _ in range(4 if rank - low < 4 and rank <= 5 else 1)]
    rank = draws(sampled(ranks), f"{place}: rank")
    sizes: list[int] = []
    room = bounds.numel
    most = max(3, round(bounds.numel ** (1 / rank)) + 2) if rank else 1
    for axis in range(rank):
        options = [size for size in (3, 2, 4, 1, 5, 2, 3, 7) if bounds.smallest <= size <= min(room, most)]
        size = draws(sampled(options or [max(1, min(bounds.smallest, 2))]), f"{place}: size {axis}")
        sizes.append(size)
        room = max(1, room // size)
    if rank and spec.zero_size and not bounds.smallest and draws.integer(0, 9) == 9:
        sizes[draws.integer(0, rank - 1)] = 0
    return tuple(sizes)


def _static(draws: Draws, spec: Static, request: Request) -> Any:
    if "int" in request.type and "number" not in request.type:
        return draws(small_integers(spec.lo, spec.hi), request.place)
    if request.type in ("bool", "Optional[bool]"):
        options: list[Any] = [value for value in (False, True) if spec.lo <= value <= spec.hi]
        return draws(sampled(options), request.place)
    floats = [value for value in _FLOATS if spec.lo <= value <= spec.hi]
    floats += [edge for edge in (spec.lo, spec.hi) if math.isfinite(edge)]
    if not floats or math.isfinite(spec.hi - spec.lo):
        floats.append(_between(spec.lo, spec.hi))
    if spec.nan:
        floats.append(math.nan)
    kinds: list[st.SearchStrategy[Any]] = [sampled([float(value) for value in floats])]
    if request.type.endswith(("number", "Tensor")) and math.ceil(max(spec.lo, -100)) <= math.floor(min(spec.hi, 100)):
        kinds.append(small_integers(spec.lo, spec.hi))
        whole = request.dtype is not None and not request.dtype.is_floating_point  # halves would overflow
        if wide := [value for value in _WIDE if whole and spec.lo <= value <= spec.hi]:
            kinds.append(sampled(wide))
    return draws(st.one_of(kinds), request.place)


def small_integers(low: float, high: float) -> st.SearchStrategy[int]:
    """Integers within the bounds, near zero or near the bound that is nearest to zero, or a finite bound itself."""
    least = math.ceil(low) if low > -math.inf else None
    most = math.floor(high) if high < math.inf else None
    start = max(least, -4) if least is not None else -4
    stop = min(most, max(start + 8, 4)) if most is not None else max(start + 8, 4)
    if start > stop:
        start = stop - 8 if least is None else max(least, stop - 8)
    near = list(range(start, stop + 1))
    if not near:
        raise UndrawableError(f"there is no integer between {low} and {high}")
    near.sort(key=lambda value: (abs(value), value < 0))
    edges = [edge for edge in (least, most) if edge is not None and abs(edge) <= 16]
    return sampled(near + edges)


def _between(low: float, high: float) -> float:
    if math.isfinite(low) and math.isfinite(high):
        return low + (high - low) / 2
    return low + 1 if math.isfinite(low) else high - 1


def _size(draws: Draws, spec: Size, request: Request) -> int:
    return draws(small_integers(spec.lo, spec.hi), request.place)


def _only(draws: Draws, spec: Only, request: Request) -> Any:
    return draws(sampled(spec.values), request.place)


def _axis(draws: Draws, spec: Axis, request: Request) -> int:
    rank = axis_range(spec, request.call)
    rank = 1 if rank is None else rank
    axes = sorted(range(-rank, rank), key=lambda axis: (axis < 0, abs(axis)))
    return draws(sampled(axes), request.place)


def _list(draws: Draws, spec: ListOf, request: Request) -> list[Any]:
    typical = 3 if isinstance(spec.item, Tensor | Optional) else 4
    longest = min(spec.longest, max(spec.shortest, typical))
    if isinstance(spec.item, Axis):
        longest = max(spec.shortest, min(longest, axis_range(spec.item, request.call) or longest))
    length = draws(integers(spec.shortest, longest), f"{request.place}: length")
    return [draw_argument(draws, spec.item, request.item(index)) for index in range(length)]


def _optional(draws: Draws, spec: Optional, request: Request) -> Any:
    if draws(sampled((False, False, True)), f"{request.place}: none"):
        return None
    return draw_argument(draws, spec.item, request)


def _either(draws: Draws, spec: Either, request: Request) -> Any:
    return draw_argument(draws, draws(sampled(spec.options), f"{request.place}: kind"), request)


def _not(draws: Draws, spec: Not, request: Request) -> Any:
    """Another value of the schema's type; for a type of which little is known, any that eager might take."""
    options = [value for value in _values_of_type(request) if spec.refusal(request.place, value, request.call) is None]
    if not options:
        raise UndrawableError(f"{request.place}: no other value of the type {request.type} is known")
    return draws(sampled(options), request.place)


def _anything(draws: Draws, spec: Spec, request: Request) -> Any:
    if request.type == "Tensor":
        return _tensor(draws, Tensor(), request)
    options = _values_of_type(request)
    return draws(sampled(options), request.place) if options else None


def _values_of_type(request: Request) -> list[Any]:
    """Values of the schema's type, its default first."""
    kind = request.type
    values: list[Any] = [] if request.default is ... else [request.default]
    if kind.startswith("Optional["):
        values.append(None)
        kind = kind.removeprefix("Optional[").removesuffix("]")
    known: Callable[[], list[Any]] = _BY_TYPE.get(kind, list)
    return values + [value for value in known() if not any(type(v) is type(value) and v == value for v in values)]


_BY_TYPE: Mapping[str, Callable[[], list[Any]]] = {
    "bool": lambda: [False, True],
    "int": lambda: [0, 1, -1, 2, 3, -2, 4],
    "SymInt": lambda: [0, 1, -1, 2, 3, -2, 4],
    "float": lambda: list(_FLOATS),
    "number": lambda: [0, 1, 2, -1, 3, *_FLOATS],
    "str": lambda: list(_STRINGS),
    "ScalarType": lambda: [*ALL, *OTHER_DTYPES],
    "Layout": lambda: [torch.strided],
    "Device": lambda: [torch.device("cpu")],
    "MemoryFormat": lambda: [torch.contiguous_format, torch.preserve_format],
    "List[int]": lambda: [[], [0], [1], [-1], [0, 1], [1, 1], [2, 2], [1, 2, 3]],
    "List[bool]": lambda: [[False], [True], [True, True], [False, False, False]],
    "List[float]": lambda: [[], [1.0], [2.0, 2.0]],
}

_DRAWS: Mapping[type, Callable[[Draws, Any, Request], Any]] = {
    Tensor: _tensor,
    Static: _static,
    Size: _size,
    Only: _only,
    Axis: _axis,
    ListOf: _list,
    Optional: _optional,
    Either: _either,
    Not: _not,
}
