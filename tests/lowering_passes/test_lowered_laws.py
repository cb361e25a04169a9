"""What lowering makes of every op that is decomposed: drawn calls, of static and of symbolic sizes, next to eager.

``-k atan2`` picks by op; ``TRTPLUG_LAWS=nightly`` tries more.
"""

from __future__ import annotations

import pytest
import torch

import trtplug
from trtplug.testing import (
    Law,
    LawViolationError,
    LoweredCase,
    NotApplicableError,
    check_lowering,
    lowered_cases,
    run_lowered_op,
)
from trtplug_registry import Plugin, Registry


@pytest.mark.parametrize("case", lowered_cases(trtplug.registry()), ids=str)
def test_law(case: LoweredCase) -> None:
    try:
        case.check()
    except NotApplicableError as error:
        pytest.skip(str(error))


def smaller(self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.fmin(self, other)


def with_decomposition(op, function) -> Registry:
    built_in = trtplug.registry().plugins
    return Registry([*built_in, Plugin("wrong", decompositions={op: function})])


@pytest.mark.parametrize("law", [Law.EQUALS_EAGER, Law.DYNAMIC])
def test_a_wrong_decomposition_is_found(law: Law) -> None:
    op = torch.ops.aten.fmax.default
    with pytest.raises(LawViolationError, match="run_lowered_op") as raised:
        check_lowering(with_decomposition(op, smaller), op, law, profile="ci")
    script = str(raised.value).partition("Reproduce with:\n")[2]
    printed: list[object] = []
    exec(script, {"print": lambda *parts: printed.append(parts[1])})
    assert len(printed) == 2


def test_an_op_that_nobody_has_described() -> None:
    with pytest.raises(NotApplicableError, match="nobody has described"):
        check_lowering(trtplug.registry(), torch.ops.aten._grouped_mm.default, Law.EQUALS_EAGER)


def test_a_lowered_call() -> None:
    x, y = torch.tensor([1.0, -1.0, 0.0]), torch.tensor([-2.0, 0.0, -0.0])
    (result,) = run_lowered_op(trtplug.registry(), torch.ops.aten.atan2.default, (x, y))
    torch.testing.assert_close(result, torch.atan2(x, y))


def test_what_came_of_it() -> None:
    op = torch.ops.aten.as_strided.default
    found = check_lowering(trtplug.registry(), op, Law.EQUALS_EAGER, profile="ci")
    assert found.examples == sum(found.fates.values()) > 0
