"""Times of layers: which nodes they come from, and over an executor that is written down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

import trtplug
from trtplug.errors import ExecutorError
from trtplug.executors.profiling import layer_times
from trtplug.profile import Profile, origins
from trtplug_registry import CONTRACT, Executor, PluginManager, Registry, hookimpl


@pytest.mark.parametrize(
    ("layer", "nodes"),
    [
        (
            {"Name": "__myl_FcAdd_myl0_3", "Metadata": "linear_1:aten::linear\x1fadd:aten::add.Tensor"},
            ("linear_1", "add"),
        ),
        ({"Name": "linear_1.matrix_multiply+linear.matrix_multiply_myl0_9"}, ("linear", "linear_1")),
        ("conv2d.convolution_nd_myl0_1", ("conv2d",)),
        ("__mye75_myl0_1", ()),
    ],
)
def test_nodes_of_a_layer(layer: Any, nodes: tuple[str, ...]) -> None:
    known = ("linear", "linear_1", "linear_10", "conv2d", "add")
    (found,) = origins({"Layers": [layer]}, known).values()
    assert sorted(found) == sorted(nodes)


class Context:
    """Reports two layers for each call, one of them twice."""

    profiler: Any = None

    def run(self) -> None:
        if self.profiler is not None:
            for name, ms in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
                self.profiler.report_layer_time(name, ms)


def test_times_are_medians_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    context = Context()
    assert layer_times(context, context.run, 5, "engine_0") == [("a", 4.0), ("b", 2.0)]
    assert context.profiler is None
    with pytest.raises(ExecutorError, match="engine_0: TensorRT reports no times"):
        layer_times(context, lambda: None, 5, "engine_0")


class Timed:
    """An executor that computes and says how long each node took."""

    trtplug_contract = CONTRACT

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.given: list[int] = []

    def __call__(self, *inputs: Any) -> tuple[torch.Tensor, ...]:
        return tuple(self.engine.reference(*inputs))

    def profile(self, inputs: Sequence[Any], calls: int) -> list[tuple[str, float]]:
        return [("__myl_MulAdd", 0.25 * len(inputs[0])), ("other", 0.5)]

    def inspect(self) -> Any:
        return {
            "Layers": [{"Name": "__myl_MulAdd", "Metadata": "mul:aten::mul.Tensor\x1fadd:aten::add.Tensor"}, "other"]
        }


class Plugin:
    trtplug_contract = CONTRACT

    @hookimpl
    def trtplug_executors(self) -> list[Executor]:
        return [Executor("timed", lambda: None, Timed)]


class Block(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 + 1


def test_a_module_tells_its_layers() -> None:
    manager = PluginManager()
    manager.load_entry_points()
    manager.register(Plugin(), "timed")
    registry = Registry(manager.plugins)
    compiled = trtplug.compile(Block(), (torch.ones(4),), min_block_size=1, executor="timed", registry=registry)
    found = compiled.profile(torch.ones(4))
    assert isinstance(found, Profile)
    assert [(layer.engine, layer.layer, layer.ms, layer.nodes) for layer in found.layers] == [
        ("engine_0", "__myl_MulAdd", 1.0, ("mul", "add")),
        ("engine_0", "other", 0.5, ()),
    ]
    assert found.ms == 1.5
    assert [layer.layer for layer in found.costliest(1)] == ["__myl_MulAdd"]
    assert "__myl_MulAdd" in str(found)
    assert found.to_dict()["ms"] == 1.5


def test_executors_without_times_say_so() -> None:
    compiled = trtplug.compile(Block(), (torch.ones(4),), min_block_size=1, executor="reference")
    with pytest.raises(ExecutorError, match="executor 'reference' tells no times of layers"):
        compiled.profile(torch.ones(4))
