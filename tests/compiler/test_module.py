"""The compiled module as an ``nn.Module``: state, copies, threads, interruptions; what it refuses says what to do."""

from __future__ import annotations

import copy
import io
import os
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import trtplug
from trtplug.engine import EngineModule
from trtplug.network import Network

KEPT = {"torch_ops": ["aten::mul"], "min_block_size": 1}


class Counting(nn.Module):
    """One weight in an engine, one in Torch (where `KEPT` keeps it), and a buffer that each call writes."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(4, 4), nn.Parameter(torch.randn(4))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        return self.outside * x + self.inside(x).relu() + self.calls


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Counting().eval()


@pytest.fixture
def compiled(model):
    return trtplug.compile(model, (torch.ones(2, 4),), **KEPT)


X = torch.linspace(-1, 1, 8).reshape(2, 4)


def test_state_dict_has_what_is_still_torchs_under_the_models_names(model, compiled):
    assert set(compiled.state_dict()) == {"outside", "calls"}
    compiled(X)
    assert compiled.state_dict()["calls"].item() == 1
    assert model.calls.item() == 1  # the model's memory is shared
    holder = nn.Module()
    holder.part = compiled
    assert set(holder.state_dict()) == {f"part.{name}" for name in compiled.state_dict()}
    for target, names in ((compiled, compiled.state_dict()), (holder, holder.state_dict())):
        target.load_state_dict({name: torch.full_like(value, 7) for name, value in names.items()})
        assert model.calls.item() == 7
        model.calls.zero_()


def test_a_weight_that_is_a_constant_cannot_be_loaded(model, compiled):
    with pytest.raises(trtplug.ModuleError, match=r"cannot load inside\.weight, inside\.bias: weights in engines"):
        compiled.load_state_dict(model.state_dict())
    with pytest.raises(trtplug.ModuleError, match="leave out assign="):
        compiled.load_state_dict(compiled.state_dict(), assign=True)
    compiled.load_state_dict(model.state_dict(), strict=False)


@pytest.mark.parametrize("move", [lambda m: m.to("meta"), lambda m: m.half(), lambda m: m.to(torch.float64)])
def test_it_stays_where_it_was_compiled(compiled, move):
    with pytest.raises(trtplug.ModuleError, match=r"cannot be moved or cast .*Move or cast the model, and"):
        move(compiled)
    assert compiled.to("cpu").float().cpu() is compiled
    compiled(X)


def test_a_deep_copy_has_tensors_of_its_own_and_shares_the_engines(model, compiled):
    other = copy.deepcopy(compiled)
    assert other.engines is compiled.engines
    first = other(X)
    torch.testing.assert_close(other(X), first + 1)
    assert model.calls.item() == 0
    torch.testing.assert_close(compiled(X), first)
    torch.testing.assert_close(copy.copy(compiled)(X), first + 1)


@pytest.mark.parametrize("write", [pickle.dumps, lambda module: torch.save(module, io.BytesIO())])
def test_pickling_is_refused_with_the_way_to_do_it(compiled, write):
    with pytest.raises(trtplug.ModuleError, match=r"trtplug\.save\(compiled, 'model\.trtp'\)"):
        write(compiled)


@pytest.mark.parametrize("way", ["compile", "torch.compile"])
def test_threads_call_at_once(way):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    batch = trtplug.Input(min_shape=(1, 4), opt_shape=(4, 4), max_shape=(16, 4))
    if way == "compile":
        fast = trtplug.compile(model, inputs=[batch])
    else:
        torch._dynamo.reset()
        fast = torch.compile(model, backend="trtplug", dynamic=True)
    start = threading.Barrier(8)

    def call(seed):
        generator = torch.Generator().manual_seed(seed)
        start.wait()
        with torch.no_grad():
            for _ in range(10):
                x = torch.randn(2 + seed, 4, generator=generator)
                torch.testing.assert_close(fast(x), model(x))

    with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        list(pool.map(call, range(8)))


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_an_interrupted_build_leaves_nothing(model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Network, "build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trtplug.compile(model, (X,), min_block_size=1)
    assert not list(tmp_path.iterdir())
    expected = copy.deepcopy(model)(X)
    torch.testing.assert_close(trtplug.compile(model, (X,), min_block_size=1)(X), expected)


def test_an_interrupted_save_leaves_the_file_that_was_there(compiled, monkeypatch, tmp_path):
    target = tmp_path / "model.trtp"
    trtplug.save(compiled, target)
    before = target.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trtplug.save(compiled, target)
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == before


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_second_gpu(model):
    expected = copy.deepcopy(model)(X)
    device = torch.device("cuda:1")
    compiled = trtplug.compile(model.to(device), (X.to(device),), min_block_size=1)
    assert compiled.report.executor == "tensorrt"
    result = compiled(X.to(device))
    assert result.device == device
    torch.testing.assert_close(result.cpu(), expected, rtol=1e-3, atol=1e-3)
    assert torch.cuda.current_device() == 0
    with pytest.raises(trtplug.ModuleError, match="cuda:1"):
        compiled.to("cuda:0")


def test_a_graph_that_is_one_engine_is_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Swapped(nn.Module):
        def forward(self, x, y):
            return (y + 1).relu(), (x * 2).tanh()

    compiled = trtplug.compile(Swapped(), (X, -X), min_block_size=1)
    seen: list[object] = []
    (engine,) = [part for part in compiled.graph_module.modules() if isinstance(part, EngineModule)]
    handle = engine.register_forward_pre_hook(lambda *call: seen.append(call))
    torch.testing.assert_close(compiled(X, -X), Swapped()(X, -X))
    handle.remove()
    monkeypatch.setattr(type(compiled.graph_module), "forward", None)
    torch.testing.assert_close(compiled(X, -X), Swapped()(X, -X))
    assert len(seen) == 1
