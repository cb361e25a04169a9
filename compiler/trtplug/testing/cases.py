"""Every law over every converter of a registry, as cases for a parametrized test."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import torch

from trtplug.testing.drawing import dtypes_of
from trtplug.testing.laws import BY_DTYPE, Law, check_converter
from trtplug.testing.profiles import PROFILES, Profile
from trtplug_registry import Converter, Registry, unknown_name


@dataclasses.dataclass(frozen=True, eq=False)
class LawCase:
    """One law on one converter, and one dtype where the law depends on it."""

    registry: Registry
    converter: Converter
    law: Law
    dtype: torch.dtype | None = None

    @property
    def id(self) -> str:
        """Such as ``converters:aten::add.Tensor-add-float32-equals-eager``."""
        dtype = f"-{str(self.dtype).removeprefix('torch.')}" if self.dtype is not None else ""
        return f"{self.converter.id}-{self.converter.name}{dtype}-{self.law}"

    def check(self, profile: Profile | str | None = None) -> None:
        """See `check_converter`; the profile is that of the environment where None is given."""
        chosen = profile_of_environment() if profile is None else profile
        check_converter(self.registry, self.converter, self.law, dtype=self.dtype, profile=chosen)

    def __str__(self) -> str:
        return self.id


def law_cases(registry: Registry) -> list[LawCase]:
    """Every law, over every converter of a registry whose op is loaded, and over its dtypes.

    For a parametrized test::

        @pytest.mark.parametrize("case", law_cases(trtplug.registry()), ids=str)
        def test_law(case):
            case.check()
    """
    return [case for converter in registry if converter.overloads() for case in _cases(registry, converter)]


def _cases(registry: Registry, converter: Converter) -> Iterator[LawCase]:
    for law in Law:
        if law is Law.DYNAMIC and not can_be_dynamic(converter):
            continue
        for dtype in dtypes_of(converter.domain) if law in BY_DTYPE else (None,):
            yield LawCase(registry, converter, law, dtype)


def can_be_dynamic(converter: Converter) -> bool:
    return converter.dynamic_shapes and any(spec.dynamic for spec in converter.domain.tensors().values())


def profile_of_environment() -> Profile:
    """``TRTPLUG_LAWS=ci`` (the default) or ``nightly``.

    Raises:
        UnknownNameError: there is no such profile.
    """
    name = os.environ.get("TRTPLUG_LAWS", "ci")
    if name not in PROFILES:
        raise unknown_name("profile in TRTPLUG_LAWS", name, PROFILES)
    return PROFILES[name]
