"""A call that broke a law breaks it again until something is mended, or it is not claimed any more."""

from __future__ import annotations

import dataclasses

import planted
import pytest
import torch

import trtplug
from trtplug.testing import Law, LawCase, LawViolationError, LoweredCase, registry_of
from trtplug.testing.described import described
from trtplug.testing.replay import still_fails
from trtplug.testing.trial import REPRODUCE
from trtplug_registry import Converter, Domain, Plugin, Registry, Tensor

aten = torch.ops.aten


def law_case(converter: Converter, law: Law, **changed: object) -> LawCase:
    registry = registry_of([dataclasses.replace(converter, **changed)])
    return LawCase(registry, registry.converters[0], law, torch.float32)


def failure_of(case: LawCase | LoweredCase) -> str:
    with pytest.raises(LawViolationError) as error:
        case.check("ci")
    return str(error.value)


@pytest.mark.parametrize(
    ("wrong", "right", "law"),
    [
        (planted.alpha_dropped, planted.right_add, Law.EQUALS_EAGER),
        (planted.raises_on_alpha, planted.right_add, Law.EQUALS_EAGER),
        (planted.example_sizes_baked_in, planted.right_view, Law.DYNAMIC),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_of_converters(wrong: Converter, right: Converter, law: Law) -> None:
    case = law_case(wrong, law)
    failure = failure_of(case)
    assert still_fails(case, failure) == failure
    if right.target == wrong.target:
        assert not still_fails(law_case(wrong, law, function=right.function), failure)
    assert not still_fails(law_case(wrong, law, domain=refusing(wrong.domain)), failure)


def refusing(domain: Domain) -> Domain:
    """The same, of integers only."""
    narrow = {
        name: Tensor((torch.int32,)) if isinstance(spec, Tensor) else spec for name, spec in domain.arguments.items()
    }
    return Domain(*domain.relations, **narrow)


def test_what_has_no_script_is_not_tried_by_itself() -> None:
    case = law_case(planted.alpha_dropped, Law.EQUALS_EAGER)
    assert not still_fails(case, "the process ended with -11")
    assert not still_fails(dataclasses.replace(case, law=Law.BUILDS), failure_of(case))


def smaller(self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.fmin(self, other)


def test_of_decompositions() -> None:
    right = trtplug.registry()
    op = aten.fmax.default
    wrong = Registry([*right.plugins, Plugin("wrong", decompositions={op: smaller})])
    found = described(op, wrong)
    assert found is not None
    case = LoweredCase(wrong, found, Law.EQUALS_EAGER)
    failure = failure_of(case)
    assert still_fails(case, failure) == failure
    assert not still_fails(dataclasses.replace(case, registry=right), failure)
    values = Domain(*found.domain.relations, **{**found.domain.arguments, "self": Tensor(values=(1e9, 1e10))})
    assert not still_fails(dataclasses.replace(case, described=dataclasses.replace(found, domain=values)), failure)


def test_what_a_script_leaves_out_is_the_schemas_default() -> None:
    """Which of equal elements is named is open, of the axis that is meant where none is given."""
    registry = trtplug.registry()
    found = described(aten.kthvalue.default, registry)
    assert found is not None
    case = LoweredCase(registry, found, Law.EQUALS_EAGER)
    lines = [
        "import torch",
        "from trtplug.testing import run_lowered_op",
        "args = (torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]), 4)",
        "kwargs = {}",
        "op = torch.ops.aten.kthvalue.default",
        "print('eager:  ', op(*args, **kwargs))",
        "print('trtplug:', run_lowered_op(trtplug.registry(), op, args, kwargs))",
    ]
    assert not still_fails(case, REPRODUCE + "\n".join(lines))
