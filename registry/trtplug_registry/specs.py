"""What an argument may be, as data.

Each spec serves four uses from one declaration: the verdict with its reason (`refusal`), the property tests' strategy
(which reads the fields), the refusal tests (`negations`: the same spec with one restriction turned around) and the
generated support matrix (`str`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch

from trtplug_registry.facts import Call, Opaque, Symbolic, SymbolicSize, TensorFacts
from trtplug_registry.support import Reason, ReasonCode

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
INTS = (torch.int32, torch.int64)
NUMBERS = FLOATS + INTS
BOOL = (torch.bool,)
ALL = NUMBERS + BOOL
"""The dtypes that TensorRT computes with. float64, int16, complex and the rest are not TensorRT types."""

MAX_RANK = 8

Because: TypeAlias = str | Mapping[str, str]


def names_of(dtypes: tuple[torch.dtype, ...]) -> str:
    return " | ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def seen(value: Any) -> str:
    """A value in a reason's words."""
    if isinstance(value, TensorFacts):
        return repr(value)
    if isinstance(value, SymbolicSize):
        return f"the symbolic size {value}"
    if isinstance(value, Symbolic):
        return f"a {value.kind}"
    if isinstance(value, Opaque):
        return value.why
    return repr(value)


@dataclasses.dataclass(frozen=True)
class Negation:
    """One restriction of a spec, turned around: what a refusal test forces past the domain.

    Attributes:
        code: the reason that the domain gives.
        label: which restriction, in words.
        spec: accepts exactly what this restriction, and no other, forbids.
    """

    code: ReasonCode
    label: str
    spec: Spec


class Spec:
    """Base of all argument specs."""

    because: Because

    def refusal(self, argument: str, value: Any, call: Call) -> Reason | None:
        """Why `value` is not acceptable, or None. `call` holds the other arguments."""
        raise NotImplementedError

    def negations(self) -> Iterator[Negation]:
        """Each restriction turned around; none for a spec that TensorRT does not restrict."""
        return iter(())

    def disjoint(self, other: Spec) -> bool:
        """Whether provably no value satisfies both."""
        return False

    def reason(self, field: str) -> str:
        """The `because` of one restriction."""
        return self.because if isinstance(self.because, str) else self.because.get(field, "")


class Several(Spec):
    """Base of the specs that take values of several kinds, tensors among them: `disjoint` is theirs to answer."""


