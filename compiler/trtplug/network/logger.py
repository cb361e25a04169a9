"""TensorRT's log, turned into something that errors can carry."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
from collections.abc import Iterator
from typing import Any

from trtplug._tensorrt import library
from trtplug.collector import collector_paused

_log = logging.getLogger("trtplug.tensorrt")

_NOISE = ("catchCudaError", "Unable to determine GPU memory usage", "CUDA initialization failure")
_TAIL = re.compile(r"\s+In \S+ at \S+\)?\s*$")


@functools.cache
def _logger_class() -> type:
    trt = library()
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.WARNING,
    }

    class Logger(trt.ILogger):  # type: ignore[name-defined,misc]  # the class is known at run time only
        """Keeps TensorRT's errors for `take`; the rest goes to Python's logging. Called from C++: never raises."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if any(noise in message for noise in _NOISE):  # each real error is followed by one, without a driver
                return
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                self.errors.append(_TAIL.sub("", message))
            else:
                _log.debug(message)

        def take(self) -> tuple[str, ...]:
            """The errors since the last call, without repetitions."""
            errors = tuple(dict.fromkeys(self.errors))
            self.errors.clear()
            return errors

    return Logger


def new_logger() -> Any:
    """A logger of its own for every builder, since an error must find the network that caused it."""
    return _logger_class()()


@contextlib.contextmanager
def making() -> Iterator[None]:
    """While a builder or a runtime is made, nothing is collected, in no thread.

    TensorRT then logs with a lock held that it takes to destroy one, too: were an earlier one garbage that Python finds
    while it runs our logger, it would wait for itself for ever.
    """
    with collector_paused():
        yield


def new_runtime(logger: Any) -> Any:
    """What loads engines."""
    with making():
        return library().Runtime(logger)
