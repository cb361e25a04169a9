"""Law 11 over the converters: calls drawn from their domains, on TensorRT, on the reference executor and in eager."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from hypothesis import strategies as st

from trtplug.engine import CompiledEngine
from trtplug.network import Network
from trtplug.testing.cases import LawCase, law_cases
from trtplug.testing.compare import mismatch, undetermined
from trtplug.testing.drawing import values
from trtplug.testing.drawn import DrawnCall
from trtplug.testing.equality import draw_dynamic, draw_points
from trtplug.testing.errors import NotApplicableError
from trtplug.testing.graphs import CallGraph
from trtplug.testing.laws import Law
from trtplug.testing.parity.judge import Finding, allowance, judge
from trtplug.testing.parity.rounding import moved
from trtplug.testing.profiles import Profile
from trtplug.testing.trial import EAGER_ERRORS, Trial, as_tuple, run_eager
from trtplug.tf32 import PROCESS
from trtplug_registry import Executor, Registry, Tolerance, TrtplugError

GPU = Profile("gpu", calls=6, values=2, dynamic_calls=2, points=1, builds=1, forced=1, seeded=True, shrink=False)
"""Few calls, since each is an engine of its own."""


@dataclasses.dataclass(frozen=True)
class CallFinding:
    """One call that does not agree.

    Attributes:
        call: in words.
        finding: TensorRT against the reference executor.
        eager: how TensorRT differs from eager; "" where it does not.
    """

    call: str
    finding: Finding
    eager: str = ""


@dataclasses.dataclass(frozen=True)
class CallsFinding:
    """What became of the calls of one converter and dtype: how many were compared, and those that do not agree."""

    compared: int
    wrong: tuple[CallFinding, ...]
    why_none: str = ""


@functools.cache
def call_cases(registry: Registry) -> dict[str, LawCase]:
    """The cases of law 1, by id."""
    return {case.id: case for case in law_cases(registry, GPU) if case.law is Law.EQUALS_EAGER}


@functools.cache
def dynamic_cases(registry: Registry) -> dict[str, LawCase]:
    """The cases of law 5, by id."""
    return {case.id: case for case in law_cases(registry, GPU) if case.law is Law.DYNAMIC}


def check_calls(case: LawCase, executor: Executor, device: str, profile: Profile = GPU) -> CallsFinding:
    """Draws calls of one converter and dtype, and compares all of them: one that differs does not end it."""
    return static_calls(Comparing(_trial(case, executor, profile), executor, device))


def check_dynamic(case: LawCase, executor: Executor, device: str, profile: Profile = GPU) -> CallsFinding:
    """Draws calls with symbolic sizes, and compares them at min, opt, max and random sizes between, from one build."""
    return dynamic_calls(Comparing(_trial(case, executor, profile), executor, device))


def static_calls(comparing: Comparing) -> CallsFinding:
    """As law 1 draws them."""
    trial = comparing.trial

    def check(data: st.DataObject) -> None:
        well = trial.well_formed(data)
        constants = trial.draw_constants(data, well.call)
        graph = trial.graph(well, constants)
        both = comparing.prepare(well.call, graph)
        if both is None:
            return
        tensors, eager = well.tensors, well.eager
        for round in range(trial.profile.values):
            if round:
                drawn = data.draw(values(well.call), label="values")
                tensors = {**drawn, **{place: well.tensors[place] for place in constants}}
                try:
                    eager = run_eager(well.call, tensors)
                except EAGER_ERRORS:
                    continue
            comparing.compare(both, graph, well.call, tensors, eager)

    return comparing.explore(check, trial.profile.calls)


def dynamic_calls(comparing: Comparing) -> CallsFinding:
    """As law 5 draws them."""
    trial = comparing.trial

    def check(data: st.DataObject) -> None:
        dynamic = draw_dynamic(trial, data)
        both = comparing.prepare(dynamic.symbolic.call, dynamic.symbolic.graph, dynamic.ranges)
        if both is None:
            return
        for call, tensors, eager in draw_points(trial, data, dynamic):
            comparing.compare(both, dynamic.symbolic.graph, call, tensors, eager)

    return comparing.explore(check, trial.profile.dynamic_calls)


def _trial(case: LawCase, executor: Executor, profile: Profile) -> Trial:
    return Trial(case.registry, case.converter, case.dtype, profile, executor.name, "law 11")


class Comparing:
    """Compares the calls of one converter and dtype, and keeps those that do not agree."""

    def __init__(self, trial: Trial, executor: Executor, device: str) -> None:
        self.trial, self.executor, self.device = trial, executor, device
        self.wrong: list[CallFinding] = []
        self.compared = 0

    def explore(self, check: Callable[[st.DataObject], None], examples: int) -> CallsFinding:
        why = ""
        try:
            self.trial.explore(check, examples)
        except NotApplicableError as error:
            why = str(error)
        return CallsFinding(self.compared, tuple(self.wrong), why)

    def prepare(self, call: DrawnCall, graph: CallGraph, ranges: Any = None) -> Any:
        """The call's network on both executors; None where one of them fails, which is kept."""
        try:
            return Both(self.trial.convert(graph, ranges), self.executor, self.device, self.trial.converter.tolerance)
        except (TrtplugError, RuntimeError) as error:
            self.wrong.append(CallFinding(str(call), failed(error)))
            return None

    def compare(
        self, both: Any, graph: CallGraph, call: DrawnCall, tensors: Mapping[str, torch.Tensor], eager: Any
    ) -> None:
        """Runs a call and compares it; keeps it where it does not agree."""
        self.compared += 1
        try:
            finding, actual, reference = both.judge(graph.inputs(tensors))
        except (TrtplugError, RuntimeError) as error:
            self.wrong.append(CallFinding(str(call), failed(error)))
            return
        if finding.verdict == "agrees":
            return
        tolerance = self.trial.converter.tolerance
        found = mismatch(actual, reference, tolerance)
        if found is not None and undetermined(found, actual, tensors, lambda others: as_tuple(run_eager(call, others))):
            return
        far = mismatch(actual, graph.expected(eager), tolerance)
        self.wrong.append(CallFinding(str(call), finding, "" if far is None else str(far)))


