"""Laws 1 and 5: what is supported equals eager, at one size and at every size of a range."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from hypothesis import reject
from hypothesis import strategies as st

from trtplug.ranges import Range
from trtplug.reference.latitude import loses_nan, may_lose_nan
from trtplug.testing.arguments import Bounds
from trtplug.testing.drawing import plain_values, values
from trtplug.testing.drawn import DrawnCall, static_shape
from trtplug.testing.errors import NotApplicableError
from trtplug.testing.graphs import Instance, allowed_results
from trtplug.testing.planning import draw_plan
from trtplug.testing.symbolic import (
    CallAt,
    DynamicCall,
    Point,
    SymbolicCall,
    corner_points,
    evaluate,
    fitting_ranges,
    symbolic_call,
)
from trtplug.testing.trial import EAGER_ERRORS, Trial, WellFormed, run_eager
from trtplug_registry import Domain, TensorFacts, TrtplugError


def equals_eager(trial: Trial) -> None:
    """Law 1: a supported call, converted and run, equals eager: dtype, then shape, then values."""

    found: list[Instance] = []

    def check(data: st.DataObject) -> None:
        instance = draw_instance(trial, data)
        check_instance(trial, instance)
        found.append(instance)

    trial.explore(check, trial.profile.calls)
    trial.memory.calls = found


def draw_instance(trial: Trial, data: st.DataObject) -> Instance:
    """Draws a supported call and several values for it."""
    well = trial.well_formed(data)
    constants = trial.draw_constants(data, well.call)
    graph = trial.graph(well, constants)
    rounds = [(well.tensors, well.eager)]
    for _ in range(trial.profile.values - 1):
        drawn = data.draw(values(well.call), label="values")
        tensors = {**drawn, **{place: well.tensors[place] for place in constants}}
        with contextlib.suppress(*EAGER_ERRORS):
            rounds.append((tensors, run_eager(well.call, tensors)))
    return Instance(well.call, well.tensors, constants, graph, tuple(rounds))


def check_instance(trial: Trial, instance: Instance) -> None:
    """Holds one call to law 1."""
    call, constants, graph = instance.call, instance.constants, instance.graph
    try:
        run = trial.run_of(trial.convert(graph))
    except TrtplugError as error:
        trial.fail(f"{type(error).__name__}: {error}", call, instance.tensors, constants)
    _says_what_becomes_of_nan(trial, run, instance)
    for tensors, eager in instance.rounds:
        compare(trial, run, graph.inputs(tensors), graph.expected(eager), call, tensors, constants)


def _says_what_becomes_of_nan(trial: Trial, run: Any, instance: Instance) -> None:
    """A converter whose layers may lose NaN says so."""
    if trial.executor != "reference" or not trial.converter.keeps_nan or not may_lose_nan(run):
        return
    for tensors, _ in instance.rounds:
        if loses_nan(run, with_nan(instance, tensors)):
            what = "its layers may lose NaN on a GPU, which the converter does not say: keeps_nan=False"
            trial.fail(what, instance.call, tensors, instance.constants)


def with_nan(instance: Instance, tensors: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """A call's inputs, of floats that may be anything every second element NaN."""
    inputs = []
    for place, tensor in zip(instance.graph.places, instance.graph.inputs(tensors), strict=True):
        if tensor.is_floating_point() and instance.call.tensors[place].values is None:
            tensor = tensor.clone(memory_format=torch.contiguous_format)
            tensor.view(-1)[::2] = torch.nan
        inputs.append(tensor)
    return inputs


