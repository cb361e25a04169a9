"""Which calls become CUDA graphs, over graphs that are written down; and on a GPU, what their replays give."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import trtplug
from trtplug.compiled import CompiledModule
from trtplug.errors import ExecutorError, SettingsError
from trtplug.executors import graphs
from trtplug.executors.graphs import GraphedSession, GraphWarning


class Plain:
    """A session that answers with what it was given, or refuses."""

    broken = False

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, inputs: Sequence[Any]) -> tuple[torch.Tensor, ...] | None:
        if inputs[0].dtype != torch.float32:
            raise ExecutorError("the dtype")
        self.calls += 1
        return (inputs[0],)


class Written:
    """A graph that answers 1, 2, 3, …"""

    made: list[tuple[int, ...]]
    fails = False

    def __init__(self, session: Any, inputs: Sequence[Any], device: torch.device) -> None:
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.made.append(tuple(inputs[0].shape))
        self.replays = 0

    def __call__(self, inputs: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        self.replays += 1
        return (torch.tensor(self.replays),)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> GraphedSession:
    Written.made = []
    monkeypatch.setattr(Written, "fails", False)
    monkeypatch.setattr(graphs, "Graph", Written)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(GraphedSession, "_replayed", lambda self, graph, inputs: graph(inputs))
    return GraphedSession(Plain(), Plain, lambda: None, "engine_0", torch.device("cuda", 0))  # type: ignore[arg-type]


def rows(count: int) -> torch.Tensor:
    return torch.zeros(count)


def test_the_second_call_of_a_shape_is_captured(session: GraphedSession) -> None:
    for _ in range(3):
        for count in (1, 2):
            session((rows(count),))
    assert Written.made == [(1,), (2,)]
    assert session.plain.calls == 2  # type: ignore[attr-defined]


def test_another_size_is_another_graph(session: GraphedSession) -> None:
    for size in (3, 4, 3, 4):
        session((rows(1), size))
    assert Written.made == [(1,), (1,)]


def test_shapes_that_come_once_are_not_captured(session: GraphedSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_COUNTED", 8)
    for count in range(1, 40):
        session((rows(count),))
    assert Written.made == []
    assert len(session._calls) <= 8


def test_graphs_are_bounded_and_the_oldest_goes(session: GraphedSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 2)
    monkeypatch.setattr(graphs, "AGAIN", 5)
    for count in (1, 1, 2, 2, 1):
        session((rows(count),))
    for _ in range(4):
        session((rows(3),))
    assert Written.made == [(1,), (2,)]  # no room: a graph goes only for what comes often
    session((rows(3),))
    assert Written.made == [(1,), (2,), (3,)]
    assert [key[0][0] for key in session._graphs] == [(1,), (3,)]


def test_what_cannot_be_captured_runs_without(session: GraphedSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Written, "fails", True)
    session((rows(1),))
    with pytest.warns(GraphWarning, match="engine_0: a call could not be captured .* not permitted"):
        session((rows(1),))
    session((rows(1),))
    assert session.plain.calls == 3  # type: ignore[attr-defined]


def test_a_refused_call_is_never_captured(session: GraphedSession) -> None:
    session((rows(1),))
    session((rows(1),))
    for _ in range(3):
        with pytest.raises(ExecutorError):
            session((rows(1).double(),))
    assert Written.made == [(1,)]


def test_within_somebodys_capture_it_is_no_graph(session: GraphedSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session((rows(1),))
    session((rows(1),))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    session((rows(1),))
    assert session.plain.calls == 2  # type: ignore[attr-defined]


def test_executors_without_graphs_refuse_the_setting(tmp_path: Any) -> None:
    layer = torch.nn.ReLU()
    words = "executor 'reference' has no CUDA graphs"
    with pytest.raises(ExecutorError, match=words):
        trtplug.compile(layer, (rows(3),), executor="reference", min_block_size=1, cuda_graphs=True)
    file = tmp_path / "model.trtp"
    trtplug.save(trtplug.compile(layer, (rows(3),), executor="reference", min_block_size=1), file)
    with pytest.raises(ExecutorError, match=words):
        trtplug.load(file, executor="reference", cuda_graphs=True)
    with pytest.raises(SettingsError, match="takes no cuda_graphs"):
        trtplug.load(tmp_path / "model.pt2", trusted=True, cuda_graphs=True)


# --- on a GPU ---------------------------------------------------------------------------------------------------------

gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


class Block(torch.nn.Module):
    """Elementwise only, so that results are exact."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.relu(x) * 2 + 1, torch.cat([x, -x], 1)


