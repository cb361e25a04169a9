"""Which plugins and ops to use, where the caller does not say: from the environment, then from ``pyproject.toml``.

An argument comes first, then the environment variable, then the nearest ``pyproject.toml`` with a ``[tool.trtplug]``
table, from the current directory upwards. Each setting is taken whole from one place; lists are not merged. All is read
when settings or a registry are made, never at import, and kept nowhere.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trtplug.errors import SettingsError
from trtplug_registry import UnknownNameError, unknown_name

VARIABLES: Mapping[str, str] = {
    "block": "TRTPLUG_BLOCK",
    "prefer": "TRTPLUG_PREFER",
    "torch_ops": "TRTPLUG_TORCH_OPS",
    "strict_plugins": "TRTPLUG_STRICT_PLUGINS",
}
"""The environment variable of each setting that can be chosen outside of the program."""

_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclasses.dataclass(frozen=True)
class Choice:
    """A setting that was made outside of the program.

    Attributes:
        value: a tuple of names, or for ``strict_plugins`` a bool.
        source: the variable, or the file, in words.
    """

    value: tuple[str, ...] | bool
    source: str


def choices() -> dict[str, Choice]:
    """The settings that the environment and ``pyproject.toml`` make, by name.

    Raises:
        SettingsError: a value is of the wrong type, or the file cannot be read.
        UnknownNameError: the table has a key that is no such setting.
    """
    made = dict(_from_pyproject())
    made.update(_from_environment())
    return made


def located(error: UnknownNameError) -> UnknownNameError:
    """The error about a name, with the place outside of the program that names it, where there is one."""
    places = {
        choice.source
        for choice in choices().values()
        if isinstance(choice.value, tuple) and any(f" {name!r}:" in str(error) for name in choice.value)
    }
    return UnknownNameError(f"{error} (set by {' and '.join(sorted(places))})") if places else error


def _from_environment() -> Iterator[tuple[str, Choice]]:
    for name, variable in VARIABLES.items():
        text = os.environ.get(variable)
        if text is None:
            continue
        if name == "strict_plugins":
            if text.lower() not in _TRUTH:
                raise SettingsError(f"{variable}={text!r}: must be one of {', '.join(_TRUTH)}")
            yield name, Choice(_TRUTH[text.lower()], variable)
        else:
            yield name, Choice(tuple(text.replace(",", " ").split()), variable)


def _from_pyproject() -> Iterator[tuple[str, Choice]]:
    for folder in (Path.cwd(), *Path.cwd().parents):
        table = _table(folder / "pyproject.toml")
        if table is not None:
            source = f"[tool.trtplug] of {folder / 'pyproject.toml'}"
            yield from ((name, _choice(name, value, source)) for name, value in table.items())
            return


def _table(file: Path) -> dict[str, Any] | None:
    """The file's ``[tool.trtplug]``; None where there is none."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return None
    if "trtplug" not in text:  # a file that says nothing of us is not ours to judge
        return None
    try:
        table = tomllib.loads(text).get("tool", {}).get("trtplug")
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not valid TOML: {error}") from error
    if table is not None and not isinstance(table, dict):
        raise SettingsError(f"{file}: tool.trtplug must be a table")
    return table


def _choice(name: str, value: Any, source: str) -> Choice:
    if name not in VARIABLES:
        error = unknown_name("key", name, VARIABLES)
        raise UnknownNameError(f"{source}: {error}")
    if name == "strict_plugins":
        if not isinstance(value, bool):
            raise SettingsError(f"{source}: {name} = {value!r}: must be true or false")
        return Choice(value, source)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SettingsError(f"{source}: {name} = {value!r}: must be a list of names")
    return Choice(tuple(value), source)
