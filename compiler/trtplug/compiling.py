"""`compile`, and `explain`, its dry run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from trtplug.assembly import registry_for
from trtplug.collector import collector_paused
from trtplug.compilation import Compilation
from trtplug.compiled import CompiledModule
from trtplug.errors import SettingsError
from trtplug.executors import pick_executor
from trtplug.network.finished import Progress
from trtplug.report import CompilationReport
from trtplug.settings import Settings
from trtplug.tf32 import PROCESS
from trtplug.tracing import Program
from trtplug_registry import Registry


def compile(
    model: nn.Module | Program | ExportedProgram,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    inputs: Any = None,
    dynamic_shapes: Any = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> CompiledModule:
    """Compiles a model into TensorRT engines, with Torch for what TensorRT does not take.

    Args:
        model: a module, with `inputs` (or example `args`); or what `trace` or ``torch.export.export`` returned.
        args, kwargs: example inputs, as in ``torch.export.export``.
        inputs: `Input` descriptions instead of examples.
        dynamic_shapes: as in ``torch.export.export``, with example inputs.
        registry: what `trtplug.registry` returned; assembled from the settings where not given.
        progress: called with the phase, the steps done and the steps in all, while engines are built.
        settings: fields of `Settings`, by name.

    Returns:
        A module that is called as the model was; its ``report`` says what became of every node.

    Raises:
        TrtplugError: a setting or input description is wrong, or ``torch.export`` refuses the model. A node that cannot
            be in TensorRT raises only under ``on_failure="raise"``.
    """
    chosen = Settings.of(settings)
    if chosen.weight_check != Settings.weight_check:
        raise SettingsError(
            "weight_check is for torch.compile: a compiled module keeps its weights until update_weights"
        )
    assembled = registry if registry is not None else registry_for(chosen)
    PROCESS.decide(chosen.tf32)  # before anything makes a builder
    pick_executor(assembled, chosen.executor)  # a bad name costs nothing yet
    run = Compilation(chosen, assembled, progress)
    run.finished.open()
    return run.finish(run.program(model, args, kwargs, inputs, dynamic_shapes))


@collector_paused()
def explain(
    model: nn.Module | Program | ExportedProgram,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    inputs: Any = None,
    dynamic_shapes: Any = None,
    registry: Registry | None = None,
    **settings: Any,
) -> CompilationReport:
    """A dry run of `compile`: the partition, and the reasons for what stays in Torch. Builds nothing."""
    chosen = Settings.of(settings)
    run = Compilation(chosen, registry if registry is not None else registry_for(chosen), None)
    lowered = run.lower(run.program(model, args, kwargs, inputs, dynamic_shapes))
    with run.stage("partition"):
        run.partition(lowered)
    return run.report(lowered, (), "", suggestions=True)
