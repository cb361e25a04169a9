"""What a user says about a model's inputs, and the example values and dimensions that stand for it in tracing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.export import Dim

from trtplug.errors import InputError
from trtplug.ranges import Range


@dataclasses.dataclass(frozen=True)
class Input:
    """The shape and dtype of one tensor that a model takes.

    Either ``shape`` alone, or ``min_shape``, ``opt_shape`` and ``max_shape``, which are equal where a dimension is
    static. Engines are tuned for ``opt_shape`` and take everything between the other two.

    Attributes:
        shape: of a static input.
        min_shape, opt_shape, max_shape: of a dynamic one.
        dtype: of the tensor.
        name: for messages; the parameter's name where it is "".
        dims: names for dynamic dimensions, as ``{0: "batch", 1: "sequence"}``. Dimensions of one name, in one input or
            in several, always have the same size. Dimensions without a name are independent, unless the model relates
            them.
        device: where the tensor lives; None for the device of the model's first parameter or buffer.

    Raises:
        InputError: both forms or neither are given, ranks differ, sizes are not min <= opt <= max, or `dims` names a
            dimension that does not exist, with something other than an identifier.
    """

    shape: Sequence[int] | None = None
    min_shape: Sequence[int] | None = None
    opt_shape: Sequence[int] | None = None
    max_shape: Sequence[int] | None = None
    dtype: torch.dtype = torch.float32
    name: str = ""
    dims: Mapping[int, str] = dataclasses.field(default_factory=dict)
    device: torch.device | str | None = None

    def __post_init__(self) -> None:
        label = f"input {self.name!r}" if self.name else "an Input"
        shapes = {key: getattr(self, key) for key in ("min_shape", "opt_shape", "max_shape")}
        given = [key for key, shape in shapes.items() if shape is not None]
        if self.shape is not None and given:
            raise InputError(f"{label}: both shape and {', '.join(given)}; give shape= alone, or the other three")
        if self.shape is None and len(given) < 3:
            missing = ", ".join(key for key in shapes if key not in given)
            raise InputError(f"{label}: {missing} missing; give shape= alone, or min_shape=, opt_shape= and max_shape=")
        for key in ("shape", *shapes):
            shape = getattr(self, key)
            if shape is not None:
                object.__setattr__(self, key, _sizes(label, key, shape))
        if not isinstance(self.dtype, torch.dtype):
            raise InputError(f"{label}: dtype={self.dtype!r} is not a torch.dtype")
        ranks = {len(shape) for shape in self._shapes()}
        if len(ranks) > 1:
            seen = ", ".join(f"{key}={tuple(shape)}" for key, shape in shapes.items())
            raise InputError(f"{label}: min_shape, opt_shape and max_shape differ in rank: {seen}")
        for axis, span in enumerate(self.ranges):
            if not span.min <= span.opt <= span.max:
                raise InputError(f"{label}: dimension {axis} is not min <= opt <= max: {span}")
        for axis, text in self.dims.items():
            if not isinstance(axis, int) or not 0 <= axis < len(self.ranges):
                raise InputError(f"{label}: dims names dimension {axis!r}, but the rank is {len(self.ranges)}")
            if not isinstance(text, str) or not text.isidentifier():
                raise InputError(f"{label}: {text!r} cannot name dimension {axis}: it is not an identifier")

    def _shapes(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        if self.shape is not None:
            return self.shape, self.shape, self.shape
        assert self.min_shape is not None
        assert self.opt_shape is not None
        assert self.max_shape is not None
        return self.min_shape, self.opt_shape, self.max_shape

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The range of each dimension; one value where it is static."""
        sizes = zip(*self._shapes())
        return tuple(Range(*span, self.dims.get(axis, "")) for axis, span in enumerate(sizes))

    @property
    def dynamic(self) -> Mapping[int, Range]:
        """The dimensions that vary, with their ranges."""
        return {axis: span for axis, span in enumerate(self.ranges) if span.min != span.max}


def _sizes(label: str, key: str, shape: Any) -> tuple[int, ...]:
    try:
        sizes = tuple(shape)
    except TypeError:
        raise InputError(f"{label}: {key}={shape!r} is not a sequence of sizes") from None
    for size in sizes:
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise InputError(f"{label}: {key} holds {size!r}, which is not a size (an integer >= 0)")
    return sizes


