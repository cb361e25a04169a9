"""Converters that say they may lose NaN do have a layer that may; that no other has one is part of law 1."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import strategies as st

import trtplug
from trtplug.reference.latitude import loses_nan
from trtplug.testing.equality import draw_instance, with_nan
from trtplug.testing.errors import EnoughError
from trtplug.testing.profiles import CI
from trtplug.testing.trial import Trial
from trtplug_registry import Converter

REGISTRY = trtplug.registry()
DECLARED = [converter for converter in REGISTRY if converter.built_in and not converter.keeps_nan]


@pytest.mark.parametrize("converter", DECLARED, ids=lambda converter: converter.target_name)
def test_what_says_that_it_may_lose_nan_may(converter: Converter) -> None:
    profile = dataclasses.replace(CI, values=1)
    trial = Trial(REGISTRY, converter, torch.float32, profile, law="nan")
    lost = []

    def check(data: st.DataObject) -> None:
        instance = draw_instance(trial, data)
        network = trial.convert(instance.graph).lift()
        lost.append(loses_nan(network, with_nan(instance, instance.tensors)))
        if lost[-1]:
            raise EnoughError

    trial.explore(check, profile.calls)
    assert any(lost)


def test_the_ones_that_everybody_uses_are_among_them() -> None:
    assert {"aten::clamp", "aten::maximum", "aten::amax", "aten::max_pool2d", "aten::topk"} <= {
        converter.target_name for converter in DECLARED
    }
    (relu,) = [converter for converter in REGISTRY if converter.target_name == "aten::relu"]
    assert relu.keeps_nan
