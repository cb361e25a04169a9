"""Compiled kernels on disk, over a TensorRT that is written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trtplug.executors import contexts, kernels
from trtplug.executors.contexts import Contexts
from trtplug.executors.kernels import KernelStore
from trtplug_registry import RunOptions


@pytest.fixture(autouse=True)
def _one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "device_words", lambda index: ("H", "9.0") if index == 0 else ("B", "12.0"))


def store(folder: Path, plan: bytes = b"plan", index: int = 0, limit: int = 10**6) -> KernelStore:
    return KernelStore(plan, index, RunOptions(cache_dir=str(folder), cache_bytes=limit))


def test_what_one_process_keeps_another_finds(tmp_path: Path) -> None:
    store(tmp_path).put(b"kernels")
    assert store(tmp_path).get() == b"kernels"
    assert store(tmp_path, plan=b"other").get() is None
    assert store(tmp_path, index=1).get() is None


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:40] + b"x" + b[41:], lambda b: b"", lambda b: b"x" + b]
)
def test_what_is_damaged_is_not_there(tmp_path: Path, damage: Any) -> None:
    store(tmp_path).put(b"kernels, a lot of them")
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert store(tmp_path).get() is None


def test_only_what_has_grown_is_written(tmp_path: Path) -> None:
    first = store(tmp_path)
    first.put(b"some")
    (file,) = tmp_path.iterdir()
    file.unlink()
    first.put(b"same")
    assert not list(tmp_path.iterdir())
    first.put(b"some more")
    assert store(tmp_path).get() == b"some more"


def test_kernels_count_among_the_bytes(tmp_path: Path) -> None:
    for number in range(5):
        store(tmp_path, plan=bytes([number]), limit=1000).put(bytes(300))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 1000
    store(tmp_path, plan=b"large", limit=1000).put(bytes(2000))
    assert store(tmp_path, plan=b"large").get() is None


class Cache:
    """TensorRT's runtime cache: a context adds a byte for each that was not there."""

    def __init__(self) -> None:
        self.held = b""

    def deserialize(self, blob: bytes) -> bool:
        self.held = blob
        return blob != b"foreign"

    def serialize(self) -> bytes:
        return self.held


class Config:
    def create_runtime_cache(self) -> Cache:
        return Cache()

    def set_runtime_cache(self, cache: Cache) -> None:
        self.cache = cache


class Loaded:
    compiled, num_optimization_profiles = 0, 1

    def create_runtime_config(self) -> Config:
        return Config()

    def create_execution_context(self, config: Config | None = None) -> object:
        if config is None or not config.cache.held:
            self.compiled += 1
        if config is not None:
            config.cache.held = b"kernels"
        return object()


class Logger:
    errors = ()

    def take(self) -> tuple[str, ...]:
        return ()


def test_contexts_compile_once_for_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts.torch.cuda, "device", lambda index: torch.no_grad())
    for expected in (1, 0):
        loaded = Loaded()
        made = Contexts(loaded, None, 0, Logger(), store(tmp_path))
        for _ in range(3):
            assert made.make() is not None
            made.keep()
        assert loaded.compiled == expected


@pytest.mark.parametrize("allowed", [True, False])
def test_several_profiles_go_without_a_config_where_that_ends_the_process(
    allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts.torch.cuda, "device", lambda index: torch.no_grad())
    monkeypatch.setattr(contexts, "configured_contexts_have_profiles", lambda: allowed)
    loaded = Loaded()
    loaded.num_optimization_profiles = 2
    made = Contexts(loaded, None, 0, Logger(), store(tmp_path))
    assert [made.make() is not None for _ in range(2)] == [True, True]
    made.keep()
    assert loaded.compiled == (1 if allowed else 2)
