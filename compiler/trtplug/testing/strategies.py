"""Strategies that are made once: making and validating one costs more than drawing from it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from hypothesis import strategies as st

T = TypeVar("T")

BOOLEANS = st.booleans()

_PLAIN = frozenset({bool, int, float, str, type(None), torch.dtype})
_known: dict[tuple[str, ...], st.SearchStrategy[Any]] = {}


@functools.cache
def integers(low: int, high: int) -> st.SearchStrategy[int]:
    """``st.integers(low, high)``."""
    return st.integers(low, high)


@functools.cache
def permutations(count: int) -> st.SearchStrategy[list[int]]:
    """``st.permutations(range(count))``."""
    return st.permutations(range(count))


def sampled(options: Sequence[T]) -> st.SearchStrategy[T]:
    """``st.sampled_from(options)``; the same one where the options are alike and plain."""
    if not all(type(option) in _PLAIN for option in options):
        return st.sampled_from(options)
    key = tuple(map(repr, options))  # which tells 1 from 1.0 and from True, and 0.0 from -0.0
    if key not in _known:
        _known[key] = st.sampled_from(tuple(options))
    return _known[key]
