"""The laws catch planted bugs, each by the right law, with a message that reproduces it; right converters pass."""

from __future__ import annotations

import dataclasses
import re

import planted
import pytest
import torch

import trtplug
from trtplug.testing import (
    Law,
    LawViolationError,
    NotApplicableError,
    UndescribedError,
    check_converter,
    law_cases,
    registry_of,
)
from trtplug_registry import Converter, Registry, UnknownNameError


def of(converter: Converter) -> tuple[Registry, Converter]:
    registry = registry_of([converter])
    return registry, registry.converters[0]


def caught(converter: Converter, law: Law, dtype: torch.dtype | None = torch.float32) -> str:
    """The message with which a law catches a converter."""
    registry, found = of(converter)
    with pytest.raises(LawViolationError) as error:
        check_converter(registry, found, law, dtype=dtype)
    return str(error.value)


def reproduced(message: str, registry: Registry) -> str:
    """What the script in a message prints, run against this registry."""
    code = message[message.index("import torch\n") :].replace("trtplug.registry()", "registry")
    printed: list[str] = []
    exec(
        compile(code, "script", "exec"),
        {"registry": registry, "print": lambda *a: printed.append(" ".join(map(str, a)))},
    )
    return "\n".join(printed)


@pytest.mark.parametrize("converter", [planted.right_add, planted.right_sum, planted.right_exp, planted.right_view])
@pytest.mark.parametrize("law", [law for law in Law if law is not Law.REFUSALS])
def test_right_converters_keep_every_law(converter: Converter, law: Law) -> None:
    registry, found = of(converter)
    check_converter(registry, found, law, dtype=torch.float32)


def test_a_restriction_that_tensorrt_needs_is_a_right_refusal() -> None:
    registry, found = of(planted.right_exp)
    check_converter(registry, found, Law.REFUSALS)


@pytest.mark.parametrize("dtype", planted.NUMBERS)
def test_a_dropped_alpha_is_caught_for_every_dtype(dtype: torch.dtype) -> None:
    message = caught(planted.alpha_dropped, Law.EQUALS_EAGER, dtype)
    assert "the result differs in" in message
    assert "alpha_dropped" in message
    assert str(dtype).removeprefix("torch.") in message


def test_a_message_alone_is_enough_to_reproduce() -> None:
    message = caught(planted.alpha_dropped, Law.EQUALS_EAGER)
    shown = reproduced(message, registry_of([planted.alpha_dropped]))
    eager, ours = re.fullmatch(r"eager:   (.*)\ntrtplug: \((.*),\)", shown, re.DOTALL).groups()  # type: ignore[union-attr]
    assert eager != ours
    assert eager.startswith("tensor")


def test_a_dynamic_message_reproduces_too() -> None:
    message = caught(planted.example_sizes_baked_in, Law.DYNAMIC)
    try:
        shown = reproduced(message, registry_of([planted.example_sizes_baked_in]))
    except Exception as error:
        shown = str(error)
    assert shown


def test_sizes_of_an_op_without_tensors_are_symbolic_too() -> None:
    (own,) = [c for c in trtplug.registry() if c.target_name == "aten::arange"]

    def baked(ctx, end, *, dtype=None, layout=None, device=None, pin_memory=None):  # type: ignore[no-untyped-def]  # a toy
        (result,) = ctx.outputs
        return ctx.constant(torch.arange(end if isinstance(end, int | float) else 7, dtype=result.dtype))

    planted_one = dataclasses.replace(own, function=baked)
    message = caught(planted_one, Law.DYNAMIC, None)
    assert "sizes={'end': SizeOf(" in message
    assert "tensor([0, 1, 2, 3, 4, 5, 6]" in reproduced(message, registry_of([planted_one]))


def test_a_shrunk_call_is_small() -> None:
    message = caught(planted.alpha_dropped, Law.EQUALS_EAGER)
    assert "self=float32[]" in message or "self=float32[1]" in message


@pytest.mark.parametrize(
    ("converter", "law", "dtype", "words"),
    [
        (planted.negative_axis_misread, Law.EQUALS_EAGER, torch.float32, "dim=[-"),
        (planted.no_axes_means_none, Law.EQUALS_EAGER, torch.float32, "dim=[]"),
        (planted.dtype_lie, Law.EQUALS_EAGER, torch.int32, "the node promises int64"),
        (planted.raises_on_alpha, Law.EQUALS_EAGER, torch.float32, "raised KeyError: 'negative'"),
        (planted.missing_restriction, Law.EQUALS_EAGER, torch.int32, "TensorRT"),
        (planted.does_not_build, Law.BUILDS, torch.bfloat16, "TensorRT cannot build"),
        (planted.example_sizes_baked_in, Law.DYNAMIC, torch.float32, "symbolic="),
        (planted.leaves_a_guard, Law.DYNAMIC, torch.float32, "leaves the guard"),
        (planted.needlessly_narrow, Law.REFUSALS, None, "refuses without need (dtype, self: float16)"),
        (planted.needlessly_not_empty, Law.REFUSALS, None, "refuses without need (zero-size, self"),
        (planted.needlessly_static, Law.REFUSALS, None, "refuses without need (dynamic-shape, self"),
        (planted.asking_raises, Law.TOTAL, None, "its domain raised ZeroDivisionError"),
    ],
    ids=lambda value: value.name if isinstance(value, Converter) else None,
)
def test_planted_bugs_are_caught(converter: Converter, law: Law, dtype: torch.dtype | None, words: str) -> None:
    assert words in caught(converter, law, dtype)


def test_a_domain_that_does_not_describe_its_calls_is_an_error_that_names_the_converter() -> None:
    registry, found = of(planted.undescribed)
    with pytest.raises(UndescribedError, match=r"aten::view \(undescribed\).*eager refuses \d+ of \d+ calls"):
        check_converter(registry, found, Law.EQUALS_EAGER, dtype=torch.float32)


def test_the_same_run_draws_the_same() -> None:
    assert caught(planted.alpha_dropped, Law.EQUALS_EAGER) == caught(planted.alpha_dropped, Law.EQUALS_EAGER)


def test_one_case_per_converter_law_and_dtype() -> None:
    cases = law_cases(registry_of([planted.right_exp, planted.needlessly_static]))
    ids = [case.id for case in cases]
    assert len(set(ids)) == len(ids)
    assert "tested:aten::exp-right_exp-bfloat16-equals-eager" in ids
    assert "tested:aten::exp-right_exp-float32-dynamic" in ids
    assert "tested:aten::exp-right_exp-bfloat16-dynamic" not in ids
    nightly = [case.id for case in law_cases(registry_of([planted.right_exp]), "nightly")]
    assert "tested:aten::exp-right_exp-bfloat16-dynamic" in nightly
    assert "tested:aten::exp-needlessly_static-bfloat16-dynamic" not in ids


def test_a_law_that_has_nothing_to_say_says_so() -> None:
    registry, found = of(planted.needlessly_static)
    with pytest.raises(NotApplicableError, match="claims no dynamic shapes"):
        check_converter(registry, found, Law.DYNAMIC, dtype=torch.float32)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"converter": "nothing"}, "unknown converter of this registry 'nothing'"),
        ({"law": "equal-eager"}, "did you mean 'equals-eager'"),
        ({"profile": "cl"}, "did you mean 'ci'"),
    ],
)
def test_unknown_names_suggest_the_right_ones(arguments: dict[str, str], words: str) -> None:
    registry, _ = of(planted.right_exp)
    with pytest.raises(UnknownNameError, match=words):
        check_converter(registry, **{"converter": "right_exp", **arguments})  # type: ignore[arg-type]
