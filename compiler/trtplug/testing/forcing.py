"""A refusal is a claim too: every restriction is forced, and TensorRT must refuse, or the result must differ."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from hypothesis import strategies as st

from trtplug.errors import BuildError, ConversionError
from trtplug.testing.building import why_unbuildable
from trtplug.testing.drawing import plain_values
from trtplug.testing.drawn import DrawnCall
from trtplug.testing.equality import call_at, draw_dynamic
from trtplug.testing.errors import EnoughError, LawViolationError, NotApplicableError, UndescribedError
from trtplug.testing.graphs import CallGraph, Instance
from trtplug.testing.restrictions import Forbidden, forbidden
from trtplug.testing.script import script
from trtplug.testing.symbolic import DynamicCall, corner_points
from trtplug.testing.trial import EAGER_ERRORS, Run, Tally, Trial, run_eager
from trtplug.testing.verdicts import check_reason
from trtplug_registry import ReasonCode


@dataclasses.dataclass
class Evidence:
    """What forcing one restriction has shown.

    Attributes:
        restriction: that was forced.
        shown: how TensorRT refused, or the result differed; "" where it did not.
        agreed: calls that converted and agreed with eager although they are forbidden.
    """

    restriction: Forbidden
    shown: str = ""
    agreed: list[Instance] = dataclasses.field(default_factory=list)


def refused_with_need(trial: Trial) -> None:
    """The law of refusals: past every restriction, TensorRT refuses or the result differs from eager's.

    Not applicable to a restriction where eager takes none of the calls that it forbids.
    """
    enough = (
        trial.profile.forced if math.isfinite(trial.profile.seconds) else 1
    )  # where time was short, little is shown
    needless = [evidence for evidence in gather(trial) if len(evidence.agreed) >= enough and not evidence.shown]
    if needless:
        raise LawViolationError("\n\n".join(_say(trial, evidence) for evidence in needless))


def gather(trial: Trial) -> list[Evidence]:
    """Forces every restriction of a converter, and says what that has shown."""
    found = []
    for restriction in forbidden(trial.converter):
        evidence = Evidence(restriction)
        found.append(evidence)
        if str(restriction) in trial.memory.in_vain:
            continue
        own = dataclasses.replace(trial, tally=Tally())
        try:
            if restriction.code is ReasonCode.DYNAMIC_SHAPE:
                _force_symbolic(own, evidence)
            else:
                _force_static(own, evidence)
        except (UndescribedError, NotApplicableError):
            pass  # eager refuses most of what is forbidden, or nothing can be drawn: there is nothing to show
        if evidence.agreed and not evidence.shown and restriction.code is not ReasonCode.DYNAMIC_SHAPE:
            evidence.shown = why_unbuildable(trial, evidence.agreed) or ""
    return found


def _force_static(trial: Trial, evidence: Evidence) -> None:
    restriction = evidence.restriction

    def check(data: st.DataObject) -> None:
        well = trial.well_formed(data, domain=restriction.domain, when=restriction.violated_by)
        constants = tuple(place for place, facts in well.call.tensors.items() if facts.constant)
        graph = trial.graph(well, constants)
        evidence.shown = _difference(trial, graph, well.call, well.tensors, well.eager)
        if not evidence.shown:
            evidence.agreed.append(Instance(well.call, well.tensors, constants, graph))
        if evidence.shown or len(evidence.agreed) == trial.profile.forced:
            raise EnoughError

    trial.explore(check, 4 * trial.profile.forced)


def _difference(
    trial: Trial, graph: CallGraph, call: DrawnCall, tensors: Mapping[str, torch.Tensor], eager: object
) -> str:
    """How a forced call is refused, or differs from eager; "" where it agrees."""
    try:
        actual = trial.run_of(trial.convert(graph))(*graph.inputs(tensors))
    except Exception as error:  # TensorRT, the converter or the executor
        return f"{type(error).__name__}: {error}"
    found = trial.difference(actual, graph.expected(eager), call, tensors)
    return "" if found is None else str(found)


def _force_symbolic(trial: Trial, evidence: Evidence) -> None:
    restriction = evidence.restriction

    def check(data: st.DataObject) -> None:
        dynamic = draw_dynamic(trial, data, domain=restriction.domain, must=restriction.arguments[0])
        check_reason(trial, dynamic.symbolic.graph.node, restriction, dynamic.symbolic.call)
        evidence.shown = _symbolic_difference(trial, dynamic)
        if not evidence.shown:
            symbolic = dynamic.symbolic
            evidence.agreed.append(Instance(symbolic.call, dynamic.tensors, dynamic.constants, symbolic.graph))
        if evidence.shown or len(evidence.agreed) == max(2, trial.profile.forced // 4):
            raise EnoughError

    trial.explore(check, 2 * trial.profile.forced)


def _symbolic_difference(trial: Trial, dynamic: DynamicCall) -> str:
    symbolic = dynamic.symbolic
    fixed = {place: dynamic.tensors[place] for place in dynamic.constants}
    try:
        network = trial.convert(symbolic.graph, dynamic.ranges)
        run = trial.run_of(network)
        for point in corner_points(dynamic.ranges):
            call = call_at(symbolic, point, fixed)
            if call is not None:
                found = _difference_at(trial, dynamic, run, call, fixed)
                if found:
                    return f"at {dict(point)}: {found}"
        network.build()
    except (ConversionError, BuildError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _difference_at(
    trial: Trial, dynamic: DynamicCall, run: Run, call: DrawnCall, fixed: Mapping[str, torch.Tensor]
) -> str:
    tensors = {**plain_values(call), **fixed}
    graph = dynamic.symbolic.graph
    try:
        eager = run_eager(call, tensors)
    except EAGER_ERRORS:
        return ""
    try:
        actual = run(*graph.inputs(tensors))
    except Exception as error:  # the executor may raise anything
        return f"{type(error).__name__}: {error}"
    found = trial.difference(actual, graph.expected(eager), call, tensors)
    return "" if found is None else str(found)


def _say(trial: Trial, evidence: Evidence) -> str:
    one = evidence.agreed[0]
    code = script(one.call, one.tensors, one.constants, converter=trial.converter.id, registry=trial.source)
    return (
        f"{trial.name} refuses without need ({evidence.restriction}): {len(evidence.agreed)} forbidden calls were"
        " forced past its domain; TensorRT built them all, and their results agree with eager's. Lift the restriction,"
        f" or find what it is for. One of them:\n{one.call}\n\n{code}\n"
    )
