"""A ``.trtp`` file: data in one canonical container, checked in full before anything is made of it."""

from __future__ import annotations

import hashlib
import hmac
import warnings
from pathlib import Path
from typing import BinaryIO

import torch

from trtplug.artefacts import archive
from trtplug.artefacts.files import replaced_file
from trtplug.artefacts.malformed import Malformed, naming, need
from trtplug.artefacts.model import MANIFEST, check_manifest, decode_members, members_of, rebuild
from trtplug.artefacts.values import Place
from trtplug.compiled import CompiledModule
from trtplug.errors import ArtefactError
from trtplug.executors import pick_executor
from trtplug_registry import Executor, PluginManager, PluginWarning, Registry

_MAX_MANIFEST = 64 * 2**20


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
    members = [(archive.Member(name, *archive.checksum(made())), made) for name, made in parts.items()]
    with replaced_file(target) as file:
        archive.write(file, members)


def load_file(target: Path, executor: str, device: torch.device | None) -> CompiledModule:
    """Reads a model from a file; the opposite of `save_file`.

    Raises:
        ArtefactError: it is damaged, foreign, of another version, or needs an op that is not registered here.
        ExecutorError, UnknownNameError: the executor cannot run here, or does not exist.
    """
    try:
        with open(target, "rb") as file, naming(""):
            decoded = decode_members(_verified(file))
        chosen = _executor(executor)
        with naming(""):
            return rebuild(decoded, chosen, _placing(device))
    except Malformed as error:
        raise ArtefactError(target, error.what, error.member) from error
    except OSError as error:
        raise ArtefactError(target, f"it cannot be read: {error.strerror}") from error


def _verified(file: BinaryIO) -> dict[str, memoryview]:
    """Every member's data, in memory, once all of the file is what its manifest says.

    Nothing is read again afterwards, so that a file which changes meanwhile makes no difference.
    """
    members = archive.directory(file)
    need(members[0].name == MANIFEST, f"its first member is {members[0].name!r}, not {MANIFEST!r}")
    need(members[0].size <= _MAX_MANIFEST, f"its manifest has {members[0].size} bytes")
    with naming(MANIFEST):
        expected = check_manifest(bytes(archive.read(file, members[0], archive.first_start(file))))
    names = [member.name for member in members[1:]]
    need(names == list(expected), f"its members are {names}, its manifest names {list(expected)}")
    plan = archive.check_layout(file, members)
    found = {}
    for member, start in zip(members[1:], plan.starts[1:]):
        count, digest = expected[member.name]
        if member.size != count:
            raise Malformed(f"it has {member.size} bytes, the manifest says {count}", member.name)
        data = archive.read(file, member, start)
        if not hmac.compare_digest(hashlib.sha256(data).hexdigest(), digest):
            raise Malformed("its SHA-256 is not the manifest's: it was changed or damaged", member.name)
        found[member.name] = data
    return found


def _executor(name: str) -> Executor:
    """The executor of a name. A plugin that cannot be loaded here does not matter: nothing is converted."""
    manager = PluginManager()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        manager.load_entry_points()
    return pick_executor(Registry(manager.plugins), name)


def _placing(device: torch.device | None) -> Place:
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
