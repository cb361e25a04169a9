"""What following an op's decomposition found, kept between runs: tracing loads much of Torch, and takes seconds.

The file is data, keyed by everything that decides the answer; one that cannot be read is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from trtplug_registry import Registry


def folder() -> Path:
    """``$XDG_CACHE_HOME/trtplug/coverage``, by default under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "trtplug" / "coverage"


@contextlib.contextmanager
def remembered(registry: Registry) -> Iterator[dict[str, Any]]:
    """What is known of ops, by name, for this registry and Torch; what is added is kept for the next time."""
    version = registry.capabilities.version if registry.capabilities else ""
    key = hashlib.sha256(f"2 {registry.fingerprint} {torch.__version__} {version}".encode()).hexdigest()
    path = folder() / f"{key[:32]}.json"
    known = _read(path)
    before = len(known)
    yield known
    if len(known) > before:
        with contextlib.suppress(OSError):  # a folder that cannot be written only costs time
            _write(path, known)


def _read(path: Path) -> dict[str, Any]:
    wanted = {"status", "decomposes_to", "by", "reasons"}
    try:
        found = json.loads(path.read_text())
        sound = isinstance(found, dict) and all(isinstance(v, dict) and v.keys() == wanted for v in found.values())
    except (OSError, ValueError):
        return {}
    return found if sound else {}


def _write(path: Path, known: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(known, file)
    os.replace(file.name, path)
