"""The collector's pause."""

from __future__ import annotations

import gc

import pytest

from trtplug.collector import collector_paused


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


def test_a_collector_that_the_user_has_stopped_stays_stopped():
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
