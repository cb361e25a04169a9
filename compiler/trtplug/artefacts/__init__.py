"""Compiled models on disk: ``.trtp`` files, and folders of bare engines. See ``docs/artefacts.md``."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from trtplug.compiled import CompiledModule
from trtplug.errors import SettingsError

__all__ = ["load", "save"]

_SUFFIX = ".trtp"


def save(compiled: CompiledModule, path: str | os.PathLike[str]) -> Path:
    """Saves a compiled model.

    The suffix says how. ``model.trtp`` is one file with everything that the model needs to run again: `load` reads it,
    without the model's source, a GPU, or the plugins that converted it. A path without a suffix, or one that ends in a
    slash, is a folder: the bare engines, and a manifest that says what they take and return, for programs that speak to
    TensorRT themselves; what is left to Torch is only listed there.

    What is written appears at its place when it is complete, and not before; what was there is kept until then. The
    same model gives the same bytes.

    Returns:
        The file or folder.

    Raises:
        SettingsError: the suffix is none of these.
        ArtefactError: the model holds something that a file cannot hold, or the path is taken by something else.
    """
    if not isinstance(compiled, CompiledModule):
        raise SettingsError(f"save: expected what trtplug.compile returned, found {type(compiled).__name__}")
    target = _place(path)
    if _kind(path) == _SUFFIX:
        from trtplug.artefacts.file import save_file

        save_file(compiled, target)
    else:
        from trtplug.artefacts.folder import save_folder

        save_folder(compiled, target)
    return Path(path)


def load(
    path: str | os.PathLike[str],
    *,
    executor: str = "auto",
    device: str | torch.device | None = None,
    trusted: bool = False,
) -> CompiledModule:
    """Loads a model that `save` wrote to a ``.trtp`` file.

    Such a file is data: nothing in it is executed while it is loaded, and every byte of it is checked first. What the
    loaded model then runs are its engines and the registered ops that its graphs name.

    Args:
        path: of the file.
        executor: what runs the engines, as in `compile`.
        device: where the tensors of the Torch part go; by default where they were, or to the CPU if that is not here.
        trusted: for formats that Torch unpickles, which runs what the file says; a ``.trtp`` file needs no trust.

    Returns:
        A module that is called as the model was. Foreign containers (such as ``ModelOutput``) come back as dicts.

    Raises:
        SettingsError: the path names something that is not loaded.
        ArtefactError: the file is damaged, or was not written by trtplug, or by one with another format, or needs an op
            that is not registered here.
        ExecutorError, UnknownNameError: the executor cannot run here, or does not exist.
    """
    target = _place(path)
    if _kind(path) != _SUFFIX:
        raise SettingsError(
            f"load: {os.fspath(path)} is a folder or has no suffix; a folder of engines holds no Torch part, so it is"
            " for TensorRT's own runtimes. Save the model as a .trtp file to load it"
        )
    from trtplug.artefacts.file import load_file

    return load_file(target, executor, None if device is None else torch.device(device))


def _place(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(path))


def _kind(path: str | os.PathLike[str]) -> str:
    """``".trtp"``, or ``""`` for a folder.

    Raises:
        SettingsError: the suffix says something else.
    """
    text = os.fspath(path)
    suffix = Path(text).suffix
    if suffix == _SUFFIX and not os.path.isdir(text):
        return suffix
    if not suffix or text.endswith(("/", os.sep)) or os.path.isdir(text):
        return ""
    raise SettingsError(
        f"{text}: there is no format for the suffix {suffix!r}; use .trtp for one file that trtplug.load reads, or a"
        " path without a suffix (or with a slash at its end) for a folder of bare engines"
    )
