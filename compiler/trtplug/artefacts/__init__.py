"""Compiled models on disk: ``.trtp``, Torch's ``.pt2`` and ``.ts``, folders of engines. See ``docs/artefacts.md``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trtplug.compiled import CompiledModule
from trtplug.errors import ArtefactError, SettingsError
from trtplug_registry import RunOptions

if TYPE_CHECKING:
    from trtplug.artefacts.exported import LoadedModule

__all__ = ["load", "save"]

_SUFFIX, _EXPORTED, _SCRIPT = ".trtp", ".pt2", ".ts"


def save(compiled: CompiledModule, path: str | os.PathLike[str]) -> Path:
    """Saves a compiled model.

    The suffix says how. ``model.trtp`` is one file with everything that the model needs to run again: `load` reads it,
    without the model's source, a GPU, or the plugins that converted it. ``model.pt2`` is an ``ExportedProgram``, whose
    engines are calls of a registered op: ``torch.export.load`` reads it wherever trtplug is installed. ``model.ts``
    is TorchScript, for what still loads that. A path without a suffix, or one that ends in a slash, is a folder: the
    bare engines, and a manifest that says what they take and return, for programs that speak to TensorRT themselves;
    what is left to Torch is only listed there.

    What is written appears at its place when it is complete, and not before; what was there is kept until then. The
    same model gives the same bytes, except in Torch's formats.

    Returns:
        The file or folder.

    Raises:
        SettingsError: the suffix is none of these.
        ArtefactError: the model holds something that a file cannot hold, or the path is taken by something else, or
            cannot be written to; what was there before is still there.
    """
    if not isinstance(compiled, CompiledModule):
        raise SettingsError(f"save: expected what trtplug.compile returned, found {type(compiled).__name__}")
    kind, target = _kind(path), _place(path)
    try:
        _writer(kind)(compiled, target)
    except OSError as error:
        raise ArtefactError(target, f"it cannot be written: {error.strerror or error}") from error
    return Path(path)


def _writer(kind: str) -> Callable[[CompiledModule, Path], None]:
    if kind == _SUFFIX:
        from trtplug.artefacts.file import save_file

        return save_file
    if kind == _EXPORTED:
        from trtplug.artefacts.exported import save_exported

        return save_exported
    if kind == _SCRIPT:
        from trtplug.artefacts.script import save_script

        return save_script
    from trtplug.artefacts.folder import save_folder

    return save_folder


def load(
    path: str | os.PathLike[str],
    *,
    executor: str = "auto",
    device: str | torch.device | None = None,
    trusted: bool = False,
    cuda_graphs: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    weight_budget_bytes: int | None = None,
) -> CompiledModule | LoadedModule:
    """Loads a model that `save` wrote to a file.

    A ``.trtp`` file is data: nothing in it is executed while it is loaded, and every byte of it is checked first. What
    the loaded model then runs are its engines and the registered ops that its graphs name. ``.pt2`` and ``.ts`` files
    are unpickled by Torch, which runs what they say, so they are not even opened without `trusted`.

    Args:
        path: of the file.
        executor: what runs the engines, as in `compile`.
        device: where the tensors of the Torch part go; by default where they were, or to the CPU if that is not here.
        trusted: that whoever made the file may run code here; a ``.trtp`` file needs no trust.
        cuda_graphs: as in `compile`; for ``.trtp`` files.
        cache_dir: a folder where kernels that TensorRT-RTX compiles for the GPU at hand are kept for the next process;
            for ``.trtp`` files.
        weight_budget_bytes: as in `compile`, of engines that were built with ``weight_streaming``; for ``.trtp`` files.

    Returns:
        A module that is called as the model was: a `CompiledModule` from a ``.trtp`` file, else a `LoadedModule`.
        Foreign containers (such as ``ModelOutput``) come back as dicts.

    Raises:
        SettingsError: the path names something that is not loaded; or `cuda_graphs`, `cache_dir` or
            `weight_budget_bytes` are for another kind of file; or the folder cannot be used, or the budget is negative.
        ArtefactError: the file is damaged, or was not written by trtplug, or by one with another format, or needs an op
            that is not registered here, or needs trust.
        ExecutorError, UnknownNameError: the executor cannot run here, or does not exist.
    """
    kind, target = _kind(path), _place(path)
    place = None if device is None else torch.device(device)
    if kind in (_EXPORTED, _SCRIPT):
        if cuda_graphs or cache_dir is not None or weight_budget_bytes is not None:
            given = "cuda_graphs, no cache_dir and no weight_budget_bytes"
            raise SettingsError(f"load: a {kind} file takes no {given}; a .trtp file does")
        if not trusted:
            raise ArtefactError(
                target,
                f"Torch unpickles a {kind} file, which runs what the file says: trusted=True, if you trust its maker",
            )
        from trtplug.artefacts.exported import load_exported
        from trtplug.artefacts.script import load_script

        return (load_exported if kind == _EXPORTED else load_script)(target, executor, place)
    if kind != _SUFFIX:
        raise SettingsError(
            f"load: {os.fspath(path)} is a folder or has no suffix; a folder of engines holds no Torch part, so it is"
            " for TensorRT's own runtimes. Save the model as a .trtp file to load it"
        )
    from trtplug.artefacts.file import load_file

    if weight_budget_bytes is not None and weight_budget_bytes < 0:
        raise SettingsError(f"weight_budget_bytes={weight_budget_bytes}: must be 0 or more, or None")
    folder = None if cache_dir is None else os.fspath(cache_dir)
    return load_file(target, executor, place, RunOptions(cuda_graphs, folder, weight_budget_bytes=weight_budget_bytes))


def _place(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(path))


def _kind(path: str | os.PathLike[str]) -> str:
    """The suffix, or ``""`` for a folder.

    Raises:
        SettingsError: the suffix says something else.
    """
    if not isinstance(path, str | os.PathLike):
        raise SettingsError(f"{path!r}: must be the path of a file or folder")
    text = os.fspath(path)
    suffix = Path(text).suffix
    if suffix in (_SUFFIX, _EXPORTED, _SCRIPT) and not os.path.isdir(text):
        return suffix
    if not suffix or text.endswith(("/", os.sep)) or os.path.isdir(text):
        return ""
    raise SettingsError(
        f"{text}: there is no format for the suffix {suffix!r}; use .trtp for one file that trtplug.load reads,"
        " .pt2 for an ExportedProgram, .ts for TorchScript, or a path without a suffix (or with a slash at its end)"
        " for a folder of engines"
    )
