"""The one variable that says whether TensorRT may use TF32."""

from __future__ import annotations

import os
import threading

import pytest

from trtplug.network import Network
from trtplug.network.finished import BuildOptions
from trtplug.testing.parity import layer_cases
from trtplug.tf32 import OVERRIDE, tf32_allowed


def test_it_is_set_inside_only() -> None:
    assert OVERRIDE not in os.environ
    with tf32_allowed(False):
        assert os.environ[OVERRIDE] == "0"
        with tf32_allowed(False):
            assert os.environ[OVERRIDE] == "0"
        assert os.environ[OVERRIDE] == "0"
    assert OVERRIDE not in os.environ
    with tf32_allowed(True):
        assert OVERRIDE not in os.environ


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, "1")
    with tf32_allowed(False):
        assert os.environ[OVERRIDE] == "1"
    assert os.environ[OVERRIDE] == "1"


def test_threads_that_want_it_otherwise_wait() -> None:
    seen: list[bool] = []

    def work(allowed: bool) -> None:
        for _ in range(200):
            with tf32_allowed(allowed):
                seen.append((OVERRIDE in os.environ) != allowed)

    threads = [threading.Thread(target=work, args=(place % 2 == 0,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 800
    assert all(seen)
    assert OVERRIDE not in os.environ


@pytest.mark.parametrize("tf32", [False, True])
def test_a_build_is_told(tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bool] = []
    network = layer_cases()["matrix_multiply NONE NONE float32"].sketch().network()
    progress = lambda phase, step, steps: heard.append(OVERRIDE not in os.environ)  # noqa: E731  one line says it
    Network.build(network, progress, BuildOptions(tf32=tf32))
    assert set(heard) == {tf32}
