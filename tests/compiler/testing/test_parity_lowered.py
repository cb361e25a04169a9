"""Parity of what is decomposed, and that what is drawn for the record depends on nothing else that is imported."""

from __future__ import annotations

from hypothesis.internal.conjecture import providers

import trtplug
from trtplug.executors import pick_executor
from trtplug.testing.parity import check_lowered, lowered_calls
from trtplug.testing.parity.calls import GPU
from trtplug.testing.profiles import CI


def test_each_block_of_a_lowered_call_is_compared() -> None:
    registry = trtplug.registry()
    case = lowered_calls(registry)["aten::atan2-equals-eager"]
    found = check_lowered(case, pick_executor(registry, "reference"), "cpu")
    assert found.compared
    assert found.wrong == ()


def test_numbers_in_the_source_at_hand_are_not_drawn() -> None:
    before = providers._get_local_constants
    assert before().integers  # of trtplug's own source
    with CI.drawing():
        assert providers._get_local_constants is before
    with GPU.drawing():
        assert not providers._get_local_constants().integers
    assert providers._get_local_constants is before
