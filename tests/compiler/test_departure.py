"""The first node whose numbers are not eager's, by itself or after drifting, and the script that shows it."""

from __future__ import annotations

import functools
import runpy

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import trtplug
from trtplug.cli import app
from trtplug.departure import find_departure
from trtplug.departure_script import write_script
from trtplug_registry import FLOATS, Domain, Plugin, Registry, Tensor, converter, lowering_pass


@converter("aten::sigmoid", Domain(self=Tensor(FLOATS)), priority=5)
def wrong_sigmoid(ctx, self):
    """sigmoid(Tensor self) -> Tensor"""
    return ctx.elementwise("SUM", ctx.activation("SIGMOID", self), 0.125)


@converter("aten::tanh", Domain(self=Tensor(FLOATS)), priority=5)
def drifting_tanh(ctx, self):
    """tanh(Tensor self) -> Tensor"""
    return ctx.elementwise("PROD", ctx.activation("TANH", self), 1.0004)


def registry_with(*converters):
    plugins = trtplug.registry().plugins
    return Registry((*plugins, Plugin("theirs", converters=converters)))


class Model(nn.Module):
    def __init__(self, size: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(size, size)

    def forward(self, x):
        return (self.linear(x).relu() + 1).sigmoid().exp()


class Drift(nn.Module):
    def forward(self, x):
        for _ in range(6):
            x = x.tanh()
        return x


def test_nothing_departs():
    assert find_departure(Model().eval(), (torch.randn(3, 4),), min_block_size=1) is None


@pytest.mark.parametrize("size", [4, 40])
def test_the_node_its_values_and_a_reproducer(size, tmp_path, monkeypatch):
    registry = registry_with(wrong_sigmoid)
    found = find_departure(Model(size).eval(), (torch.randn(30, size),), registry=registry, min_block_size=1)
    assert (found.op, found.alone, found.executor) == ("aten::sigmoid", True, "reference")
    assert found.found - found.expected == pytest.approx(0.125)
    assert found.differing == found.total == 30 * size
    assert "test_departure.py" in found.source
    path = tmp_path / "departure.py"
    found.write(path)
    assert path.with_suffix(".safetensors").exists() == (size == 40)
    real = trtplug.compile
    monkeypatch.setattr(trtplug, "compile", functools.partial(real, registry=registry))
    held = runpy.run_path(str(path))
    assert (held["found"] - held["expected"]).abs().max().item() == pytest.approx(0.125)


def test_a_drift_is_told_from_a_fault(tmp_path, monkeypatch):
    registry = registry_with(drifting_tanh)
    found = find_departure(Drift(), (torch.ones(3) * 0.2,), registry=registry, min_block_size=1)
    assert not found.alone
    assert found.op == "aten::tanh"
    assert "drifted" in str(found)
    path = tmp_path / "departure.py"
    found.write(path)
    monkeypatch.setattr(trtplug, "compile", functools.partial(trtplug.compile, registry=registry))
    held = runpy.run_path(str(path))
    assert held["expected"][0].item() == found.expected
    assert held["found"][0].item() == found.found


class Pick(nn.Module):
    def forward(self, x):
        return x.topk(2)[0].sigmoid()


def test_a_result_of_several_goes_into_a_reproducer(tmp_path):
    """A stretch in which a call reads an element of what another returns."""
    call = next(node for node in torch.export.export(Pick(), (torch.randn(3, 4),)).graph.nodes if "topk" in node.name)
    graph = call.graph
    values = {node: torch.randn(3, 4) for node in graph.nodes if node.op == "placeholder"}
    sigmoid = next(node for node in graph.nodes if "sigmoid" in node.name)
    path = tmp_path / "stretch.py"
    path.write_text(write_script((call, sigmoid), sigmoid, values, "reference")[0])
    held = runpy.run_path(str(path))
    torch.testing.assert_close(held["found"], held["expected"])


@lowering_pass("off")
def off(graph_module):
    """exp(x) -> sin(x)"""
    found = graph_module.graph.find_nodes(op="call_function", target=torch.ops.aten.exp.default)
    for node in found:
        node.target = torch.ops.aten.sin.default
    return bool(found)


def test_a_pass_that_is_wrong_is_told_from_an_engine():
    registry = Registry((*trtplug.registry().plugins, Plugin("theirs", passes=(off,))))
    call = functools.partial(find_departure, Model().eval(), (torch.randn(3, 4),), min_block_size=1)
    with pytest.raises(trtplug.LoweringError, match=r"lowering changes output 0 by .*before any engine"):
        call(registry=registry)


def test_a_tolerance_of_ones_own():
    call = functools.partial(find_departure, Drift(), (torch.ones(3) * 0.2,), registry=registry_with(drifting_tanh))
    assert call(min_block_size=1, tolerance=0.1) is None
    assert call(min_block_size=1, tolerance=1e-5).alone


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("size", [4, 40])
def test_on_a_gpu(size, tmp_path, monkeypatch):
    model, x = Model(size).eval().cuda(), torch.randn(30, size, device="cuda")
    settings = {"executor": "tensorrt", "min_block_size": 1}
    assert find_departure(model, (x,), **settings) is None
    registry = registry_with(wrong_sigmoid)
    found = find_departure(model, (x,), registry=registry, **settings)
    assert (found.op, found.alone, found.executor) == ("aten::sigmoid", True, "tensorrt")
    assert found.found - found.expected == pytest.approx(0.125, abs=1e-5)
    path = tmp_path / "departure.py"
    found.write(path)
    monkeypatch.setattr(trtplug, "compile", functools.partial(trtplug.compile, registry=registry))
    held = runpy.run_path(str(path))
    assert held["found"].device.type == "cuda"
    assert (held["found"] - held["expected"]).abs().max().item() == pytest.approx(0.125, abs=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_command_on_a_gpu(tmp_path):
    file, out = tmp_path / "products.py", tmp_path / "shown.py"
    made = 'torch.nn.Sequential(torch.nn.Linear(40, 40), torch.nn.Tanh()).cuda(), (torch.randn(9, 40, device="cuda"),)'
    file.write_text(f"import torch\ndef make():\n    torch.manual_seed(0)\n    return {made}\n")
    call = ["bisect", f"{file}:make", "--executor", "tensorrt", "-o", str(out)]
    result = CliRunner().invoke(app, call)
    assert (result.exit_code, result.output) == (0, "no engine departs from eager on these arguments\n")
    result = CliRunner().invoke(app, [*call, "--tolerance", "0"])  # nothing rounds alike
    assert result.exit_code == 3, result.output
    assert "departs from eager on the tensorrt executor" in result.output
    assert 'stored["t0"].to("cuda")' in out.read_text()


def test_the_command(tmp_path, monkeypatch):
    file = tmp_path / "drifting.py"
    file.write_text("import torch\ndef make():\n    return torch.nn.Linear(4, 4), (torch.randn(2, 4),)\n")
    result = CliRunner().invoke(app, ["bisect", f"{file}:make"])
    assert result.exit_code == 0, result.output
    assert "no engine departs" in result.output
    monkeypatch.setattr("trtplug.departure.registry_for", lambda settings: registry_with(wrong_sigmoid))
    file.write_text("import torch\ndef make():\n    return torch.nn.Sigmoid(), (torch.randn(2, 4),)\n")
    out = tmp_path / "shown.py"
    result = CliRunner().invoke(app, ["bisect", f"{file}:make", "-o", str(out)])
    assert result.exit_code == 3
    assert "aten::sigmoid" in result.output
    assert "torch.ops.aten.sigmoid.default(t0)" in out.read_text()
    result = CliRunner().invoke(app, ["bisect", f"{tmp_path}/none.py:make"])
    assert "there is no file" in str(result.exception)
    result = CliRunner().invoke(app, ["bisect", f"{file}:make", "-o", str(tmp_path / "nowhere" / "x.py")])
    assert "there is no folder" in str(result.exception)
