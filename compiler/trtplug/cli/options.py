"""Every setting of a compilation as an option of the command line, described as `Settings` describes it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Collection
from typing import Annotated, Any

import typer

from trtplug.settings import Settings

FLAGS = {
    "torch_ops": "--torch-op",
    "disable_passes": "--disable-pass",
    "enable_passes": "--enable-pass",
    "profiles": "--profile",
}
"""Of lists that are given one at a time. Any other field is an option of its own name."""

TYPES: dict[str, Any] = {"cache_dir": str | None, "workspace_bytes": int | None, "weight_budget_bytes": int | None}
"""Of the fields whose default does not tell."""


def with_settings(without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command an option for every field of `Settings`, but for those `without`.

    Its parameter ``settings`` is not an option: it gets those that were given, by name.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        fields = {field.name: field for field in dataclasses.fields(Settings) if field.name not in without}

        @functools.wraps(command)
        def run(**given: Any) -> None:
            settings = {name: given.pop(name) for name in fields}
            command(
                **given, settings={name: settings[name] for name in fields if _is_given(fields[name], settings[name])}
            )

        signature = inspect.signature(command, eval_str=True)
        own = [parameter for parameter in signature.parameters.values() if parameter.name != "settings"]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + [
            _option(field) for field in fields.values()
        ]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # what Typer reads
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
        return run

    return decorate


def _is_given(field: dataclasses.Field[Any], value: Any) -> bool:
    return bool(value != (None if isinstance(field.default, tuple) else field.default))


def _option(field: dataclasses.Field[Any]) -> inspect.Parameter:
    many = isinstance(field.default, tuple)
    kind = list[str] | None if many else TYPES.get(field.name, type(field.default))
    flag = FLAGS.get(field.name, "--" + field.name.replace("_", "-"))
    option = typer.Option(flag, help=descriptions()[field.name])
    default = None if many else field.default
    kept = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kept, default=default, annotation=Annotated[kind, option])


@functools.cache
def descriptions() -> dict[str, str]:
    """Of each field of `Settings`: the first sentence that its docstring says of it."""
    found: dict[str, str] = {}
    for name, text in re.findall(r"^        (\w+): (.+(?:\n            .+)*)", Settings.__doc__ or "", re.MULTILINE):
        plain = re.sub(r"`+", "", re.sub(r"\s+", " ", text))
        sentence = re.split(r"(?<=[^.])\.(?: |$)", plain)[0]
        found[name] = sentence[0].upper() + sentence[1:] + "."
    return found
