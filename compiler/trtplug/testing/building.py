"""Law 3: what the registry supports, the real TensorRT builds."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from trtplug.convert import convert
from trtplug.errors import BuildError, ConversionError
from trtplug.testing.drawing import dtypes_of, one_of_each_kind
from trtplug.testing.equality import draw_dynamic, draw_instance, dynamic_code
from trtplug.testing.errors import EnoughError
from trtplug.testing.graphs import Instance, batch_graph
from trtplug.testing.symbolic import DynamicCall
from trtplug.testing.trial import Memory, Trial


def builds(trial: Trial) -> None:
    """Law 3: TensorRT builds what is supported: many static calls in one engine, then dynamic ones, one engine each.

    They are those that laws 1 and 5 have found right, where these were tried before. Where there are few of each dtype,
    all of them are built in one engine, since most of what a build takes is its own.
    """
    if not trial.memory.built and not (trial.memory.calls is not None and _built_with_siblings(trial)):
        most = trial.profile.calls // 2
        _build_together(trial, _drawn(trial, most) if trial.memory.calls is None else trial.memory.calls[::2])
    memory, trial.memory.calls, trial.memory.dynamic = Memory(trial.memory.calls, trial.memory.dynamic), None, None
    if not trial.converter.dynamic_shapes or not (trial.profile.every_dtype or _stands_for_others(trial)):
        return
    most = trial.profile.builds - 1
    dynamic = _drawn_dynamic(trial, most) if memory.dynamic is None else memory.dynamic[:most]
    for call in dynamic:
        try:
            trial.convert(call.symbolic.graph, call.ranges).build()
        except (BuildError, ConversionError) as error:
            trial.fail(str(error), call.symbolic.call, call.tensors, call.constants, dynamic_code(call))


def _built_with_siblings(trial: Trial) -> bool:
    """Whether TensorRT builds what was drawn of every dtype in one engine; where it does not, each has its own."""
    drawn = [memory for memory in trial.memory.siblings.values() if memory.calls is not None and not memory.built]
    instances = [call for memory in drawn for call in (memory.calls or ())[::2]]
    if len(drawn) < 2 or trial.profile.every_dtype or why_unbuildable(trial, instances) is not None:
        return False
    for memory in drawn:
        memory.built = True
    return True


def _stands_for_others(trial: Trial) -> bool:
    return trial.dtype is None or trial.dtype in one_of_each_kind(dtypes_of(trial.converter.domain))


def _drawn(trial: Trial, most: int) -> list[Instance]:
    found: list[Instance] = []
    trial.explore(lambda data: found.append(draw_instance(trial, data)), most)
    return found


def _drawn_dynamic(trial: Trial, most: int) -> list[DynamicCall]:
    found: list[DynamicCall] = []

    def check(data: st.DataObject) -> None:
        found.append(draw_dynamic(trial, data))
        if len(found) == most:
            raise EnoughError

    trial.explore(check, 2 * (most + 1))
    return found


def _build_together(trial: Trial, instances: Sequence[Instance]) -> None:
    """Builds all calls in one engine; where that fails, each alone, the smallest first, to name the one at fault."""
    if why_unbuildable(trial, instances) is None:
        return
    for one in sorted(instances, key=lambda i: sum(t.numel() for t in i.tensors.values())):
        why = why_unbuildable(trial, [one])
        if why is not None:
            trial.fail(why, one.call, one.tensors, one.constants)
    why, one = why_unbuildable(trial, instances), instances[-1]
    what = f"{len(instances)} calls together, of which this is the last: {why}"
    trial.fail(what, one.call, one.tensors, one.constants)


def why_unbuildable(trial: Trial, instances: Sequence[Instance]) -> str | None:
    """Why the engine of these calls, side by side, cannot be built; None where it can."""
    if not instances:
        return None
    module = batch_graph([instance.graph for instance in instances])
    try:
        convert(module, lambda node: trial.converter, name="calls").build()
    except (BuildError, ConversionError) as error:
        return str(error)
    return None
