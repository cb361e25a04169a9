"""Computing on symbolic sizes without deciding anything about them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

_KEEP_SHAPE = frozenset({torch.ops.aten._to_copy.default, torch.ops.aten.clone.default})


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
    guards, replacements, spans = (
        len(shape_env.guards),
        dict(shape_env.replacements),
        dict(shape_env.var_to_range),
    )
    try:
        yield
        new = shape_env.guards[guards:]
        # Ne(size, 0) and Ne(size, 1) are what export itself assumes of every dynamic size
        if shape_env.replacements != replacements or any(getattr(g.expr, "rel_op", "") != "!=" for g in new):
            raise SpecializedError(", ".join(str(guard.expr) for guard in new))
    finally:
        shape_env.frozen = frozen
        del shape_env.guards[guards:]
        if shape_env.replacements != replacements or dict(shape_env.var_to_range) != spans:
            shape_env.replacements.clear()
            shape_env.replacements.update(replacements)
            shape_env.var_to_range.clear()
            shape_env.var_to_range.update(spans)
            shape_env._update_version_counter()
