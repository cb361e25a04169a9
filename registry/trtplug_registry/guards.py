"""Computing on symbolic sizes without deciding anything about them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

_KEEP_SHAPE = frozenset({torch.ops.aten._to_copy.default, torch.ops.aten.clone.default})


_LEARNT = ("replacements", "var_to_range", "axioms")
"""What Torch draws from a guard, in dictionaries: sizes that are fixed, bounds, and answers that follow."""


class SpecializedError(Exception):
    """A computation holds only for some sizes."""


def unguarded(*values: Any) -> contextlib.AbstractContextManager[Any]:
    """Keeps Torch from fixing sizes in what keeps its argument's shape: a copy, or a cast.

    Torch asks then how the sizes compare, only to say how the result lies in memory, and would note the answer.

    Args:
        values: the arguments; the fake ones say which sizes there are.
    """
    for value in values:
        if isinstance(value, FakeTensor) and value.fake_mode.shape_env is not None:
            return value.fake_mode.shape_env.suppress_guards()
    return contextlib.nullcontext()


def unguarded_call(target: Any, values: Any) -> contextlib.AbstractContextManager[Any]:
    """`unguarded`, where a call of this op with these arguments keeps its argument's shape; else changes nothing."""
    return unguarded(*values) if target in _KEEP_SHAPE else contextlib.nullcontext()


@contextlib.contextmanager
def unspecialized(shape_env: Any) -> Iterator[None]:
    """Refuses a computation that holds only for some sizes: one that adds a guard which fixes or bounds a symbol.

    Args:
        shape_env: of the fake mode; None where there are no symbolic sizes.

    Raises:
        SpecializedError: it does; the shape environment is as before.
    """
    if shape_env is None:
        yield
        return
    frozen, shape_env.frozen = shape_env.frozen, False  # export freezes it, which would hide the guards
    guards = len(shape_env.guards)
    learnt = [getattr(shape_env, name) for name in _LEARNT]
    before = [dict(one) for one in learnt]
    holds = False
    try:
        yield
        new = shape_env.guards[guards:]
        # Ne(size, 0) and Ne(size, 1) are what export itself assumes of every dynamic size
        if learnt[0] != before[0] or any(getattr(g.expr, "rel_op", "") != "!=" for g in new):
            raise SpecializedError(", ".join(str(guard.expr) for guard in new))
        holds = True
    finally:
        shape_env.frozen = frozen
        del shape_env.guards[guards:]
        if not holds or dict(learnt[1]) != before[1]:
            for one, other in zip(learnt, before, strict=True):
                one.clear()
                one.update(other)
            _forget_answers(shape_env)


def _forget_answers(shape_env: Any) -> None:
    """Makes what is kept of answers about sizes count no more: Torch itself only ever learns, and notices just that."""
    shape_env._update_version_counter()
    shape_env._version_counter += 1
    if hasattr(shape_env, "_replacements_version_counter"):  # each SymInt keeps its expression since torch 2.12
        shape_env._replacements_version_counter += 1
