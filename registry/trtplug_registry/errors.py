"""The root of every error that trtplug raises on purpose, and those of the contract itself."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable


class TrtplugError(Exception):
    """Base of every error that trtplug raises on purpose."""


class DeclarationError(TrtplugError):
    """A converter, domain or lowering pass contradicts itself, the op's schema or the contract."""


class PluginError(TrtplugError):
    """A plugin cannot be loaded, or declares something invalid; raised only under ``strict_plugins=True``."""


class PassOrderError(TrtplugError):
    """The lowering passes cannot be ordered; every violation is listed."""


class UnknownNameError(TrtplugError):
    """A setting names an op, a plugin, a pass or an option that does not exist."""


class PluginWarning(UserWarning):
    """A plugin was disabled, or two of them conflict; the rest works."""


_NOT_A_PLUGIN = frozenset({"trtplug", "trtplug_registry", "torch", "pluggy", "importlib"})


def raised(error: BaseException) -> str:
    """What a plugin raised, in words, with the line of its own that did: the innermost outside of what called it."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _NOT_A_PLUGIN and not file.startswith(
            "<frozen"
        ):
            place = f" ({file}:{line})"
    return f"{type(error).__name__}: {error}{place}"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that does not exist: it suggests the nearest right ones."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        advice = f"did you mean {' or '.join(map(repr, near))}?"
    elif len(known) <= 20:
        advice = f"there is {', '.join(map(repr, known)) or 'none'}."
    else:
        advice = f"none of the {len(known)} known ones is near."
    return UnknownNameError(f"unknown {kind} {name!r}: {advice}")
