"""A call that broke a law, tried again: that another draw passes says nothing of it."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from hypothesis.errors import UnsatisfiedAssumption

from trtplug.testing.cases import LawCase
from trtplug.testing.drawn import DrawnCall, call_of
from trtplug.testing.laws import Law
from trtplug.testing.lowered import LoweredCase, LoweredTrial
from trtplug.testing.profiles import CI
from trtplug.testing.trial import EAGER_ERRORS, REPRODUCE, Trial, WellFormed, run_eager
from trtplug_registry import Domain, Registry

EQUALITIES = (Law.EQUALS_EAGER, Law.DYNAMIC)
"""The laws of which a failure's script shows all that is wrong."""


def script_in(failure: str) -> str:
    """The script that a failure gives; "" where it gives none."""
    return failure.partition(REPRODUCE)[2]


def with_script(failure: str, before: str) -> str:
    """A failure, with the script of one before where it has none itself."""
    return failure if script_in(failure) or not script_in(before) else f"{failure}\n\nafter:\n\n{before}"


def still_fails(case: LawCase | LoweredCase, failure: str) -> str:
    """The failure, where its call fails still; "" where it no longer does, is not claimed any more, or was not kept.

    Args:
        case: that failed.
        failure: how; of a law of equality it has the script, which is run.
    """
    code = script_in(failure)
    if not code or case.law not in EQUALITIES:
        return ""
    trial, domain = _trial(case)
    run = _Run(code.replace(trial.source, "registry"), case.registry)
    call, tensors = call_of(run.op, run.args, run.kwargs)
    defaults = {one.name: one.default_value for one in run.op._schema.arguments if one.has_default_value()}
    call = dataclasses.replace(call, arguments={**defaults, **call.arguments})  # of which the script is silent
    if not _claims(domain, call, tensors):
        return ""
    try:
        eager = run_eager(call, tensors)
        with _quiet():  # Hypothesis would rather hear assumptions from its own tests
            graph = trial.graph(WellFormed(call, tensors, eager), ())
    except (UnsatisfiedAssumption, *EAGER_ERRORS):
        return ""
    try:
        actual = run.results()
    except Exception:  # a converter or an executor may raise anything
        return failure
    found = trial.difference(actual, graph.expected(eager), call, tensors)
    return "" if found is None or trial.is_exact(found, actual, call, tensors) else failure


def _trial(case: LawCase | LoweredCase) -> tuple[Trial, Domain]:
    if isinstance(case, LawCase):
        return Trial(case.registry, case.converter, case.dtype, CI), case.converter.domain
    return LoweredTrial(case.registry, case.described, None, CI), case.described.domain


def _claims(domain: Domain, call: DrawnCall, tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether calls like this one, with such values, are drawn of a domain."""
    constants = call.replace_tensors(lambda place, facts: facts._replace(constant=True))  # which take whatever is taken
    specs = domain.tensors()
    given = [(getattr(specs.get(place.partition("[")[0]), "values", None), tensors[place]) for place in tensors]
    within = [bool(((values[0] <= tensor) & (tensor <= values[1])).all()) for values, tensor in given if values]
    return all(within) and domain.refusal(constants.arguments) is None


class _Run:
    """A script, up to where it runs what it has made; its last lines print what eager makes of the call, and we."""

    def __init__(self, code: str, registry: Registry) -> None:
        lines = code.strip().splitlines()
        self._names: dict[str, Any] = {"registry": registry}
        self._last = lines[-1]
        exec("\n".join(lines[:-2]), self._names)  # our own script, from our own file of results
        self.op, self.args, self.kwargs = (self._names[name] for name in ("op", "args", "kwargs"))

    def results(self) -> tuple[torch.Tensor, ...]:
        """What the call becomes."""
        printed: list[Any] = []
        with _quiet():
            exec(self._last, {**self._names, "print": lambda label, results: printed.append(results)})
        return tuple(printed[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
