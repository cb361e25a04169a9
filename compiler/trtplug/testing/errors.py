"""What a law check raises."""

from __future__ import annotations

import unittest

from trtplug_registry import TrtplugError


class LawViolationError(AssertionError, TrtplugError):
    """A law does not hold. The message alone is enough to reproduce it."""


class UndescribedError(AssertionError, TrtplugError):
    """A domain does not describe well-formed calls: eager itself refuses too many of those drawn from it."""


class NotApplicableError(TrtplugError):
    """A law has nothing to say here, and why: a dtype that eager has no kernel for on this device, say."""


class UnprovenError(TrtplugError):
    """There is nothing to try a law on: no call can be drawn, and no example is given."""


class UndrawableError(NotApplicableError):
    """There is no value to draw: `Not` over all values of a type, say."""


class EnoughError(unittest.SkipTest):
    """Ends an exploration early: Hypothesis passes a skip on at once, and does not take it for a failure."""

    def __init__(self) -> None:
        super().__init__("enough was tried")
