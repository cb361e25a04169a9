"""Choosing what runs the engines. Executors are plugins; this only picks one, and tells it how."""

from __future__ import annotations

import warnings

from trtplug.errors import ExecutorError
from trtplug_registry import Executor, PluginManager, PluginWarning, Registry, RunOptions, unknown_name
from trtplug_registry.executor import Engine, Run


def check_options(executor: Executor, options: RunOptions) -> None:
    """
    Raises:
        ExecutorError: the executor cannot run engines in that way.
        SettingsError: TensorRT cannot.
    """
    if options.cuda_graphs and executor.configured is None:
        raise ExecutorError(f"executor {executor.name!r} has no CUDA graphs: leave out cuda_graphs, or run on a GPU")
    if options.weight_budget_bytes is None:
        return
    if executor.configured is None:
        raise ExecutorError(
            f"executor {executor.name!r} streams no weights: leave out weight_budget_bytes, or run on a GPU"
        )
    from trtplug._tensorrt import check_streaming

    check_streaming()


def prepared(executor: Executor, engine: Engine, options: RunOptions | None = None) -> Run:
    """What runs an engine.

    Raises:
        ExecutorError: as `check_options`; or the executor does not take the engine.
    """
    check_options(executor, options or RunOptions())
    if options is None or executor.configured is None:
        return executor.prepare(engine)
    return executor.configured(engine, options)


def pick_executor(registry: Registry, name: str, device: str = "cpu") -> Executor:
    """The executor of a name, or with ``"auto"`` the one of highest priority that can run here, on that type of device.

    Raises:
        UnknownNameError: no plugin brought an executor of that name.
        ExecutorError: it cannot run here, or none can.
    """
    if name == "auto":
        missing = []
        for executor in registry.executors:
            if executor.device not in ("", device):
                why: str | None = f"it runs on {executor.device}, the model is on {device}"
            else:
                why = executor.unavailable()
            if why is None:
                return executor
            missing.append(f"{executor.name}: {why}")
        raise ExecutorError("no executor can run here: " + ("; ".join(missing) or "no plugin brings one"))
    executor = executor_of_name(registry, name)
    why = executor.unavailable()
    if why is not None:
        raise ExecutorError(f"executor {name!r} cannot run here: {why}")
    return executor


def executor_of_name(registry: Registry, name: str) -> Executor:
    """The executor of a name, whether it can run here or not.

    Raises:
        UnknownNameError: no plugin brought one.
    """
    for executor in registry.executors:
        if executor.name == name:
            return executor
    raise unknown_name("executor", name, [executor.name for executor in registry.executors])


def installed_executor(name: str, device: str = "", like: str = "") -> Executor:
    """`pick_executor` among the installed plugins', for engines that are finished.

    A plugin that cannot be loaded here does not matter: nothing is converted.

    Args:
        name: as in `pick_executor`.
        device: the type of device that inputs are on; where that is not known, the one of the executor called `like`.
    """
    manager = PluginManager(only_executors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        manager.load_entry_points()
    registry = Registry(manager.plugins)
    known = [executor.device for executor in registry.executors if executor.name == like]
    return pick_executor(registry, name, device or next(iter(known), "") or "cpu")
