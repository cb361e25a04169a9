"""Fingerprints of functions: what decides their result, hashed, so that a cache never serves stale work."""

from __future__ import annotations

import functools
import hashlib
import types
from typing import Any

_SIMPLE = (int, float, complex, str, bytes, bool, type(None))


def fingerprint(*values: Any) -> str:
    """A SHA-256 over values and, for functions, over their code, closures, defaults and the functions they call.

    Functions of the same top-level package are followed through globals; others count by their qualified name, their
    distribution's version being hashed elsewhere. An object with an attribute ``fingerprinted`` counts by that.
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
        _feed_function(digest, value, visited)
    elif isinstance(value, types.CodeType):
        for part in (value.co_code, value.co_names, value.co_varnames, *value.co_consts):
            _feed(digest, part, visited)
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
    digest.update(f"{type(value).__name__}{len(value)}(".encode())
    if isinstance(value, dict):
        items: Any = sorted(value.items(), key=lambda item: str(item[0]))
        for key, item in items:
            _feed(digest, str(key), visited)
            _feed(digest, item, visited)
    else:
        for item in sorted(value, key=str) if isinstance(value, set | frozenset) else value:
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
    package = function.__module__.partition(".")[0]
    for name in function.__code__.co_names:
        used = function.__globals__.get(name)
        ours = isinstance(used, types.FunctionType) and used.__module__.partition(".")[0] == package
        if ours or isinstance(used, (*_SIMPLE, tuple, frozenset, dict)):
            _feed(digest, used, visited)


def _stable_repr(value: Any) -> str:
    """A repr without addresses."""
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else text
