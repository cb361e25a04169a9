"""Whether TensorRT may use TF32 is decided once for a process, and told to it as the first builder is made."""

from __future__ import annotations

import os

import pytest

from trtplug.tf32 import OVERRIDE, Process


def told(process: Process) -> str | None:
    with process.making_a_builder():
        return os.environ.get(OVERRIDE)


def test_by_default_it_is_ruled_out_while_the_first_builder_is_made() -> None:
    process = Process()
    assert told(process) == "0"
    assert OVERRIDE not in os.environ
    assert told(process) is None
    assert process.allowed is False


def test_who_asks_first_decides() -> None:
    process = Process()
    assert process.decide(True)
    assert process.decide(False)
    assert told(process) is None


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, "1")
    assert told(Process()) == "1"
    assert os.environ[OVERRIDE] == "1"
