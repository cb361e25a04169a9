"""Every law over every converter of a registry, as cases for a parametrized test."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import torch

from trtplug.errors import SettingsError
from trtplug.testing.drawing import dtypes_of, one_of_each_kind
from trtplug.testing.laws import BY_DTYPE, Law, check_converter, profile_named
from trtplug.testing.planning import takes_sizes
from trtplug.testing.profiles import Profile
from trtplug.testing.trial import Memories, Memory
from trtplug_registry import Converter, Reason, Registry


@dataclasses.dataclass(frozen=True, eq=False)
class LawCase:
    """One law on one converter, and one dtype where the law depends on it.

    Attributes:
        registry, converter, law, dtype: see `check_converter`.
        memory: shared by the cases of this converter and dtype, so that one law builds what another has drawn.
    """

    registry: Registry
    converter: Converter
    law: Law
    dtype: torch.dtype | None = None
    memory: Memory | None = None

    @property
    def id(self) -> str:
        """Such as ``converters:aten::add.Tensor-add-float32-equals-eager``."""
        dtype = f"-{str(self.dtype).removeprefix('torch.')}" if self.dtype is not None else ""
        return f"{self.converter.id}-{self.converter.name}{dtype}-{self.law}"

    def check(self, profile: Profile | str | None = None, executor: str = "reference") -> int:
        """See `check_converter`; the profile is that of the environment where None is given."""
        chosen = profile_of_environment() if profile is None else profile
        return check_converter(
            self.registry,
            self.converter,
            self.law,
            dtype=self.dtype,
            profile=chosen,
            executor=executor,
            memory=self.memory,
        )

    def __str__(self) -> str:
        return self.id


def law_cases(registry: Registry, profile: Profile | str | None = None) -> list[LawCase]:
    """Every law, over every converter of a registry that can be used here, and over its dtypes.

    It cannot where its op is not loaded, or where this TensorRT has not what it needs.
    The profile is that of the environment where None is given.

    For a parametrized test::

        @pytest.mark.parametrize("case", law_cases(trtplug.registry()), ids=str)
        def test_law(case):
            case.check()
    """
    chosen = profile_of_environment() if profile is None else profile_named(profile)
    usable = (c for c in registry if c.overloads() and cannot_be_used(registry, c) is None)
    return [case for converter in usable for case in _cases(registry, converter, chosen)]


def cannot_be_used(registry: Registry, converter: Converter) -> Reason | None:
    """Why a converter takes no call of any of its overloads here, or None."""
    found = [registry.unavailable(op, converter) for op in converter.overloads()]
    return found[0] if found and all(found) else None


def _cases(registry: Registry, converter: Converter, profile: Profile) -> Iterator[LawCase]:
    memories = Memories()
    for law in Law:
        if law is Law.DYNAMIC and not can_be_dynamic(converter):
            continue
        dtypes = dtypes_of(converter.domain) if law in BY_DTYPE else (None,)
        if law is Law.DYNAMIC and not profile.every_dtype:
            dtypes = one_of_each_kind(dtypes)
        for dtype in dtypes:
            yield LawCase(registry, converter, law, dtype, memories[dtype])


def can_be_dynamic(converter: Converter) -> bool:
    """Whether a call may have symbolic sizes: of its tensors, or as its arguments where it has none."""
    domain = converter.domain
    if not domain.tensors():
        return converter.dynamic_shapes and any(map(takes_sizes, domain.arguments.values()))
    return converter.dynamic_shapes and any(spec.dynamic for spec in domain.tensors().values())


def profile_of_environment() -> Profile:
    """``TRTPLUG_LAWS=ci`` (the default) or ``nightly``; ``TRTPLUG_LAWS_SECONDS=1.5`` bounds each law's drawing.

    What then fails is not made small, which may take minutes.

    Raises:
        UnknownNameError: there is no such profile.
        SettingsError: the seconds are no number.
    """
    chosen = profile_named(os.environ.get("TRTPLUG_LAWS", "ci"))
    seconds = os.environ.get("TRTPLUG_LAWS_SECONDS", "")
    try:
        return dataclasses.replace(chosen, seconds=float(seconds), shrink=False) if seconds else chosen
    except ValueError as error:
        raise SettingsError(f"TRTPLUG_LAWS_SECONDS={seconds}: must be a number of seconds, as 1.5") from error
