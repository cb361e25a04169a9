"""Weights that stay in the host's memory: what is built, what is refused, what TensorRT is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import trtplug
from trtplug import _tensorrt
from trtplug.errors import ExecutorError, SettingsError
from trtplug.executors.tensorrt import EngineRun
from trtplug.network import finished
from trtplug_registry import RunOptions

SETTINGS: dict[str, Any] = {"executor": "reference", "min_block_size": 1, "on_failure": "raise"}
X = torch.randn(3, 4)


@pytest.mark.parametrize("streaming", [False, True])
def test_the_builder_is_told(streaming: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    flags, build = [], finished.serialized

    def seen(builder: Any, definition: Any, config: Any) -> bytes | None:
        flags.append(config.get_flag(_tensorrt.library().BuilderFlag.WEIGHT_STREAMING))
        return build(builder, definition, config)

    monkeypatch.setattr(finished, "serialized", seen)
    layer = torch.nn.Linear(4, 4).eval()
    compiled = trtplug.compile(layer, (X,), weight_streaming=streaming, **SETTINGS)
    assert flags == [streaming]
    assert compiled.engines[0].plan
    torch.testing.assert_close(compiled(X), layer(X))


def test_executors_that_stream_nothing_refuse_a_budget(tmp_path: Any) -> None:
    words, layer = "executor 'reference' streams no weights", torch.nn.Linear(4, 4).eval()
    with pytest.raises(ExecutorError, match=words):
        trtplug.compile(layer, (X,), weight_streaming=True, weight_budget_bytes=0, **SETTINGS)
    file = tmp_path / "model.trtp"
    trtplug.save(trtplug.compile(layer, (X,), weight_streaming=True, **SETTINGS), file)
    torch.testing.assert_close(trtplug.load(file, executor="reference")(X), layer(X))
    with pytest.raises(ExecutorError, match=words):
        trtplug.load(file, executor="reference", weight_budget_bytes=0)
    with pytest.raises(SettingsError, match="must be 0 or more"):
        trtplug.load(file, executor="reference", weight_budget_bytes=-1)
    with pytest.raises(SettingsError, match="takes no cuda_graphs, no cache_dir and no weight_budget_bytes"):
        trtplug.load(tmp_path / "model.pt2", trusted=True, weight_budget_bytes=0)


def test_a_library_without_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tensorrt, "capabilities", lambda: SimpleNamespace(has=lambda name: "Engine" not in name))
    with pytest.raises(SettingsError, match=r"weight_streaming: TensorRT [\d.]+ has none; leave it out"):
        trtplug.compile(torch.nn.Linear(4, 4).eval(), (X,), weight_streaming=True, **SETTINGS)


class Loaded:
    """An engine as TensorRT loads it, which takes budgets up to 80."""

    def __init__(self, streamable: int) -> None:
        self.streamable_weights_size, self._budget = streamable, 1

    @property
    def weight_streaming_budget_v2(self) -> int:
        return self._budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, budget: int) -> None:
        self._budget = budget if budget <= 80 else self._budget


@pytest.mark.parametrize(
    ("streamable", "budget", "set_to"),
    [(80, None, 80), (80, 0, 0), (80, 30, 30), (80, 1000, 80), (0, None, 1), (0, 5, "compile with weight_streaming"),
     (90, 85, "takes no budget of 85 bytes")],
)  # fmt: skip
def test_what_an_engine_is_told(streamable: int, budget: int | None, set_to: int | str) -> None:
    run, loaded = object.__new__(EngineRun), Loaded(streamable)
    run.engine, run.options = SimpleNamespace(name="engine_0"), RunOptions(weight_budget_bytes=budget)  # type: ignore[assignment]  # all that is read
    run._logger = SimpleNamespace(take=lambda: ())
    if isinstance(set_to, str):
        with pytest.raises(ExecutorError, match=set_to):
            run._set_budget(loaded)
    else:
        run._set_budget(loaded)
        assert loaded.weight_streaming_budget_v2 == set_to


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("budget", [None, 0, 1000])
def test_results_do_not_depend_on_the_budget(budget: int | None) -> None:
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(3))).eval().cuda(), torch.randn(4, 256)
    settings = {**SETTINGS, "executor": "tensorrt", "weight_streaming": True}
    plain = trtplug.compile(model, (x.cuda(),), **{**settings, "weight_streaming": False})
    compiled = trtplug.compile(model, (x.cuda(),), weight_budget_bytes=budget, **settings)
    for _ in range(3):
        torch.testing.assert_close(compiled(x.cuda()), plain(x.cuda()), rtol=0, atol=0)
