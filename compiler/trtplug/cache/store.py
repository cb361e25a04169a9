"""A folder of finished engines, shared by any number of processes.

An entry appears under its name whole or not at all, so there is nothing to lock: two processes that build the same
engine write the same entry twice. What is read is checked in full, and compared with the description of the work that
is to be done; anything else than exactly that engine counts as not there, and is built again. Entries are data in the
format of `trtplug.artefacts`: nothing is unpickled or executed.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from trtplug.artefacts.engines import read_engine, write_engine
from trtplug.artefacts.files import replaced_file
from trtplug.artefacts.malformed import Malformed, naming
from trtplug.cache.work import Work
from trtplug.engine import CompiledEngine
from trtplug.errors import SettingsError

_ENTRY = re.compile(r"[0-9a-f]{64}\.(engine|kernels)")
_UNFINISHED = re.compile(r"\.[0-9a-f]{64}\.(engine|kernels)\.[0-9a-f]+")
_ABANDONED = 3600.0  # seconds after which nobody is writing an unfinished entry any more


class CacheWarning(UserWarning):
    """An engine could not be put into the cache; the compilation goes on without."""


class EngineCache:
    """Finished engines in a folder.

    Args:
        folder: made where it is not there.
        limit: bytes that its entries may have; those not used for longest go first.

    Raises:
        SettingsError: the folder cannot be used.
    """

    def __init__(self, folder: str | os.PathLike[str], limit: int) -> None:
        self.folder, self.limit = Path(os.path.abspath(os.path.expanduser(folder))), limit
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"cache_dir={str(folder)!r}: it cannot be a folder: {error.strerror}") from error
        if not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
            raise SettingsError(f"cache_dir={str(folder)!r}: this process may not read and write there")

    def get(self, work: Work) -> CompiledEngine | None:
        """The engine that was made of exactly this; None where there is none that can be trusted to be it."""
        path = self._path(work)
        try:
            with open(path, "rb") as file, naming(""):
                engine = read_engine(file, work.content, work.weights)
        except (OSError, Malformed):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now
        return engine

    def put(self, work: Work, engine: CompiledEngine, versions: Mapping[str, str]) -> None:
        """Keeps an engine, and lets go of those that were not used for longest where there are too many bytes."""
        if len(engine.plan) > self.limit:
            return
        try:
            with replaced_file(self._path(work)) as file:
                write_engine(file, engine, versions, work.content, work.weights)
            self._shrink()
        except (OSError, Malformed) as error:
            what = error.what if isinstance(error, Malformed) else error.strerror
            warnings.warn(f"{engine.name} is not kept in {self.folder}: {what}", CacheWarning, stacklevel=2)

    def keep(self, path: Path, content: bytes) -> None:
        """Writes another entry of the folder, which counts among its bytes.

        Raises:
            OSError: it cannot be written.
        """
        with replaced_file(path) as file:
            file.write(content)
        self._shrink()

    def _path(self, work: Work) -> Path:
        return self.folder / f"{work.key}.engine"

    def _shrink(self) -> None:
        """Files that are not entries are left alone, whoever put them there."""
        now = time.time()
        entries = []
        for path, found in self._files():
            if _ENTRY.fullmatch(path.name):
                entries.append((found.st_mtime_ns, found.st_size, path))
            elif _UNFINISHED.fullmatch(path.name) and now - found.st_mtime > _ABANDONED:
                path.unlink(missing_ok=True)
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit:
                break
            path.unlink(missing_ok=True)  # another process may have been faster
            total -= size

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    yield Path(entry.path), entry.stat(follow_symlinks=False)
