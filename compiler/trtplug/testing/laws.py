"""The laws, by name, and the one function that holds a converter to them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

import torch

from trtplug.testing.building import builds
from trtplug.testing.drawing import dtypes_of
from trtplug.testing.equality import agrees_dynamically, equals_eager
from trtplug.testing.errors import NotApplicableError
from trtplug.testing.forcing import refused_with_need
from trtplug.testing.profiles import CI, PROFILES, Profile
from trtplug.testing.trial import Memories, Memory, Trial
from trtplug.testing.verdicts import order_does_not_matter, refused_with_reason, total
from trtplug_registry import Converter, Registry, unknown_name


class Law(enum.StrEnum):
    """What must hold of every converter."""

    EQUALS_EAGER = "equals-eager"
    TOTAL = "total"
    DYNAMIC = "dynamic"
    BUILDS = "builds"
    REASONS = "reasons"
    ORDER = "order"
    REFUSALS = "refusals"


CHECKS: Mapping[Law, Callable[[Trial], None]] = {
    Law.EQUALS_EAGER: equals_eager,
    Law.TOTAL: total,
    Law.DYNAMIC: agrees_dynamically,
    Law.BUILDS: builds,
    Law.REASONS: refused_with_reason,
    Law.ORDER: order_does_not_matter,
    Law.REFUSALS: refused_with_need,
}

BY_DTYPE = frozenset({Law.EQUALS_EAGER, Law.BUILDS, Law.DYNAMIC})
"""The laws that are tried for one dtype at a time."""


def check_converter(
    registry: Registry,
    converter: Converter | str,
    law: Law | str | None = None,
    *,
    dtype: torch.dtype | None = None,
    profile: Profile | str = CI,
    executor: str = "reference",
    source: str = "trtplug.registry()",
    memory: Memory | None = None,
) -> int:
    """Holds one converter to one law, or to all of them; returns how many examples were tried.

    Args:
        registry: that the converter belongs to.
        converter: one of the registry's, or the id or function name of one.
        law: which law; all where None, those that do not apply being left out.
        dtype: of the leading tensor; every dtype that the domain takes, one after the other, where None.
        profile: how much is tried.
        executor: runs the networks: ``"reference"``, or an executor's name.
        source: an expression for the registry, for the scripts in messages.
        memory: what one law leaves to the next of this converter and dtype.

    Raises:
        LawViolationError: the law does not hold; the message holds a script that shows it.
        UndescribedError: the domain does not describe well-formed calls.
        NotApplicableError: the one law that was asked for has nothing to say.
        UnknownNameError: an unknown converter, law or profile.
    """
    (found, *more) = _found(registry, converter)
    if more:
        raise unknown_name("single converter", str(converter), [c.id for c in (found, *more)])
    chosen = profile_named(profile)
    memories = Memories()
    tried = 0
    for one in list(Law) if law is None else [_law(law)]:
        dtypes = (dtype,) if dtype is not None or one not in BY_DTYPE else dtypes_of(found.domain)
        for each in dtypes:
            try:
                remembered = memories[each] if memory is None else memory
                before = remembered.examples
                CHECKS[one](Trial(registry, found, each, chosen, executor, str(one), source, remembered))
                tried += remembered.examples - before
            except NotApplicableError:
                if law is not None and len(dtypes) == 1:
                    raise
    return tried


def _found(registry: Registry, asked: Converter | str) -> list[Converter]:
    if isinstance(asked, str):
        found = [c for c in registry if asked in (c.id, c.name, c.target_name)]
    else:
        found = [c for c in registry if c is asked]
    if not found:
        name = asked if isinstance(asked, str) else asked.id
        raise unknown_name("converter of this registry", name, [c.id for c in registry])
    return found


def profile_named(profile: Profile | str) -> Profile:
    """The profile itself, or the one of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if isinstance(profile, Profile):
        return profile
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    return PROFILES[profile]


def _law(law: Law | str) -> Law:
    if law not in set(Law):
        raise unknown_name("law", str(law), [known.value for known in Law])
    return Law(law)