def compiled_block(**shapes: Any) -> CompiledModule:
    settings = {"min_block_size": 1, "executor": "tensorrt", "cuda_graphs": True}
    return trtplug.compile(Block().eval(), inputs=[trtplug.Input(**shapes)], **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def compiled() -> CompiledModule:
    return compiled_block(min_shape=(1, 4), opt_shape=(4, 4), max_shape=(64, 4))


def agree(compiled: CompiledModule, x: torch.Tensor) -> None:
    for ours, eager in zip(compiled(x), Block()(x), strict=True):
        torch.testing.assert_close(ours, eager, rtol=0, atol=0)


def session_of(compiled: CompiledModule) -> GraphedSession:
    (module,) = [m for m in compiled.graph_module.modules() if hasattr(m, "executor")]
    session = module._run._local.session
    assert isinstance(session, GraphedSession)
    return session


class TestOnAGpu:
    pytestmark = gpu

    def test_replays_agree_wherever_inputs_lie(self, compiled: CompiledModule) -> None:
        held = []
        for _ in range(6):
            for count in (1, 5, 64):
                held.append(torch.randn(count, 4, device="cuda"))
                agree(compiled, held[-1])
                agree(compiled, torch.randn(4, count, device="cuda").T)
        assert len(session_of(compiled)._graphs) == 3
        assert not session_of(compiled)._refused

    def test_results_are_fresh(self, compiled: CompiledModule) -> None:
        inputs = [torch.randn(7, 4, device="cuda") for _ in range(6)]
        results = [compiled(x) for x in inputs]
        for x, result in zip(inputs, results, strict=True):
            for ours, eager in zip(result, Block()(x), strict=True):
                torch.testing.assert_close(ours, eager, rtol=0, atol=0)

    def test_streams_in_turn(self, compiled: CompiledModule) -> None:
        streams = [torch.cuda.Stream() for _ in range(3)]
        found = []
        for number in range(30):
            with torch.cuda.stream(streams[number % 3]):
                x = torch.full((9, 4), float(number), device="cuda")
                found.append((x, compiled(x)))
        torch.cuda.synchronize()
        for x, result in found:
            torch.testing.assert_close(result[0], Block()(x)[0], rtol=0, atol=0)

    def test_threads(self, compiled: CompiledModule) -> None:
        errors: list[BaseException] = []

        def work(seed: int) -> None:
            try:
                with torch.cuda.stream(torch.cuda.Stream()):
                    for count in (1, 2, 3) * 4:
                        agree(compiled, torch.full((count, 4), float(seed), device="cuda"))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors

    def test_gradients_inference_mode_and_somebodys_graph(self, compiled: CompiledModule) -> None:
        for _ in range(3):
            with torch.inference_mode():
                agree(compiled, torch.randn(11, 4, device="cuda"))
            agree(compiled, torch.randn(11, 4, device="cuda", requires_grad=True).detach())
        x = torch.randn(11, 4, device="cuda")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = compiled(x)
        x.copy_(torch.randn(11, 4, device="cuda"))
        graph.replay()
        torch.testing.assert_close(results[0], Block()(x)[0], rtol=0, atol=0)

    def test_layers_say_what_they_are_made_of(self, compiled: CompiledModule) -> None:
        found = compiled.profile(torch.randn(5, 4, device="cuda"))
        assert found.layers
        assert found.ms > 0
        assert {"relu", "cat"} & {node for layer in found.layers for node in layer.nodes}

    def test_kernels_are_kept(self, tmp_path: Path) -> None:
        x = torch.randn(4, 4, device="cuda")
        settings = {"min_block_size": 1, "executor": "tensorrt", "cache_dir": str(tmp_path)}
        written = []
        for _ in range(2):
            made = trtplug.compile(Block().eval(), (x,), **settings)  # type: ignore[arg-type]
            torch.testing.assert_close(made(x)[0], Block()(x)[0], rtol=0, atol=0)
            (file,) = tmp_path.glob("*.kernels")
            written.append((file.stat().st_ino, file.stat().st_size))
        assert written[0] == written[1]  # found, and so not written again

    def test_new_weights(self) -> None:
        layer = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8)).cuda().eval()
        x = torch.randn(4, 8, device="cuda")
        settings = {"min_block_size": 1, "executor": "tensorrt", "cuda_graphs": True}
        made = trtplug.compile(layer, (x,), **settings)  # type: ignore[arg-type]
        plain = trtplug.compile(layer, (x,), **{**settings, "cuda_graphs": False})  # type: ignore[arg-type]
        before = made(x)
        for _ in range(4):
            torch.testing.assert_close(made(x), plain(x), rtol=0, atol=0)
        for module in (made, plain):
            module.update_weights({"0.weight": layer[0].weight.detach() * 2})
        for _ in range(4):
            torch.testing.assert_close(made(x), plain(x), rtol=0, atol=0)
        assert not torch.equal(made(x), before)
