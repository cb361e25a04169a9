"""A ``.trtp`` file: data in one canonical container, checked in full before anything is made of it."""

from __future__ import annotations

from pathlib import Path

import torch

from trtplug.artefacts.bundle import read_bundle, write_bundle
from trtplug.artefacts.files import replaced_file
from trtplug.artefacts.malformed import Malformed, naming
from trtplug.artefacts.model import check_manifest, decode_members, members_of, rebuild
from trtplug.artefacts.values import Place
from trtplug.compiled import CompiledModule
from trtplug.errors import ArtefactError
from trtplug.executors import check_options, installed_executor
from trtplug_registry import RunOptions


def save_file(compiled: CompiledModule, target: Path) -> None:
    """Writes a model to a file.

    Raises:
        ArtefactError: the model holds something that a file cannot hold.
    """
    if target.is_dir():
        raise ArtefactError(target, "it is a folder; choose another path")
    try:
        parts = members_of(compiled)
    except Malformed as error:
        raise ArtefactError(target, f"the model cannot be saved: {error.what}") from error
    with replaced_file(target) as file:
        write_bundle(file, parts)


def load_file(target: Path, executor: str, device: torch.device | None, options: RunOptions) -> CompiledModule:
    """Reads a model from a file; the opposite of `save_file`.

    Raises:
        ArtefactError: it is damaged, foreign, of another version, or needs an op that is not registered here.
        ExecutorError, UnknownNameError: the executor cannot run here, or does not exist.
    """
    try:
        with open(target, "rb") as file, naming(""):
            decoded = decode_members(read_bundle(file, check_manifest))
        chosen = installed_executor(executor, "" if device is None else device.type, decoded.report.executor)
        check_options(chosen, options)
        with naming(""):
            return rebuild(decoded, chosen, placing(device), options)
    except Malformed as error:
        raise ArtefactError(target, error.what, error.member) from error
    except OSError as error:
        raise ArtefactError(target, f"it cannot be read: {error.strerror}") from error


def placing(device: torch.device | None) -> Place:
    def place(name: str) -> torch.device:
        if device is not None:
            return device
        saved = torch.device(name)
        return saved if saved.type == "cpu" or _is_here(saved) else torch.device("cpu")

    return place


def _is_here(device: torch.device) -> bool:
    backend = getattr(torch, device.type, None)
    count = getattr(backend, "device_count", None)
    return count is not None and (device.index or 0) < count()
