"""Errors of the command line's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trtplug_registry import TrtplugError


def failure(text: str) -> TrtplugError:
    """A `TrtplugError`. Its class comes with the contract, which imports Torch; ``--help`` waits for neither."""
    from trtplug_registry import TrtplugError

    return TrtplugError(text)