def failed(error: Exception) -> Finding:
    """Of a network that cannot be run, or not in one of the executors."""
    return Finding("fails", " ".join(str(error).split()))


class Both:
    """A network on both executors."""

    def __init__(
        self,
        network: Network,
        executor: Executor,
        device: str,
        tolerance: Mapping[torch.dtype, Tolerance] | None = None,
    ) -> None:
        self.reference, self.device, self.tolerance = network.lift(), device, tolerance
        engine = CompiledEngine(
            network.name, network.inputs, network.outputs, network.build(), self.reference, network.num_layers
        )
        self._prepared = executor.prepare(engine)

    def judge(self, inputs: Sequence[torch.Tensor | int]) -> tuple[Finding, list[torch.Tensor], Sequence[torch.Tensor]]:
        """What became of these inputs; the results of the executor under test and the reference executor's.

        Args:
            inputs: tensors on the CPU, and sizes as ints: TensorRT reads those on the host.

        Raises:
            TrtplugError, RuntimeError: the executor under test fails.
        """
        here = [value if isinstance(value, torch.Tensor) else torch.tensor(value) for value in inputs]
        there = [value.to(self.device) if isinstance(value, torch.Tensor) else value for value in inputs]
        reference = self.reference(*here)
        actual = [result.cpu() for result in self._prepared(*there)]
        allowed = allowance(self.reference, here, reference, tf32=PROCESS.rounds, tolerance=self.tolerance)
        found = judge(actual, reference, here, lambda by: moved(self.reference, here, by), allowed)
        return found, actual, reference
