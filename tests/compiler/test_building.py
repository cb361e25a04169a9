"""Engines that are built side by side: the same engines, in the same order, with the same failures."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

import trtplug
from trtplug import building
from trtplug.artefacts.malformed import Malformed
from trtplug.artefacts.records import report_of
from trtplug.building import Builds
from trtplug.errors import BuildError
from trtplug.network import Network
from trtplug_registry import ReasonCode


class Split(nn.Module):
    """Three engines between matrix exponentials, of which the numbers tell which is which."""

    def forward(self, x):
        for number in (2.0, 3.0, 4.0):
            x = torch.linalg.matrix_exp((x * number).sin() + 0.5)
        return x


X = torch.full((2, 2), 0.25)
REAL = Network.build


@pytest.fixture
def two_cpus(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: False)


def holds(network, number):
    return any(weight.numel() == 1 and weight.item() == number for weight in network.weights.values())


def compiled(**settings):
    return trtplug.compile(Split(), (X,), min_block_size=1, executor="reference", **settings)


def test_builds_overlap_and_their_order_is_that_of_the_blocks(two_cpus, monkeypatch):
    both, began = threading.Barrier(2, timeout=60), []

    def build(self, *args):
        began.append(threading.current_thread().name)
        if holds(self, 2.0) or holds(self, 3.0):
            both.wait()  # neither goes on before the other has begun
        return REAL(self, *args)

    monkeypatch.setattr(Network, "build", build)
    made = compiled()
    assert len(set(began)) == 2
    monkeypatch.setattr(building, "MOST_AT_ONCE", 1)
    monkeypatch.setattr(Network, "build", REAL)
    alone = compiled()
    assert [e.nodes for e in made.report.engines] == [e.nodes for e in alone.report.engines]
    assert [e.plan for e in made.engines] == [e.plan for e in alone.engines]
    torch.testing.assert_close(made(X), alone(X), rtol=0, atol=0)


def test_the_first_block_that_fails_is_blamed_though_another_fails_before_it(two_cpus, monkeypatch):
    later = threading.Event()

    def build(self, *args):
        if holds(self, 2.0):
            assert later.wait(60)
            raise BuildError("the first", (), ())
        if holds(self, 3.0):
            later.set()
            raise BuildError("the second", (), ())
        return REAL(self, *args)

    monkeypatch.setattr(Network, "build", build)
    monkeypatch.setattr("trtplug.compilation.Compilation._bisect", lambda self, lowered, block: block.compute_nodes[0])
    with pytest.warns(trtplug.FallbackWarning) as caught:
        made = compiled()
    words = [str(warning.message) for warning in caught if issubclass(warning.category, trtplug.FallbackWarning)]
    assert [("the first" in text, "the second" in text) for text in words[:2]] == [(True, False), (False, True)]
    failed = [node for node in made.report.torch_ops if node.reasons[0].code is ReasonCode.BUILD_FAILED]
    assert [node.op for node in failed] == ["aten::mul.Tensor", "aten::mul.Tensor"]


def test_what_a_build_raises_besides_is_raised(two_cpus, monkeypatch):
    def build(self, *args):
        raise ZeroDivisionError

    monkeypatch.setattr(Network, "build", build)
    with pytest.raises(ZeroDivisionError):
        compiled()


class Weighty:
    """As much of a network as `Builds` asks for."""

    def __init__(self, weights):
        self.weights = {str(place): weight for place, weight in enumerate(weights)}


def test_large_networks_are_built_alone(two_cpus, monkeypatch):
    monkeypatch.setattr(building, "MOST_BYTES", 100)
    large, small = Weighty([torch.zeros(20)]), Weighty([torch.zeros(5)])
    with Builds(lambda network: b"plan", most=3) as builds:
        assert not builds.full(large)
        first = builds.start(large)
        assert builds.full(large)
        assert not builds.full(small)
        second = builds.start(small)
        assert builds.full(small)  # two at once on two CPUs
        assert (first().plan, second().plan) == (b"plan", b"plan")
        assert not builds.full(large)


def test_a_report_of_another_version_is_refused():
    text = trtplug.explain(Split(), (X,), min_block_size=1).to_json()
    with pytest.raises(Malformed, match="version is 99, not 1"):
        report_of(text.replace('"version": 1', '"version": 99', 1).encode())
