"""What judges a mutant: calls that the laws have drawn and found right of the converter as it is, tried again.

Drawing a call, asking eager and writing its graph take most of a law's time and do not depend on the converter's
code, so they are done once for all the mutants of a converter.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from trtplug.convert import convert
from trtplug.testing.building import why_unbuildable
from trtplug.testing.cases import can_be_dynamic
from trtplug.testing.drawing import dtypes_of, one_of_each_kind
from trtplug.testing.equality import agrees_dynamically, check_dynamic, check_instance, equals_eager
from trtplug.testing.errors import LawViolationError
from trtplug.testing.graphs import Instance, batch_graph
from trtplug.testing.laws import Law
from trtplug.testing.mutants import Mutant
from trtplug.testing.profiles import Profile
from trtplug.testing.symbolic import DynamicCall
from trtplug.testing.trial import Trial, single_thread
from trtplug_registry import Converter, Plugin, Registry

PROFILE = Profile("mutation", calls=24, values=2, dynamic_calls=8, points=1, builds=1, forced=1, shrink=False, run=10)
THOROUGH = Profile(
    "thorough", calls=200, values=2, dynamic_calls=60, points=1, builds=1, forced=1, shrink=False, run=10, seconds=20.0
)
"""For what survives the first: nearly as much as ``nightly`` tries."""

PATIENCE = 30
"""Seconds after which a mutant counts as killed: it hangs."""


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """One law on one converter and dtype, which holds as it is.

    Attributes:
        law: which.
        trial: of the converter as it is.
        check: tries the same calls in another trial, and raises where the law does not hold.
    """

    law: Law
    trial: Trial
    check: Callable[[Trial], None]

    def objection(self, changed: Converter) -> str:
        """Why the law does not hold of a changed converter, in a line; "" where it does."""
        try:
            with _patience(), single_thread():
                self.check(dataclasses.replace(self.trial, converter=changed))
        except Exception as error:  # whatever it is, it was noticed
            return f"{self.law}, {self.trial.dtype}: {type(error).__name__}"
        return ""


def judges_of(converter: Converter, profile: Profile | None = None) -> list[Judge]:
    """The laws that hold for a converter as it is; others cannot judge its mutants.

    Args:
        converter: to be mutated.
        profile: how much is drawn; `PROFILE` where None.
    """
    profile = profile or PROFILE
    plugin = Plugin(converter.plugin or "tested", built_in=converter.built_in, converters=(converter,))
    alone = Registry([plugin])  # what this TensorRT has not, the reference executor has
    (own,) = alone.converters
    found: list[Judge] = []
    building: list[Judge] = []
    dtypes = dtypes_of(converter.domain)
    for dtype in dtypes:
        trial = Trial(alone, own, dtype, profile, law=str(Law.EQUALS_EAGER))
        if _holds(equals_eager, trial) and trial.memory.calls:
            calls = trial.memory.calls
            found.append(Judge(Law.EQUALS_EAGER, trial, _again(calls)))
            if why_unbuildable(trial, calls) is None:
                building.append(Judge(Law.BUILDS, trial, _built(calls)))
    narrow = (torch.bfloat16,) if torch.bfloat16 in dtypes else ()  # which more converters widen than float16
    for dtype in dict.fromkeys((*one_of_each_kind(dtypes), *narrow)) if can_be_dynamic(converter) else ():
        trial = Trial(alone, own, dtype, profile, law=str(Law.DYNAMIC))
        if _holds(agrees_dynamically, trial) and trial.memory.dynamic:
            found.append(Judge(Law.DYNAMIC, trial, _again_dynamically(trial.memory.dynamic)))
    return found + building


def killed_by(mutant: Mutant, users: Sequence[Converter], judges: Callable[[Converter], Sequence[Judge]]) -> str:
    """What kills a mutant, in a line; "" where it survives.

    Args:
        mutant: to be killed.
        users: converters that use the changed function.
        judges: of a converter.
    """
    for converter in users:
        tried = judges(converter)  # drawn before the change
        with mutant.applied(converter) as changed:
            for judge in tried:
                why = judge.objection(changed)
                if why:
                    return f"{converter.id}: {why}"
    return ""


def _holds(law: Callable[[Trial], None], trial: Trial) -> bool:
    try:
        with _patience(10 * PATIENCE):
            law(trial)
    except Exception:  # violated, or not applicable
        return False
    return True


def _again(calls: Sequence[Instance]) -> Callable[[Trial], None]:
    def check(trial: Trial) -> None:
        for instance in calls:
            check_instance(trial, instance)

    return check


def _again_dynamically(calls: Sequence[DynamicCall]) -> Callable[[Trial], None]:
    def check(trial: Trial) -> None:
        for dynamic in calls:
            with _restored(dynamic.symbolic.env):
                check_dynamic(trial, dynamic)

    return check


def _built(calls: Sequence[Instance]) -> Callable[[Trial], None]:
    module = batch_graph([instance.graph for instance in calls])

    def check(trial: Trial) -> None:
        try:
            convert(module, lambda node: trial.converter, name="calls").build()
        except Exception as error:  # TensorRT, or the converter
            raise LawViolationError(str(error)) from error

    return check


@contextlib.contextmanager
def _restored(env: ShapeEnv) -> Iterator[None]:
    """What a wrong converter asks about sizes is forgotten afterwards."""
    before = {name: copy.copy(v) if isinstance(v, list | dict | set) else v for name, v in vars(env).items()}
    try:
        yield
    finally:
        later = env._version_counter + 1  # answers are cached by it
        vars(env).update(before)
        env._version_counter = later


@contextlib.contextmanager
def _patience(seconds: int = PATIENCE) -> Iterator[None]:
    def give_up(signum: int, frame: Any) -> None:
        raise TimeoutError(f"no answer after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
