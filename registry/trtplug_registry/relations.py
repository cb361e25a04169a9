"""Named relations between the arguments of a call.

A relation may *restrict* (`holds`: what eager Torch takes but TensorRT does not) and may *arrange* a drawn call so that
it is well-formed (matching shapes, indices in range). One that only arranges states what eager itself demands; it
never refuses a node, since a node in a graph has been accepted by eager already.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from torch.fx import Node

from trtplug_registry.facts import Call, TensorFacts
from trtplug_registry.specs import seen
from trtplug_registry.support import Reason, ReasonCode

T = TypeVar("T")


class Choose(Protocol):
    """Where a relation's choices come from when a call is drawn (Hypothesis, in the test kit)."""

    def integer(self, low: int, high: int) -> int: ...

    def one_of(self, options: Sequence[T]) -> T: ...

    def boolean(self) -> bool: ...


@dataclasses.dataclass(frozen=True)
class Relation:
    """A named relation between arguments.

    Attributes:
        name: what must hold, in words that fit after "needs".
        arguments: the schema's names of the arguments that it looks at; the first is named in the reason.
        holds: whether a call (static or symbolic) satisfies it; None where eager itself demands it.
        arrange: changes a drawn call, in place, so that it satisfies the relation. Sizes are ints there.
        because: why TensorRT needs it.
        opaque: whether it is a predicate that knows nothing of drawing: most drawn calls may be refused by it.
    """

    name: str
    arguments: tuple[str, ...]
    holds: Callable[[Call], bool] | None = None
    arrange: Callable[[dict[str, Any], Choose], None] | None = None
    because: str = ""
    opaque: bool = False

    def refusal(self, call: Call) -> Reason | None:
        if self.holds is None or self.holds(call):
            return None
        values = ", ".join(f"{name} = {seen(call.get(name))}" for name in self.arguments)
        return Reason(ReasonCode.RELATION, self.arguments[0], self.name, values, self.because)

    def __str__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True)
class OutputsUsed:
    """Only these of the op's results may have users."""

    allowed: tuple[int, ...]
    because: str = ""
    opaque: bool = False

    def refusal(self, node: Node) -> Reason | None:
        for user in node.users:
            index = user.args[1] if len(user.args) == 2 and user.op == "call_function" else None
            if user.users and index not in self.allowed:
                wanted = f"only results {', '.join(map(str, self.allowed))} in use"
                return Reason(ReasonCode.OUTPUT_USED, "", wanted, f"result {index} is used", self.because)
        return None


def same_dtype(*names: str, because: str = "TensorRT's operands are of equal dtype") -> Relation:
    """These tensors (lists of tensors too) have one dtype. Absent optional ones do not count."""

    def holds(call: Call) -> bool:
        return len({facts.dtype for name in names for facts in tensors_in(call.get(name))}) <= 1

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        found = [facts for name in names for facts in tensors_in(call.get(name))]
        for name in names:
            call[name] = map_tensors(call.get(name), lambda facts: facts._replace(dtype=found[0].dtype))

    return Relation(f"{', '.join(names)} of one dtype", names, holds, arrange, because)


def broadcastable(*names: str) -> Relation:
    """The tensors' shapes broadcast together (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        present = [name for name in names if isinstance(call.get(name), TensorFacts)]
        whole = max((call[name].shape for name in present), key=len, default=())
        for name in present:
            tail = whole[len(whole) - call[name].rank :]
            shape = tuple(1 if choose.integer(0, 3) == 0 else size for size in tail)
            call[name] = call[name]._replace(shape=shape)

    return Relation(f"{', '.join(names)} broadcastable", names, None, arrange)


def same_shape(*names: str) -> Relation:
    """The tensors have one shape (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        for name in names[1:]:
            call[name] = map_tensors(call.get(name), lambda facts: facts._replace(shape=call[names[0]].shape))

    return Relation(f"{', '.join(names)} of one shape", names, None, arrange)


def dims(*, because: str = "", **letters: str) -> Relation:
    """Shapes by letter: ``dims(self="n k", mat2="k m")``. Equal letters are equal sizes (eager demands it).

    A number is that size.
    """

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        sizes: dict[str, int] = {}
        for name, pattern in letters.items():
            facts = call.get(name)
            if not isinstance(facts, TensorFacts):
                continue
            parts = pattern.split()
            offset = facts.rank - len(parts)
            shape = []
            for place, part in enumerate(parts):
                if part.isdigit():
                    shape.append(int(part))
                else:
                    known = facts.shape[offset + place] if 0 <= offset + place < facts.rank else choose.integer(1, 4)
                    assert isinstance(known, int)
                    shape.append(sizes.setdefault(part, known))
            call[name] = facts._replace(shape=tuple(shape))

    wanted = ", ".join(f"{name} [{pattern}]" for name, pattern in letters.items())
    return Relation(f"shapes {wanted}", tuple(letters), None, arrange, because)


def index_into(index: str, data: str, axis: str | int, negative: bool = False) -> Relation:
    """The elements of `index` are places along an axis of `data` (eager demands it).

    Args:
        index: the argument that holds indices.
        data: the argument that they point into.
        axis: a number, or the argument that holds it.
        negative: whether eager takes indices from the end.
    """

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        facts = call[data]
        place = call[axis] if isinstance(axis, str) else axis
        size = facts.shape[place] if facts.rank else 1
        values = (-size if negative else 0, size - 1)
        if size == 0:  # nothing to point at: no indices
            call[index] = map_tensors(call[index], lambda i: i._replace(shape=(0,) * max(1, i.rank)))
        call[index] = map_tensors(call[index], lambda i: i._replace(values=values))

    return Relation(f"{index} within {data}", (index, data), None, arrange)


def distinct_axes(axes: str, of: str) -> Relation:
    """The axes are distinct dimensions of a tensor (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        listed = call.get(axes)
        if listed is None:
            return
        rank = max(1, call[of].rank)
        kept: dict[int, int] = {}
        for axis in listed:
            kept.setdefault(axis % rank, axis)
        call[axes] = list(kept.values())

    return Relation(f"{axes} distinct", (axes, of), None, arrange)


def tensors_in(value: Any) -> list[TensorFacts]:
    if isinstance(value, TensorFacts):
        return [value]
    if isinstance(value, list | tuple):
        return [facts for item in value for facts in tensors_in(item)]
    return []


def map_tensors(value: Any, change: Callable[[TensorFacts], TensorFacts]) -> Any:
    if isinstance(value, TensorFacts):
        return change(value)
    if isinstance(value, list | tuple):
        return [map_tensors(item, change) for item in value]
    return value
