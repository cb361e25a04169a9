"""Calls of an engine with several optimization profiles: each goes to a context that is set to the one it fits best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from trtplug.executors.session import MOST_SHAPES, Session
from trtplug.profiles import profile_of
from trtplug_registry import Engine

Key: TypeAlias = tuple[Any, ...]


class ProfiledSession:
    """One session for each profile, made when first needed: to change a context's profile costs more than a context.

    Called as `Session` is. Not for several threads at once.

    Args:
        engine: what is run.
        open: makes a session on a new context that is set to the profile of a number.
    """

    def __init__(self, engine: Engine, open: Callable[[int], Session]) -> None:
        self._engine, self._open = engine, open
        self._sessions: dict[int, Session] = {}
        self._known: dict[Key, int] = {}

    @property
    def broken(self) -> bool:
        """Whether one of the sessions is."""
        return any(session.broken for session in self._sessions.values())

    def open_all(self) -> None:
        """Makes every session now, and so compiles all kernels."""
        for number in range(len(self._engine.profiles)):
            self._session(number)

    def session_for(self, inputs: Sequence[Any]) -> Session:
        """The session whose profile holds the shapes of a call best.

        Raises:
            ExecutorError: none holds them.
        """
        key = tuple([value.shape if isinstance(value, torch.Tensor) else int(value) for value in inputs])
        number = self._known.get(key)
        if number is None:
            number = profile_of(self._engine, inputs)
            if len(self._known) >= MOST_SHAPES:
                self._known.clear()
            self._known[key] = number
        return self._session(number)

    def __call__(self, inputs: Sequence[Any]) -> tuple[torch.Tensor, ...] | None:
        return self.session_for(inputs)(inputs)

    def _session(self, number: int) -> Session:
        session = self._sessions.get(number)
        if session is None:
            session = self._sessions[number] = self._open(number)
        return session
