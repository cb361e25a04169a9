"""Finished engines on disk, found again by a description of all that they were made of. See ``docs/cache.md``."""

from trtplug.cache.finished import Finished, Found
from trtplug.cache.kept import Kept, stamped
from trtplug.cache.store import CacheWarning, EngineCache
from trtplug.cache.work import Circumstances, Undescribable, Work, circumstances, describe

__all__ = [
    "CacheWarning",
    "Circumstances",
    "EngineCache",
    "Finished",
    "Found",
    "Kept",
    "Undescribable",
    "Work",
    "circumstances",
    "describe",
    "stamped",
]