def compare(
    trial: Trial,
    run: Any,
    inputs: tuple[torch.Tensor, ...],
    expected: tuple[torch.Tensor, ...],
    call: DrawnCall,
    tensors: Mapping[str, torch.Tensor],
    constants: tuple[str, ...],
    dynamic: str = "",
) -> None:
    """Runs a network and compares it with eager; what it warns of, as eager did, is left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            actual = run(*inputs)
    except Exception as error:  # an executor may raise anything
        trial.fail(f"the network does not run: {type(error).__name__}: {error}", call, tensors, constants, dynamic)
    found = trial.difference(actual, expected, call, tensors)
    if found is not None and not trial.is_exact(found, actual, call, tensors):
        trial.fail(str(found), call, tensors, constants, dynamic)


# --- law 5 ------------------------------------------------------------------------------------------------------------

SYMBOLIC_BOUNDS = Bounds(numel=64, smallest=2)


def draw_dynamic(
    trial: Trial, data: st.DataObject, domain: Domain | None = None, must: str | None = None
) -> DynamicCall:
    """Draws a call whose sizes can be symbolic and that the domain takes; rejects others.

    Args:
        trial: of a converter.
        data: to draw from.
        domain: drawn from instead of the converter's own; what is drawn is then outside the converter's own.
        must: an argument that has a symbolic size.
    """
    smaller = data.draw(st.integers(0, 7), label="sizes of 1 in play") == 7
    well = trial.well_formed(data, domain=domain, bounds=None if smaller else SYMBOLIC_BOUNDS)
    constants = trial.draw_constants(data, well.call)
    if not well.call.tensors:
        well = _with_sizes(data, well)
    plan = draw_plan(data, well.call, domain or trial.converter.domain, constants, must, not trial.profile.seeded)
    if plan is None or (well.call.beside and not plan.sizes):
        reject()
    try:
        symbolic = symbolic_call(well.call, well.tensors, constants, plan, allowed=allowed_results(trial.converter))
    except Exception:  # a fake implementation that cannot be asked about symbolic sizes says nothing of the converter
        reject()
    if symbolic is None or not trial.believes(symbolic.graph, well.eager):
        reject()
    wanted = {
        symbol: (data.draw(st.sampled_from((1, 2, 1, 0)), label=f"{symbol}: min"), hint + data.draw(st.integers(0, 3)))
        for symbol, hint in symbolic.hints.items()
    }
    fixed = {place: well.tensors[place] for place in constants}
    taken = domain or trial.converter.domain  # asked before eager is: some calls end the process

    def accepts(point: Point) -> bool:
        return taken.refusal(symbolic.at(point).arguments) is None and call_at(symbolic, point, fixed) is not None

    ranges = fitting_ranges(symbolic, wanted, accepts)
    if all(span.min == span.max for span in ranges.values()):
        reject()
    symbolic.restrict(ranges)
    if trial.claims(symbolic.graph.node) != (domain is None):
        reject()
    return DynamicCall(symbolic, well.tensors, constants, ranges)


def _with_sizes(data: st.DataObject, well: WellFormed) -> WellFormed:
    """A call without tensors, and beside it one whose sizes its arguments may be."""
    shape = data.draw(st.tuples(st.integers(2, 5), st.integers(2, 5)), label="sizes beside it")
    call = dataclasses.replace(well.call, beside={"beside": TensorFacts(shape, torch.float32)})
    return WellFormed(call, {"beside": torch.zeros(shape)}, well.eager)


MOST_ELEMENTS = 2**20
"""Of a result that is worth trying: axes that are all repeated by the sizes of others have thousands of millions."""


def _is_worth_trying(shape: Sequence[int | None]) -> bool:
    """Whether a result is neither too large nor of a negative size, which some of eager's kernels make of nothing."""
    return all((size or 0) >= 0 for size in shape) and math.prod(size or 1 for size in shape) <= MOST_ELEMENTS


def call_at(symbolic: SymbolicCall, point: Point, fixed: Mapping[str, torch.Tensor]) -> DrawnCall | None:
    """The call at these sizes, if eager takes it there and makes of it what the graph's metadata promises."""
    call, promised = symbolic.at(point), symbolic.promised(point)
    if promised is None or any(not _is_worth_trying(shape) for shape in promised):
        return None
    for candidate in (call, call.replace_tensors(_narrow)):
        try:
            eager = run_eager(candidate, {**plain_values(candidate), **fixed})
        except EAGER_ERRORS:
            continue
        made = symbolic.graph.node.meta["val"]
        if isinstance(eager, list | tuple) and len(eager) != len(made):  # a split into another number of pieces
            continue
        results = symbolic.graph.expected(eager)
        if symbolic.promises(point, [result.shape for result in results]):
            return candidate
    return None


