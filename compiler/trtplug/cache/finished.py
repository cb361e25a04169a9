"""Engines that a compilation need not build."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Mapping
from typing import Any

from torch.fx import GraphModule

from trtplug.cache.kept import Kept
from trtplug.cache.store import CacheWarning, EngineCache
from trtplug.cache.work import Circumstances, Undescribable, Work, circumstances, describe
from trtplug.engine import CompiledEngine
from trtplug.settings import Settings
from trtplug.versions import versions
from trtplug_registry import Registry


@dataclasses.dataclass(frozen=True)
class Found:
    """What is known about a block before it is converted.

    Attributes:
        engine: the finished one, where there is one.
        work: what it is made of, where somebody wants to know.
        cached: whether the engine was read from the cache.
    """

    engine: CompiledEngine | None = None
    work: Work | None = None
    cached: bool = False


class Finished:
    """The engines of an earlier compilation, and those of the cache that the settings name; where there are any."""

    def __init__(self, settings: Settings, registry: Registry, kept: Kept | None = None) -> None:
        self.settings, self.registry, self.kept = settings, registry, kept

    @functools.cached_property
    def cache(self) -> EngineCache | None:
        """Opened when first asked for.

        Raises:
            SettingsError: the folder cannot be used.
        """
        folder = self.settings.cache_dir
        return None if folder is None else EngineCache(folder, self.settings.cache_bytes)

    @property
    def asked(self) -> bool:
        """Whether there is anything to find engines in."""
        return self.kept is not None or self.cache is not None

    def open(self) -> None:
        """Raises `SettingsError` now where the cache's folder cannot be used."""
        _ = self.cache

    @functools.cached_property
    def _about(self) -> Circumstances:
        return circumstances(self.settings, self.registry, versions())

    def find(self, block: GraphModule, ranges: Mapping[Any, Any]) -> Found:
        """The engine of a block that `trtplug.partition.extract` returned."""
        if not self.asked:
            return Found()
        try:
            work = describe(block, ranges, self._about)
        except Undescribable as error:
            if self.cache is not None:
                warnings.warn(f"an engine has no place in the cache: {error}", CacheWarning, stacklevel=2)
            return Found()
        kept = None if self.kept is None else self.kept.find(work, self._about)
        if kept is not None or self.cache is None:
            return Found(kept, work)
        engine = self.cache.get(work)
        return Found(engine, work, engine is not None)

    def keep(self, found: Found, engine: CompiledEngine) -> None:
        """Puts a new engine where `find` finds it."""
        if self.cache is not None and found.work is not None:
            self.cache.put(found.work, engine, versions())
