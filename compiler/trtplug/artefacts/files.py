"""Writing a file or a folder so that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(6)}")


@contextlib.contextmanager
def replaced_file(target: Path) -> Iterator[BinaryIO]:
    """A new file, written beside its place and moved there at the end; nothing is left where something raises."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = _beside(target)
    try:
        with open(work, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(work, target)
    except BaseException:
        work.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """A new folder, written beside its place and moved there at the end; one that was there is kept until then."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work, old = _beside(target), _beside(target)
    work.mkdir()
    try:
        yield work
        if target.exists():
            target.rename(old)
        try:
            work.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
