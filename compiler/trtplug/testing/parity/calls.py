"""Law 11 over the converters: calls drawn from their domains, on TensorRT, on the reference executor and in eager."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st

from trtplug.engine import CompiledEngine
from trtplug.network import Network
from trtplug.testing.cases import LawCase, law_cases
from trtplug.testing.compare import mismatch, undetermined
from trtplug.testing.drawing import values
from trtplug.testing.errors import NotApplicableError
from trtplug.testing.laws import Law
from trtplug.testing.parity.judge import Finding, judge
from trtplug.testing.profiles import Profile
from trtplug.testing.trial import EAGER_ERRORS, Trial, as_tuple, run_eager
from trtplug_registry import Executor, Registry, TrtplugError

GPU = Profile("gpu", calls=6, values=2, dynamic_calls=2, points=1, builds=1, forced=1, shrink=False)
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


def check_calls(case: LawCase, executor: Executor, device: str, profile: Profile = GPU) -> CallsFinding:
    """Draws calls of one converter and dtype, and compares all of them: one that differs does not end it."""
    trial = Trial(case.registry, case.converter, case.dtype, profile, executor.name, "law 11")
    wrong: list[CallFinding] = []
    compared = 0

    def check(data: st.DataObject) -> None:
        nonlocal compared
        well = trial.well_formed(data)
        constants = trial.draw_constants(data, well.call)
        graph = trial.graph(well, constants)
        try:
            both = _Both(trial.convert(graph), executor, device)
        except (TrtplugError, RuntimeError) as error:
            wrong.append(CallFinding(str(well.call), Finding("fails", " ".join(str(error).split()))))
            return
        tensors, eager = well.tensors, well.eager
        for round in range(profile.values):
            if round:
                drawn = data.draw(values(well.call), label="values")
                tensors = {**drawn, **{place: well.tensors[place] for place in constants}}
                try:
                    eager = run_eager(well.call, tensors)
                except EAGER_ERRORS:
                    continue
            compared += 1
            found = both.compare(trial, graph.inputs(tensors), graph.expected(eager), well.call, tensors)
            if found is not None:
                wrong.append(found)

    try:
        trial.explore(check, profile.calls)
    except NotApplicableError as error:
        return CallsFinding(compared, tuple(wrong), str(error))
    return CallsFinding(compared, tuple(wrong))


class _Both:
    """A call's network on both executors."""

    def __init__(self, network: Network, executor: Executor, device: str) -> None:
        self.reference, self.device = network.lift(), device
        kinds = {node.meta.get("kind", "") for node in self.reference.graph.nodes}
        self.product = bool(kinds & PRODUCTS)
        engine = CompiledEngine(
            network.name, network.inputs, network.outputs, network.build(), self.reference, network.num_layers
        )
        self.run = executor.prepare(engine)

    def compare(
        self, trial: Trial, inputs: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], call: Any, tensors: Any
    ) -> CallFinding | None:
        reference = self.reference(*inputs)
        shown = f"{call}"
        try:
            actual = [result.cpu() for result in self.run(*[value.to(self.device) for value in inputs])]
        except (TrtplugError, RuntimeError) as error:
            return CallFinding(shown, Finding("fails", " ".join(str(error).split())))
        tolerance = trial.converter.tolerance
        finding = judge(
            actual, reference, inputs, lambda moved: self.reference(*moved), product=self.product, tolerance=tolerance
        )
        if finding.verdict == "agrees":
            return None
        found = mismatch(actual, reference, tolerance)
        if found is not None and undetermined(found, actual, tensors, lambda moved: as_tuple(run_eager(call, moved))):
            return None
        eager = mismatch(actual, expected, tolerance)
        return CallFinding(shown, finding, "" if eager is None else str(eager))


PRODUCTS = frozenset(
    {"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM", "ATTENTION_INPUT", "ATTENTION_OUTPUT"}
)
"""Kinds of layers whose float32 operands a GPU may round to TF32."""
