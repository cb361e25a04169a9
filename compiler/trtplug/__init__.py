"""PyTorch models into TensorRT engines, every converter and lowering pass a plugin.

    program = trtplug.trace(model, inputs=[trtplug.Input(min_shape=…, opt_shape=…, max_shape=…)])
    compiled = trtplug.compile(program)
    compiled(*args)
    compiled.report

Importing this imports neither TensorRT nor ``torch._dynamo``; each name below is loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trtplug.collector import collector_paused

if TYPE_CHECKING:
    from trtplug.artefacts import load, save
    from trtplug.assembly import registry
    from trtplug.compilation import FallbackWarning
    from trtplug.compiled import CompiledModule
    from trtplug.compiling import compile, explain
    from trtplug.covering import CoverageReport, coverage
    from trtplug.errors import (
        ArtefactError,
        BuildError,
        ConversionError,
        ExecutorError,
        InputError,
        LoweringError,
        ModuleError,
        SettingsError,
        TraceError,
        WeightsError,
    )
    from trtplug.jit.session import reports
    from trtplug.ranges import Range
    from trtplug.report import CompilationReport
    from trtplug.settings import Settings
    from trtplug.tracing import Input, Program, trace
    from trtplug_registry import TrtplugError

__all__ = [
    "ArtefactError",
    "BuildError",
    "CompilationReport",
    "CompiledModule",
    "ConversionError",
    "CoverageReport",
    "ExecutorError",
    "FallbackWarning",
    "Input",
    "InputError",
    "LoweringError",
    "ModuleError",
    "Program",
    "Range",
    "Settings",
    "SettingsError",
    "TraceError",
    "TrtplugError",
    "WeightsError",
    "compile",
    "coverage",
    "explain",
    "load",
    "registry",
    "reports",
    "save",
    "trace",
]

_HOME = {
    "trtplug.artefacts": ("load", "save"),
    "trtplug.assembly": ("registry",),
    "trtplug.compilation": ("FallbackWarning",),
    "trtplug.compiling": ("compile", "explain"),
    "trtplug.compiled": ("CompiledModule",),
    "trtplug.covering": ("CoverageReport", "coverage"),
    "trtplug.errors": (
        "ArtefactError",
        "BuildError",
        "ConversionError",
        "ExecutorError",
        "InputError",
        "LoweringError",
        "ModuleError",
        "SettingsError",
        "TraceError",
        "WeightsError",
    ),
    "trtplug.jit.session": ("reports",),
    "trtplug.ranges": ("Range",),
    "trtplug.report": ("CompilationReport",),
    "trtplug.settings": ("Settings",),
    "trtplug.tracing": ("Input", "Program", "trace"),
    "trtplug_registry": ("TrtplugError",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


if not TYPE_CHECKING:  # to a type checker a misspelt name is an error

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'trtplug' has no attribute {name!r}")
        with collector_paused():  # modules are no garbage
            value = globals()[name] = getattr(importlib.import_module(_MODULE_OF[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