class Dimensions:
    """The dynamic dimensions of all inputs together: one entry for each name, one for each unnamed dimension's range.

    Args:
        inputs: each input, with the name that messages use.

    Raises:
        InputError: dimensions of one name have different ranges; a range holds no size that export can trace with.
    """

    def __init__(self, inputs: Iterable[tuple[str, Input]]) -> None:
        self._spans: dict[Any, Range] = {}
        self._dims: dict[str, Any] = {}
        places: dict[Any, str] = {}
        for label, item in inputs:
            for axis, text in item.dims.items():
                if axis not in item.dynamic:
                    raise InputError(f"{label}: dims names dimension {axis} {text!r}, which does not vary")
            for axis, span in item.dynamic.items():
                key, place = _key(item, axis), f"dimension {axis} of {label}"
                if self._spans.setdefault(key, span) != span:
                    message = f"{place} is {key!r} with the range {span}, but {places[key]} is {key!r} with"
                    raise InputError(f"{message} {self._spans[key]}; a shared name means one range")
                places.setdefault(key, place)
                if span.max < 2:
                    raise InputError(
                        f"{place} ranges over {span}: a size that is at most 1 is not dynamic; fix it with"
                        " min_shape equal to max_shape"
                    )
        self._sizes = spread_sizes(self._spans)

    @property
    def spread(self) -> bool:
        """Whether some example sizes were moved away from their opt, to tell dimensions apart."""
        return any(self._sizes[key] != max(span.opt, 2) for key, span in self._spans.items())

    def stay_at_opt(self) -> None:
        """Example sizes at opt, even where dimensions then coincide."""
        self._sizes = {key: max(span.opt, 2) for key, span in self._spans.items()}

    def example_shape(self, item: Input) -> tuple[int, ...]:
        """The shape that export traces with: near opt, never 0 or 1 in a dynamic dimension."""
        varies = item.dynamic
        return tuple(
            self._sizes[_key(item, axis)] if axis in varies else span.opt for axis, span in enumerate(item.ranges)
        )

    def constraints(self, item: Input, *, strict: bool = True) -> dict[int, Any] | None:
        """The input's entry in export's ``dynamic_shapes``; with ``strict=False`` one that lets export specialize."""
        found: dict[int, Any] = {}
        for axis, span in item.dynamic.items():
            name = item.dims.get(axis)
            if not strict:
                found[axis] = Dim.AUTO(min=span.min, max=span.max)
            elif name is None and span.max > 2:  # below, DYNAMIC's own lower bound of 2 would leave one size
                # not a Dim of its own: a model may ask two unnamed dimensions to be equal, and that is no error
                found[axis] = Dim.DYNAMIC(min=span.min, max=span.max)
            else:
                name = name or f"_{id(item)}_{axis}"
                found[axis] = self._dims.setdefault(name, Dim(name, min=span.min, max=span.max))
        return found or None


def _key(item: Input, axis: int) -> Any:
    """Dimensions of one key share an example size: those of one name, and unnamed ones of one range."""
    name = item.dims.get(axis)
    return name if name is not None else item.dynamic[axis]


def spread_sizes(spans: Mapping[Any, Range]) -> dict[Any, int]:
    """An example size for each span: opt where it is free and at least 2, else the nearest free size.

    A size that moves keeps the powers of two that opt is divisible by, because models divide sizes by strides.
    """
    sizes: dict[Any, int] = {}
    for key, span in spans.items():
        taken = set(sizes.values())
        sizes[key] = next((size for size in _candidates(span) if size not in taken), max(span.opt, 2))
    return sizes


def _candidates(span: Range) -> Iterator[int]:
    start, low = max(span.opt, 2), max(span.min, 2)
    yield start
    step = start & -start
    while step:
        for count in range(1, 9):
            for size in (start + count * step, start - count * step):
                if low <= size <= span.max:
                    yield size
        step //= 2


def example_tensor(shape: Sequence[int], dtype: torch.dtype, device: Any, generator: torch.Generator) -> torch.Tensor:
    """Random values that any model takes: normal for floats, 0 and 1 for integers and booleans."""
    if dtype.is_floating_point or dtype.is_complex:
        wide = torch.complex64 if dtype.is_complex else torch.float32
        return torch.randn(tuple(shape), generator=generator, dtype=wide).to(device=device, dtype=dtype)
    return torch.randint(0, 2, tuple(shape), generator=generator).to(device=device, dtype=dtype)
