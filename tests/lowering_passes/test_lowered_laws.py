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
from trtplug.testing.described import described
from trtplug.testing.descriptions import UNDESCRIBED
from trtplug_registry import Plugin, Registry, qualified_name


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
        check_lowering(trtplug.registry(), torch.ops.aten.bincount.default, Law.EQUALS_EAGER)
    with pytest.raises(NotApplicableError, match="no kernel for it on a CPU"):
        check_lowering(trtplug.registry(), torch.ops.aten.addmm.dtype, Law.EQUALS_EAGER)


def test_what_is_decomposed_is_described_or_says_why_not() -> None:
    registry = trtplug.registry()
    named = {op for op in registry.decompositions if "Dimname" in str(op._schema)}  # axes with names, until torch 2.11
    ops = registry.decompositions.keys() - named
    assert {qualified_name(op) for op in ops if described(op, registry) is None} == set(UNDESCRIBED)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_products_in_another_dtype(batch: tuple[int, ...]) -> None:
    """Eager has them on a GPU only."""
    left, right = torch.randn(*batch, 2, 4).half(), torch.randn(*batch, 4, 3).half()
    op = torch.ops.aten.bmm.dtype if batch else torch.ops.aten.mm.dtype
    (result,) = run_lowered_op(trtplug.registry(), op, (left, right, torch.float32))
    torch.testing.assert_close(result, left.float() @ right.float())
    if not batch and torch.__version__ >= (2, 12):  # 2.11 has no metadata of it
        args = (torch.ones(2, 3).half(), left, right, torch.float32)
        (result,) = run_lowered_op(trtplug.registry(), torch.ops.aten.addmm.dtype, args, {"beta": 2, "alpha": 0.5})
        torch.testing.assert_close(result, 2 + (left.float() @ right.float()) / 2)


def test_a_lowered_call() -> None:
    x, y = torch.tensor([1.0, -1.0, 0.0]), torch.tensor([-2.0, 0.0, -0.0])
    (result,) = run_lowered_op(trtplug.registry(), torch.ops.aten.atan2.default, (x, y))
    torch.testing.assert_close(result, torch.atan2(x, y))


def test_what_came_of_it() -> None:
    op = torch.ops.aten.as_strided.default
    found = check_lowering(trtplug.registry(), op, Law.EQUALS_EAGER, profile="ci")
    assert found.examples == sum(found.fates.values()) > 0
