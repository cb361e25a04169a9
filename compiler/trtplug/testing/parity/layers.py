"""Runs the layer table: each layer in each mode and dtype, on TensorRT and on the reference executor."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from trtplug.engine import CompiledEngine
from trtplug.errors import BuildError, ConversionError, ExecutorError
from trtplug.reference.errors import LayerError, UnsupportedLayer
from trtplug.testing.parity import movement, pointwise, products, reductions
from trtplug.testing.parity.judge import Finding, allowance, judge
from trtplug.testing.parity.rounding import moved
from trtplug.testing.parity.sketch import LayerCase
from trtplug.tf32 import PROCESS
from trtplug_registry import Executor

FAMILIES = {"pointwise": pointwise, "reductions": reductions, "movement": movement, "products": products}


@functools.cache
def layer_cases() -> Mapping[str, LayerCase]:
    """Every case, by id."""
    return {case.id: case for family in FAMILIES.values() for case in family.cases()}


def check_layer(case: LayerCase, executor: Executor, device: str) -> Finding:
    """Builds, runs and compares one case.

    Args:
        case: of `layer_cases`.
        executor: runs the engine.
        device: of its inputs.
    """
    try:
        sketch = case.sketch()
        network = sketch.network()
        plan = network.build()
    except (
        ConversionError,
        BuildError,
        AttributeError,
        ValueError,
        RuntimeError,
    ) as error:  # no such mode in this version
        return Finding("refused", " ".join(str(error).split()))
    try:
        reference = network.lift()
        expected = reference(*sketch.values)
    except UnsupportedLayer as error:
        return Finding("unmodelled", str(error))
    except (LayerError, RuntimeError) as error:
        return Finding("unmodelled", f"the reference raises: {error}")
    engine = CompiledEngine("layer", network.inputs, network.outputs, plan, reference, network.num_layers)
    try:
        run = executor.prepare(engine)
        actual = [result.cpu() for result in run(*[value.to(device) for value in sketch.values])]
    except (ExecutorError, RuntimeError) as error:
        return Finding("fails", " ".join(str(error).split()))
    allowed = allowance(reference, sketch.values, expected, tf32=PROCESS.rounds)
    return judge(actual, expected, sketch.values, lambda by: moved(reference, sketch.values, by), allowed)