@dataclasses.dataclass(frozen=True)
class Tensor(Spec):
    """A tensor.

    Attributes:
        dtypes: the dtypes that are taken.
        rank: smallest and largest number of dimensions.
        zero_size: whether a dimension may be 0.
        dynamic: whether a dimension may be symbolic.
        static_axes: these axes may not be symbolic, even where `dynamic`.
        constant: whether the value must be known at compile time.
        values: smallest and largest element that the op itself gives a meaning to (an index, say); not checked, since
            metadata holds no values, but never violated in tests.
        because: why, for all restrictions or by field name.
    """

    dtypes: tuple[torch.dtype, ...] = ALL
    rank: tuple[int, int] = (0, MAX_RANK)
    zero_size: bool = True
    dynamic: bool = True
    static_axes: tuple[int, ...] = ()
    constant: bool = False
    values: tuple[float, float] | None = None
    because: Because = ""

    def refusal(self, argument: str, value: Any, call: Call) -> Reason | None:
        if type(value) is not TensorFacts:
            return Reason(ReasonCode.ARGUMENT, argument, "a tensor", seen(value))
        shape, dtype = value.shape, value.dtype
        if dtype not in self.dtypes:
            why = self.reason("dtypes") or ("" if dtype in ALL else "not a TensorRT type")
            return Reason(ReasonCode.DTYPE, argument, names_of(self.dtypes), seen(value), why)
        low, high = self.rank
        if not low <= len(shape) <= high:
            why = self.reason("rank") or (
                "" if len(shape) <= MAX_RANK else "TensorRT tensors have at most 8 dimensions"
            )
            return Reason(ReasonCode.RANK, argument, between("rank", low, high), seen(value), why)
        for axis, size in enumerate(shape):
            if type(size) is int:
                if size == 0 and not self.zero_size:
                    why = self.reason("zero_size")
                    return Reason(ReasonCode.ZERO_SIZE, argument, "no dimension of size 0", seen(value), why)
            elif not self.dynamic or axis in self.static_axes or axis - len(shape) in self.static_axes:
                which = "" if not self.dynamic else f" in dimension {axis}"
                why = self.reason("dynamic") or self.reason("static_axes")
                return Reason(ReasonCode.DYNAMIC_SHAPE, argument, f"a static size{which}", seen(value), why)
            elif not self.zero_size and isinstance(size, SymbolicSize) and size.bounds()[0] < 1:
                why = self.reason("zero_size")
                text = f"{seen(value)}, where {size} may be 0"
                return Reason(ReasonCode.ZERO_SIZE, argument, "no dimension of size 0", text, why)
        if self.constant and not value.constant:
            why = self.reason("constant")
            return Reason(ReasonCode.ARGUMENT, argument, "a value known at compile time", seen(value), why)
        return None

    def negations(self) -> Iterator[Negation]:
        for dtype in ALL:
            if dtype not in self.dtypes:
                yield Negation(ReasonCode.DTYPE, names_of((dtype,)), dataclasses.replace(self, dtypes=(dtype,)))
        low, high = self.rank
        if low > 0:
            yield Negation(ReasonCode.RANK, f"rank < {low}", dataclasses.replace(self, rank=(0, low - 1)))
        if high < MAX_RANK:
            yield Negation(ReasonCode.RANK, f"rank > {high}", dataclasses.replace(self, rank=(high + 1, MAX_RANK)))
        if not self.zero_size:
            yield Negation(ReasonCode.ZERO_SIZE, "a dimension of size 0", dataclasses.replace(self, zero_size=True))
        if not self.dynamic or self.static_axes:
            open_spec = dataclasses.replace(self, dynamic=True, static_axes=())
            yield Negation(ReasonCode.DYNAMIC_SHAPE, "a symbolic size", open_spec)
        if self.constant:
            yield Negation(ReasonCode.ARGUMENT, "not a constant", dataclasses.replace(self, constant=False))

    def disjoint(self, other: Spec) -> bool:
        if not isinstance(other, Tensor):
            return not isinstance(other, Several) or other.disjoint(self)
        return not set(self.dtypes) & set(other.dtypes) or self.rank[1] < other.rank[0] or other.rank[1] < self.rank[0]

    def __str__(self) -> str:
        text = names_of(self.dtypes)
        if self.rank != (0, MAX_RANK):
            text += f", {between('rank', *self.rank)}"
        if not self.zero_size:
            text += ", not empty"
        if not self.dynamic:
            text += ", static shape"
        elif self.static_axes:
            text += f", static in {', '.join(map(str, self.static_axes))}"
        return text + (", known at compile time" if self.constant else "")


@dataclasses.dataclass(frozen=True)
class Static(Spec):
    """A Python number known at compile time, within [lo, hi]; nan only where `nan`."""

    lo: float = -math.inf
    hi: float = math.inf
    nan: bool = False
    because: Because = ""

    def refusal(self, argument: str, value: Any, call: Call) -> Reason | None:
        if isinstance(value, SymbolicSize | Symbolic):
            return Reason(ReasonCode.DYNAMIC_SHAPE, argument, "a static number", seen(value), self.reason("dynamic"))
        if not isinstance(value, int | float):
            return Reason(ReasonCode.ARGUMENT, argument, "a number", seen(value))
        if not (self.lo <= value <= self.hi or (self.nan and value != value)):
            return Reason(ReasonCode.ARGUMENT, argument, str(self), seen(value), self.reason("range"))
        return None

    def negations(self) -> Iterator[Negation]:
        if self.lo > -math.inf:
            yield Negation(ReasonCode.ARGUMENT, f"< {self.lo}", Static(hi=math.nextafter(self.lo, -math.inf)))
        if self.hi < math.inf:
            yield Negation(ReasonCode.ARGUMENT, f"> {self.hi}", Static(lo=math.nextafter(self.hi, math.inf)))

    def disjoint(self, other: Spec) -> bool:
        if isinstance(other, Only):
            return other.disjoint(self)
        return isinstance(other, Static) and (self.hi < other.lo or other.hi < self.lo)

    def __str__(self) -> str:
        return between("a number", self.lo, self.hi)


