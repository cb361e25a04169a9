"""Loops and conditionals over nested graph modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Body = Callable[..., tuple[Tensor, ...]]


def element(x: Tensor, axis: int, reverse: bool, step: int, count: int | None) -> Tensor:
    """ITERATOR: x at the present step along an axis, counted from the trip count down where reversed."""
    if reverse and count is None:
        raise ValueError("a reversed iterator needs a trip count")
    place = (count or 0) - 1 - step if reverse else step
    if not 0 <= place < x.shape[axis]:
        raise IndexError(f"iteration {step} reads place {place} of axis {axis} of {list(x.shape)}")
    return x.select(axis, place)


def loop(
    condition: Body | None,
    body: Body,
    count: Tensor | None,
    states: list[Tensor],
    captured: list[Tensor],
    outputs: list[list[Any]],
) -> tuple[Tensor, ...]:
    """LOOP: run the body until `count` iterations are made or the condition is false.

    Where:
        condition: (step, count, *states, *captured) -> (bool 0-d,), asked before each iteration.
        body: (step, count, *states, *captured) -> (*next states, *values to collect).
        count: trip count, 0-d, or None.
        states: the recurrences' first values.
        outputs: one [kind, number, length] per loop output. STATE: the last value of recurrence `number`. LAST_VALUE:
            the collected value of the last iteration. CONCATENATE, REVERSE: `length` collected values stacked along
            axis `number`, in order of time or against it.
    """
    limit = None if count is None else int(count)
    collected: list[list[Tensor]] = [[] for kind, *_ in outputs if kind != "STATE"]
    present, step = tuple(states), 0
    while limit is None or step < limit:
        if condition is not None and not bool(condition(step, limit, *present, *captured)[0]):
            break
        results = body(step, limit, *present, *captured)
        present = tuple(results[: len(states)])
        for values, value in zip(collected, results[len(states) :], strict=True):
            values.append(value)
        step += 1
    remaining = iter(collected)
    return tuple(
        present[number] if kind == "STATE" else _gathered(kind, number, length, next(remaining))
        for kind, number, length in outputs
    )


def _gathered(kind: str, axis: int, length: Tensor | None, values: list[Tensor]) -> Tensor:
    if not values:
        raise ValueError("the loop made no iteration, so its output has no value")
    if kind == "LAST_VALUE":
        return values[-1]
    if length is not None and int(length) != len(values):
        raise ValueError(f"a loop output of length {int(length)} after {len(values)} iterations: the rest is undefined")
    return torch.stack(values[::-1] if kind == "REVERSE" else values, axis)


def choose(condition: Tensor, then: Body, otherwise: Body, captured: list[Tensor]) -> tuple[Tensor, ...]:
    """IF: the results of one of two branches, each called with all captured tensors; the other is not run."""
    return tuple((then if bool(condition) else otherwise)(*captured))
