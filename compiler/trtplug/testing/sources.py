"""Which source a result speaks of: what was tried of other source is to be tried again."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trtplug.testing.mutants import functions_reached
from trtplug_registry import Converter

PACKAGES = ("trtplug", "trtplug_registry", "trtplug_converters", "trtplug_lowering_passes")

Name = tuple[str, str]
"""A module, and what it calls something; "" for all of the module."""
Text = Callable[[str], str | None]
"""The text of a module by its name; None where there is none."""


def source_of(value: Converter | Callable[..., Any]) -> str:
    """A few digits that change with the source of a converter or a function: its own, its domain's, and that of every
    function, class and constant of its package that these name, and so on.

    The same for every version of Python. "" for what is Torch's own, which has a version of its own.
    """
    roots = roots_of(value)
    return digest(roots, text_of) if roots else ""


@functools.cache
def source_of_all() -> str:
    """A few digits that change with any module of trtplug and its plugins."""
    found = hashlib.sha256()
    for package in PACKAGES:
        folder = Path(str(importlib.util.find_spec(package).origin)).parent  # type: ignore[union-attr] # they are ours
        for file in sorted(folder.rglob("*.py")):
            found.update(f"{package}/{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return found.hexdigest()[:12]


def digest(roots: Iterable[Name], text: Text) -> str:
    """A few digits that change with the source of what is named and of what that reaches."""
    found = reached(roots, text)
    return hashlib.sha256("\n".join(f"{name} {found[name]}" for name in sorted(found)).encode()).hexdigest()[:12]


def roots_of(value: Converter | Callable[..., Any]) -> set[Name]:
    """The functions that a converter or a function consists of and reaches, by name; none of Torch's."""
    whole = value.function if isinstance(value, Converter) else value
    function = inspect.unwrap(whole.func if isinstance(whole, functools.partial) else whole)
    package = str(getattr(function, "__module__", "torch")).partition(".")[0]
    if package == "torch":
        return set()
    found = (function, *functions_reached(whole, package))
    return {(one.__module__, one.__qualname__ if one.__qualname__.isidentifier() else "") for one in found}


def reached(names: Iterable[Name], text: Text) -> dict[Name, str]:
    """The source of what is named, and of all that this names of the same package."""
    found: dict[Name, str] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            held = _parsed(name[0], text(name[0]) or "")
            found[name] = held.whole if not name[1] else held.text(name[1])
            waiting += held.uses(name[1], text)
    return found


@dataclasses.dataclass(frozen=True)
class _Module:
    """A module's source: the statements that bind each name, and what it imports of its own package."""

    name: str
    whole: str
    statements: Mapping[str, list[ast.stmt]]
    imported: Mapping[str, Name]

    @classmethod
    def parsed(cls, name: str, whole: str) -> _Module:
        statements: dict[str, list[ast.stmt]] = {}
        imported: dict[str, Name] = {}
        for statement in ast.parse(whole).body:
            if isinstance(statement, ast.ImportFrom) and statement.module:
                if statement.module.partition(".")[0] == name.partition(".")[0]:
                    found = {alias.asname or alias.name: (statement.module, alias.name) for alias in statement.names}
                    imported.update(found)
            else:
                for bound in _bound(statement):
                    statements.setdefault(bound, []).append(statement)
        return cls(name, whole, statements, imported)

    def text(self, name: str) -> str:
        """What binds a name, comments and all."""
        lines = self.whole.splitlines()
        spans = [(_first_line(statement), statement.end_lineno) for statement in self.statements.get(name, ())]
        return "\n".join(line for first, last in spans for line in lines[first - 1 : last])

    def uses(self, name: str, text: Text) -> Iterator[Name]:
        """What is named of the package's modules where a name is bound."""
        for statement in self.statements.get(name, ()):
            for node in ast.walk(statement):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    yield from self._meant(node.value.id, node.attr, text)
                elif isinstance(node, ast.Name):
                    yield from self._meant(node.id, "", text)

    def _meant(self, used: str, part: str, text: Text) -> Iterator[Name]:
        if used in self.statements:
            yield self.name, used
        elif used in self.imported:
            module, name = self.imported[used]
            if text(f"{module}.{name}") is None:
                yield module, name
            elif part:
                yield f"{module}.{name}", part


_parsed = functools.cache(_Module.parsed)  # all cases ask about the same few modules


def _bound(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _first_line(statement: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


@functools.cache
def text_of(module: str) -> str | None:
    """The text of a module's file, which is not imported for that; None where there is none."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # what should hold it is no package
        return None
    return Path(spec.origin).read_text() if spec and spec.origin and spec.origin.endswith(".py") else None