@dataclasses.dataclass(frozen=True)
class Size(Spec):
    """An integer that may be symbolic; the bounds hold for the static ones."""

    lo: float = -math.inf
    hi: float = math.inf
    because: Because = ""

    def refusal(self, argument: str, value: Any, call: Call) -> Reason | None:
        if isinstance(value, SymbolicSize):
            return None
        if type(value) is not int:
            return Reason(ReasonCode.ARGUMENT, argument, "an integer", seen(value))
        if not self.lo <= value <= self.hi:
            return Reason(ReasonCode.ARGUMENT, argument, str(self), seen(value), self.reason("range"))
        return None

    def negations(self) -> Iterator[Negation]:
        yield from Static(self.lo, self.hi, because=self.because).negations()

    def __str__(self) -> str:
        return between("an integer, symbolic too", self.lo, self.hi)


@dataclasses.dataclass(frozen=True, init=False)
class Only(Spec):
    """One of these values."""

    values: tuple[Any, ...]
    because: Because = ""

    def __init__(self, *values: Any, because: Because = "") -> None:
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "because", because)

    def _holds(self, value: Any) -> bool:
        return any(type(value) is type(ours) and value == ours for ours in self.values)

    def refusal(self, argument: str, value: Any, call: Call) -> Reason | None:
        if self._holds(value):
            return None
        code = ReasonCode.DYNAMIC_SHAPE if isinstance(value, SymbolicSize) else ReasonCode.ARGUMENT
        return Reason(code, argument, str(self), seen(value), self.reason("values"))

    def negations(self) -> Iterator[Negation]:
        yield Negation(ReasonCode.ARGUMENT, f"not {self}", Not(self.values))

    def disjoint(self, other: Spec) -> bool:
        if isinstance(other, Only):
            return not any(other._holds(value) for value in self.values)
        return all(other.refusal("", value, {}) is not None for value in self.values)

    def __str__(self) -> str:
        return " | ".join(map(str, self.values))


@dataclasses.dataclass(frozen=True)
class Not(Spec):
    """Anything but these values: the negation of `Only`; what else there is, the schema's type says."""

    values: tuple[Any, ...]
    because: Because = ""

    def refusal(self, argument: str, value: Any, call: Call) -> Reason | None:
        if not Only(*self.values)._holds(value):
            return None
        return Reason(ReasonCode.ARGUMENT, argument, str(self), seen(value))

    def __str__(self) -> str:
        return "not " + " | ".join(map(str, self.values))


@dataclasses.dataclass(frozen=True)
class Axis(Spec):
    """A dimension of the tensor argument `of`, from the end where negative.

    With ``insert=True`` a place where one more dimension goes. Of a tensor without dimensions, 0 and -1 are both taken,
    as Torch does.
    """

    of: str
    insert: bool = False
    because: Because = ""

    def refusal(self, argument: str, value: Any, call: Call) -> Reason | None:
        if type(value) is not int:
            code = ReasonCode.DYNAMIC_SHAPE if isinstance(value, SymbolicSize) else ReasonCode.ARGUMENT
            return Reason(code, argument, "a static axis", seen(value))
        rank = axis_range(self, call)
        if rank is None or -rank <= value < rank:
            return None
        return Reason(ReasonCode.ARGUMENT, argument, f"an axis in [{-rank}, {rank - 1}]", seen(value))

    def __str__(self) -> str:
        return f"an axis of {self.of}" + (", or one past it" if self.insert else "")


def axis_range(axis: Axis, call: Call) -> int | None:
    """How many places an `Axis` chooses among, for this call."""
    of = call.get(axis.of)
    if isinstance(of, list) and of:  # of the largest: an empty 1-D tensor may stand among others in a concatenation
        of = max(of, key=lambda facts: facts.rank if isinstance(facts, TensorFacts) else -1)
    return max(1, of.rank + axis.insert) if isinstance(of, TensorFacts) else None


@dataclasses.dataclass(frozen=True)
class Anything(Several):
    """Any value: the argument has no meaning for TensorRT (a memory layout, say), or every value is handled."""

    because: Because = ""

    def refusal(self, argument: str, value: Any, call: Call) -> Reason | None:
        return None

    def __str__(self) -> str:
        return "anything"


def between(what: str, low: float, high: float) -> str:
    """A range in a reason's words."""
    if low == high:
        return f"{what} {low}"
    if low == -math.inf and high == math.inf:
        return what
    if high == math.inf or high == 1_000_000:
        return f"{what} >= {low}"
    if low == -math.inf:
        return f"{what} <= {high}"
    return f"{what} {low} to {high}"
