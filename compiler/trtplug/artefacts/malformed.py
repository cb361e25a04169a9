"""Reading data that somebody else wrote: every assumption is checked, and one error says what does not hold."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class Malformed(Exception):
    """A member holds something that cannot be; `load` turns it into an `ArtefactError` that names the file.

    Attributes:
        member: which one, where it is known here.
    """

    def __init__(self, what: str, member: str = "") -> None:
        self.what, self.member = what, member
        super().__init__(what)


@contextlib.contextmanager
def naming(member: str) -> Iterator[None]:
    """What is malformed inside is in this member, unless it says otherwise.

    Where data contradicts itself in a way that nothing checks for, Torch or Python raises; that is malformed too.
    """
    try:
        yield
    except Malformed as error:
        raise Malformed(error.what, error.member or member) from error.__cause__
    except OSError:
        raise
    except Exception as error:
        raise Malformed(f"it cannot be: {type(error).__name__}: {error}", member) from error


def need(condition: object, what: str) -> None:
    """Raises `Malformed` unless the condition holds."""
    if not condition:
        raise Malformed(what)


def of_type(value: Any, kind: type[T], what: str) -> T:
    """The value, once it is exactly of a type (a bool is no int)."""
    if type(value) is not kind:
        raise Malformed(f"{what} is {brief(value)}, not of type {kind.__name__}")
    return value


def field(record: Any, name: str, kind: type[T]) -> T:
    """A field of a JSON object, of exactly that type."""
    return of_type(of_type(record, dict, "a record").get(name), kind, f"the field {name!r}")


def fields(record: Any, *names: str) -> dict[str, Any]:
    """A JSON object that has exactly these fields."""
    found = of_type(record, dict, "a record")
    if set(found) != set(names):
        raise Malformed(f"a record has the fields {sorted(found)}, not {sorted(names)}")
    return found


def size(value: Any, what: str) -> int:
    """A count or size: an int that is not negative and fits TensorRT's and Torch's 64 bits."""
    number = of_type(value, int, what)
    need(0 <= number < 2**63, f"{what} is {number}")
    return number


def sizes(values: Any, what: str) -> tuple[int, ...]:
    return tuple(size(value, what) for value in of_type(values, list, what))


def strings(values: Any, what: str) -> tuple[str, ...]:
    return tuple(of_type(value, str, what) for value in of_type(values, list, what))


def items(record: Any, what: str) -> Iterator[tuple[str, Any]]:
    yield from of_type(record, dict, what).items()


def parse(data: bytes) -> Any:
    """JSON, strictly: no NaN, and no name twice in an object."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is not JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    need(len(made) == len(pairs), "a JSON object has a name twice")
    return made


def _constant(name: str) -> Any:
    raise Malformed(f"{name} is not JSON")


def brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
