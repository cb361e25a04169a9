"""Law 3: what the registry supports, the real TensorRT builds."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from trtplug.convert import convert
from trtplug.errors import BuildError, ConversionError
from trtplug.testing.equality import DynamicCall, draw_dynamic, dynamic_code
from trtplug.testing.errors import EnoughError
from trtplug.testing.graphs import Instance, allowed_results, batch_graph
from trtplug.testing.trial import Trial


def builds(trial: Trial) -> None:
    """Law 3: TensorRT builds what is supported: many static calls in one engine, then dynamic ones, one engine each."""
    instances: list[Instance] = []
    dynamic: list[DynamicCall] = []

    def static(data: st.DataObject) -> None:
        well = trial.well_formed(data)
        constants = trial.draw_constants(data, well.call)
        trial.graph(well, constants)
        instances.append((well.call, well.tensors, constants))

    def symbolic(data: st.DataObject) -> None:
        dynamic.append(draw_dynamic(trial, data))
        if len(dynamic) == trial.profile.builds - 1:
            raise EnoughError

    trial.explore(static, trial.profile.calls // 2)
    _build_together(trial, instances)
    if trial.converter.dynamic_shapes:
        trial.explore(symbolic, trial.profile.builds * 2)
    for call in dynamic:
        try:
            trial.convert(call.symbolic.graph, call.ranges).build()
        except (BuildError, ConversionError) as error:
            trial.fail(str(error), call.symbolic.call, call.tensors, call.constants, dynamic_code(call))


def _build_together(trial: Trial, instances: Sequence[Instance]) -> None:
    """Builds all calls in one engine; where that fails, each alone, the smallest first, to name the one at fault."""
    if why_unbuildable(trial, instances) is None:
        return
    for call, tensors, constants in sorted(instances, key=lambda i: sum(t.numel() for t in i[1].values())):
        why = why_unbuildable(trial, [(call, tensors, constants)])
        if why is not None:
            trial.fail(why, call, tensors, constants)
    why = why_unbuildable(trial, instances)
    call, tensors, constants = instances[-1]
    trial.fail(f"{len(instances)} calls together, of which this is the last: {why}", call, tensors, constants)


def why_unbuildable(trial: Trial, instances: Sequence[Instance]) -> str | None:
    """Why the engine of these calls, side by side, cannot be built; None where it can."""
    if not instances:
        return None
    module = batch_graph(instances, allowed_results(trial.converter))
    try:
        convert(module, lambda node: trial.converter, name="calls").build()
    except (BuildError, ConversionError) as error:
        return str(error)
    return None
