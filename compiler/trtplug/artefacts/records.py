"""Dataclasses from JSON, each field of the type that its annotation says."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from trtplug.artefacts.malformed import Malformed, brief, need, of_type, parse
from trtplug.report import ADDED, FORMAT, VERSION, CompilationReport

T = TypeVar("T")


def record(data: Any, kind: type[T]) -> T:
    """A dataclass from a JSON object that has exactly its fields, but for those that were `ADDED` later.

    Raises:
        Malformed: a field is missing, unknown or of another type.
    """
    found, hints = of_type(data, dict, f"a {kind.__name__}"), _hints(typing.cast(Any, kind))
    added = {field.name for field in dataclasses.fields(typing.cast(Any, kind)) if field.metadata == ADDED}
    if found.keys() | added != hints.keys():
        raise Malformed(f"a {kind.__name__} has the fields {sorted(found)}, not {sorted(hints)}")
    return kind(**{name: _typed(value, hints[name], name) for name, value in found.items()})


def report_of(text: bytes) -> CompilationReport:
    """A compilation's report from its JSON. One that does not say its format is of before it did.

    Raises:
        Malformed: it is no report, or one of another version.
    """
    data = of_type(parse(text), dict, "a report")
    for name, known in (("format", FORMAT), ("version", VERSION)):
        found = data.pop(name, known)
        need(type(found) is type(known) and found == known, f"a report's {name} is {brief(found)}, not {known!r}")
    return record(data, CompilationReport)


@functools.cache
def _hints(kind: Any) -> Mapping[str, Any]:
    hints = typing.get_type_hints(typing.cast(Any, kind))
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _typed(value: Any, hint: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is tuple:
        return tuple(_typed(item, arguments[0], name) for item in of_type(value, list, f"the field {name!r}"))
    if origin is types.UnionType:
        return None if value is None else _typed(value, arguments[0], name)
    if origin is not None and issubclass(origin, Mapping):
        items = of_type(value, dict, f"the field {name!r}").items()
        return {key: _typed(item, arguments[1], name) for key, item in items}
    if dataclasses.is_dataclass(hint):
        return record(value, typing.cast(type, hint))
    if issubclass(hint, enum.Enum):
        need(value in {member.value for member in hint}, f"{brief(value)} is not a {hint.__name__}")
        return hint(value)
    if hint is float and type(value) is int:
        return float(value)
    return of_type(value, hint, f"the field {name!r}")
