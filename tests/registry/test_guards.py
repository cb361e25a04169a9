"""Computing on symbolic sizes leaves nothing behind: no guard, and no answer that rests on one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.utils._sympy.value_ranges import ValueRanges

from trtplug_registry.guards import SpecializedError, unspecialized


def size_between(env: ShapeEnv, low: int, high: int) -> Any:
    """A SymInt of this range, whose example is 2."""
    symbol: Any = env.create_symbol(2, ConstantSource("size"), DimDynamic.DYNAMIC, do_not_specialize_zero_one=True)
    env.var_to_range[symbol] = ValueRanges(low, high)
    return env.create_symintnode(symbol, hint=2)


def answer_while_refused(env: ShapeEnv, size: Any, question: Callable[[], Any]) -> Any:
    """What is said in a computation that is refused, since it asks whether the size is less than 2."""
    found = []

    def compute() -> None:
        with unspecialized(env):
            assert not size < 2
            found.append(question())

    with pytest.raises(SpecializedError, match=">= 2"):
        compute()
    return found[0]


def test_a_size_that_a_refused_computation_fixed_is_symbolic_again() -> None:
    env = ShapeEnv()
    size = size_between(env, 1, 2)
    assert answer_while_refused(env, size, lambda: size.node.expr) == 2  # kept with the size since torch 2.12
    assert size.node.expr.is_Symbol


def test_an_answer_of_a_refused_computation_is_forgotten() -> None:
    env = ShapeEnv()
    size = size_between(env, 1, 9)
    question = (size * 2 >= 4).node.expr
    assert bool(answer_while_refused(env, size, lambda: env._maybe_evaluate_static(question)))
    assert env._maybe_evaluate_static(question) is None
