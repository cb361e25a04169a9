"""Fingerprints of functions: what decides their result, hashed, so that a cache never serves stale work."""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Iterator
from typing import Any

from torch._ops import OpOverloadPacket

_SIMPLE = (int, float, complex, str, bytes, bool, type(None))
_PLAIN = frozenset(_SIMPLE)
_LIBRARIES = frozenset({"torch", *sys.stdlib_module_names})
"""Their functions count by name: versions are hashed elsewhere, and what they keep in globals changes as they run."""

_WRAPPERS = ("__func__", "fget", "func")
"""Where static, class and cached methods and properties keep their function."""


def fingerprint(*values: Any) -> str:
    """A SHA-256 over values and, for functions, over their code, closures, defaults and the functions they call.

    Functions and classes of the same top-level package are followed through globals, and through modules of it; others
    count by their qualified name, their distribution's version being hashed elsewhere. An object with an attribute
    ``fingerprinted`` counts by that.
    """
    digest = hashlib.sha256()
    for value in values:
        _feed(digest, value, set())
    return digest.hexdigest()


def _feed(digest: Any, value: Any, visited: set[int]) -> None:
    if isinstance(value, _SIMPLE):
        digest.update(f"{type(value).__name__}:{value!r};".encode())
    elif isinstance(value, tuple | list | set | frozenset | dict):
        _feed_container(digest, value, visited)
    elif isinstance(value, OpOverloadPacket):  # it keeps the overloads that somebody has asked it for
        digest.update(f"{value};".encode())
    elif id(value) in visited:
        digest.update(b"seen;")
    elif hasattr(value, "fingerprinted") and not isinstance(value, type):
        visited.add(id(value))
        _feed(digest, value.fingerprinted, visited)
    elif isinstance(value, functools.partial):
        visited.add(id(value))
        for part in (value.func, value.args, value.keywords):
            _feed(digest, part, visited)
    elif isinstance(value, types.FunctionType):
        visited.add(id(value))
        if _package(value.__module__) in _LIBRARIES:
            digest.update(f"{_stable_repr(value)};".encode())
        else:
            _feed_function(digest, value, visited)
    elif isinstance(value, types.CodeType):
        for what in (value.co_code, value.co_names, value.co_varnames, value.co_consts):
            _feed(digest, what, visited)
    elif isinstance(value, types.MethodType):
        _feed(digest, value.__func__, visited)
        _feed(digest, getattr(value.__self__, "__dict__", {}), visited)
    elif isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
        digest.update(f"{getattr(value, '__module__', '')}.{value.__name__};".encode())
    else:
        visited.add(id(value))
        digest.update(f"{type(value).__module__}.{type(value).__qualname__};".encode())
        state = getattr(value, "__dict__", None)
        _feed(digest, state if state and not hasattr(value, "_schema") else _stable_repr(value), visited)


def _feed_container(digest: Any, value: Any, visited: set[int]) -> None:
    if type(value) is tuple and _PLAIN.issuperset(map(type, value)):  # most are, and one repr tells all
        digest.update(f"{value!r};".encode())
        return
    digest.update(f"{type(value).__name__}{len(value)}(".encode())
    if isinstance(value, dict):
        for key in sorted(value, key=_stable_repr):
            digest.update(f"{_stable_repr(key)}:".encode())
            _feed(digest, value[key], visited)
    else:
        for item in sorted(value, key=_stable_repr) if isinstance(value, set | frozenset) else value:
            _feed(digest, item, visited)
    digest.update(b")")


def _feed_function(digest: Any, function: types.FunctionType, visited: set[int]) -> None:
    digest.update(f"{function.__module__}.{function.__qualname__};".encode())
    _feed(digest, function.__code__, visited)
    _feed(digest, function.__defaults__, visited)
    _feed(digest, function.__kwdefaults__, visited)
    for cell in function.__closure__ or ():
        try:
            _feed(digest, cell.cell_contents, visited)
        except ValueError:  # a cell that is not filled yet
            digest.update(b"empty;")
    package = _package(function.__module__)
    for used in _globals(function):
        if isinstance(used, types.FunctionType) and _package(used.__module__) == package:
            _feed(digest, used, visited)
        elif isinstance(used, type) and _package(used.__module__) == package:
            _feed_class(digest, used, visited)
        elif isinstance(used, (*_SIMPLE, tuple, frozenset, dict)):
            _feed(digest, used, visited)


def _feed_class(digest: Any, used: type, visited: set[int]) -> None:
    """What a class is made of: its functions and plain values, and its bases of the same package."""
    if id(used) in visited:
        return
    visited.add(id(used))
    digest.update(f"{used.__module__}.{used.__qualname__};".encode())
    for name, value in sorted(vars(used).items()):
        inner = next((found for kind in _WRAPPERS if (found := getattr(value, kind, None))), value)
        plain = isinstance(inner, (*_SIMPLE, tuple)) and not name.startswith("__")
        if plain or isinstance(inner, types.FunctionType):
            digest.update(f"{name}=".encode())
            _feed(digest, inner, visited)
    for base in used.__bases__:
        if _package(base.__module__) == _package(used.__module__):
            _feed_class(digest, base, visited)


def _globals(function: types.FunctionType) -> Iterator[Any]:
    """The globals that a function names, also in functions within it, and what it takes from modules of its package."""
    names = tuple(dict.fromkeys(_names(function.__code__)))
    for name in names:
        used = function.__globals__.get(name)
        if isinstance(used, types.ModuleType) and _package(used.__name__) == _package(function.__module__):
            yield from (vars(used)[other] for other in names if other in vars(used))
        else:
            yield used


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _package(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _stable_repr(value: Any) -> str:
    """A repr without addresses."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_stable_repr, value))})"
    if isinstance(value, types.FunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else text
