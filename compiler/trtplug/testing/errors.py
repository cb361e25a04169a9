"""What a law check raises."""

from __future__ import annotations

from trtplug_registry import TrtplugError


class LawViolationError(AssertionError, TrtplugError):
    """A law does not hold. The message alone is enough to reproduce it."""


class UndescribedError(AssertionError, TrtplugError):
    """A domain does not describe well-formed calls: eager itself refuses too many of those drawn from it."""


class NotApplicableError(TrtplugError):
    """A law has nothing to say here, and why: a dtype that eager has no kernel for on this device, say."""
