"""The collector's pause."""

from __future__ import annotations

import gc
import threading

import pytest

import trtplug
from trtplug.collector import collector_paused
from trtplug.compilation import Compilation
from trtplug.settings import Settings
from trtplug_registry import PluginManager


@collector_paused()
def failing():
    assert not gc.isenabled()
    with collector_paused():
        assert not gc.isenabled()
    assert not gc.isenabled()  # the inner pause did not end the outer one
    raise KeyError


def test_the_collector_rests_and_works_again_whatever_happens():
    assert gc.isenabled()
    with pytest.raises(KeyError):
        failing()
    assert gc.isenabled()


def test_it_rests_until_the_last_thread_is_done():
    begun, ended = threading.Event(), threading.Event()

    def pause():
        with collector_paused():
            begun.set()
            ended.wait(10)

    other = threading.Thread(target=pause)
    with collector_paused():
        other.start()
        assert begun.wait(10)
    assert not gc.isenabled()
    ended.set()
    other.join()
    assert gc.isenabled()


def test_a_collector_that_the_user_has_stopped_stays_stopped():
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_no_stage_of_ours_is_held_up_by_the_collector(monkeypatch):
    seen = {}
    run = Compilation(Settings.of({}), trtplug.registry(), None)
    for name in ("trace", "lower", "convert", "build", "lift", "link"):
        with run.stage(name):
            seen[name] = gc.isenabled()
    assert [name for name, collects in seen.items() if collects] == ["trace", "build"]  # Torch's, and TensorRT's
    monkeypatch.setattr(PluginManager, "settle_passes", lambda *_, **__: seen.update(assembling=gc.isenabled()))
    trtplug.registry()
    assert not seen["assembling"]
    assert gc.isenabled()