def _narrow(place: str, facts: Any) -> Any:
    """Indices that are in range wherever any are."""
    return facts if facts.values is None else facts._replace(values=(max(facts.values[0], 0), max(facts.values[0], 0)))


def agrees_dynamically(trial: Trial) -> None:
    """Law 5: from one build, a dynamic call agrees with eager at min, opt, max and random sizes between."""
    if not trial.converter.dynamic_shapes:
        raise NotApplicableError(f"{trial.name} claims no dynamic shapes")
    found: list[DynamicCall] = []
    reached = 0

    def check(data: st.DataObject) -> None:
        nonlocal reached
        dynamic = draw_dynamic(trial, data)
        reached += 1
        dynamic = dataclasses.replace(dynamic, points=draw_points(trial, data, dynamic))
        check_dynamic(trial, dynamic)
        found.append(dynamic)

    trial.explore(check, trial.profile.dynamic_calls)
    trial.memory.dynamic = found
    if not reached:
        raise NotApplicableError(f"{trial.name}: no drawn call has a size that can be symbolic")


def draw_points(trial: Trial, data: st.DataObject, dynamic: DynamicCall) -> tuple[CallAt, ...]:
    """A dynamic call at its corners and at random sizes, with values."""
    fixed = {place: dynamic.tensors[place] for place in dynamic.constants}
    found: list[CallAt] = []
    for point in [*corner_points(dynamic.ranges), *_random_points(trial, data, dynamic.ranges)]:
        call = call_at(dynamic.symbolic, point, fixed)
        if call is None:
            continue
        tensors = {**data.draw(values(call), label=f"values at {point}"), **fixed}
        try:
            eager = run_eager(call, tensors)
        except EAGER_ERRORS:
            tensors = {**plain_values(call), **fixed}
            eager = run_eager(call, tensors)
        found.append((call, tensors, eager))
    return tuple(found)


def check_dynamic(trial: Trial, dynamic: DynamicCall) -> None:
    """Holds one dynamic call to law 5, at the sizes it has values for."""
    symbolic, constants, code = dynamic.symbolic, dynamic.constants, dynamic_code(dynamic)
    guards = len(symbolic.env.guards)
    try:
        run = trial.run_of(trial.convert(symbolic.graph, dynamic.ranges))
    except TrtplugError as error:
        trial.fail(f"{type(error).__name__}: {error}", symbolic.call, dynamic.tensors, constants, code)
    for guard in symbolic.env.guards[guards:]:
        what = f"the converter asks for the value of a symbolic size, and leaves the guard {guard.expr}"
        trial.fail(what, symbolic.call, dynamic.tensors, constants, code)
    for call, tensors, eager in dynamic.points:
        inputs, expected = symbolic.graph.inputs(tensors), symbolic.graph.expected(eager)
        compare(trial, run, inputs, expected, call, tensors, constants, code)


def _random_points(trial: Trial, data: st.DataObject, ranges: Mapping[sympy.Symbol, Range]) -> list[Point]:
    return [
        {symbol: data.draw(st.integers(span.min, span.max), label=f"{symbol}") for symbol, span in ranges.items()}
        for _ in range(trial.profile.points)
    ]


def dynamic_code(dynamic: DynamicCall) -> str:
    """The arguments of `run_op` that make the sizes symbolic as they were here."""
    symbolic = dynamic.symbolic
    example = {place: list(static_shape(symbolic.call.tensors[place])) for place in symbolic.plan.axes}
    axes = {place: list(axes) for place, axes in symbolic.plan.axes.items()}
    spans = {
        place: [[dynamic_range(size, dynamic.ranges) for size in symbolic.shapes[place]][axis] for axis in axes[place]]
        for place in axes
    }
    code = f"symbolic={axes!r}, example={example!r}, ranges={spans!r}"
    return code + (f", sizes={dict(symbolic.plan.sizes)!r}" if symbolic.plan.sizes else "")


def dynamic_range(size: Any, ranges: Mapping[sympy.Symbol, Range]) -> tuple[int, int]:
    ends = [evaluate(size, {symbol: getattr(span, end) for symbol, span in ranges.items()}) for end in ("min", "max")]
    return min(ends), max(ends)
