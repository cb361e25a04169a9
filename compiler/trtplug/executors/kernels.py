"""Kernels that TensorRT-RTX has compiled for a GPU, kept in a folder for the next process."""

from __future__ import annotations

import hashlib
import os
import warnings

import torch

from trtplug._tensorrt import library
from trtplug_registry import RunOptions

_DIGEST = hashlib.sha256().digest_size


class KernelStore:
    """The kernels of one engine on one kind of GPU.

    A file holds TensorRT's runtime cache after its SHA-256. TensorRT itself compares it with its version, the GPU and
    the driver. What is damaged or refused counts as not there.

    Args:
        plan: the serialized engine.
        index: of the CUDA device.
        options: with a ``cache_dir``.

    Raises:
        SettingsError: the folder cannot be used.
    """

    def __init__(self, plan: bytes, index: int, options: RunOptions) -> None:
        from trtplug.cache import EngineCache

        assert options.cache_dir is not None
        self._folder = EngineCache(options.cache_dir, options.cache_bytes)
        self._path = self._folder.folder / f"{_key(plan, index)}.kernels"
        self._size = -1  # of what is in the file, as far as is known

    def get(self) -> bytes | None:
        """The runtime cache, or None."""
        try:
            content = self._path.read_bytes()
            os.utime(self._path)  # used now
        except OSError:
            return None
        digest, blob = content[:_DIGEST], content[_DIGEST:]
        if hashlib.sha256(blob).digest() != digest:
            return None
        self._size = len(blob)
        return blob

    def put(self, blob: bytes) -> None:
        """Keeps a runtime cache that has grown; warns where it cannot be kept."""
        from trtplug.cache import CacheWarning

        if len(blob) == self._size or len(blob) > self._folder.limit:
            return
        try:
            self._folder.keep(self._path, hashlib.sha256(blob).digest() + blob)
            self._size = len(blob)
        except OSError as error:
            warnings.warn(f"kernels are not kept in {self._path.parent}: {error.strerror}", CacheWarning, stacklevel=2)


def _key(plan: bytes, index: int) -> str:
    where = (library().__name__, library().__version__, *device_words(index))
    return hashlib.sha256(repr(where).encode() + hashlib.sha256(plan).digest()).hexdigest()


def device_words(index: int) -> tuple[str, ...]:
    """What tells kinds of GPU apart: name and compute capability."""
    return torch.cuda.get_device_name(index), str(torch.cuda.get_device_capability(index))
