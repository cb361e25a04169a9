"""Times of layers: which nodes they come from, and over an executor that is written down."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from pages import BROWSER, page_data, visit
from typer.testing import CliRunner

import trtplug
from trtplug.artefacts.malformed import Malformed
from trtplug.artefacts.records import report_of
from trtplug.cli import app, load_model
from trtplug.errors import ExecutorError, SettingsError
from trtplug.executors.profiling import layer_times
from trtplug.inspection import LayerRecord, LoadedRecord, origins
from trtplug.profile import Profile
from trtplug_registry import CONTRACT, Executor, PluginManager, Registry, TrtplugError, hookimpl

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/report.schema.json").read_text())


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
    """An executor that computes and says how long each layer took, and what the engine is."""

    trtplug_contract = CONTRACT

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def __call__(self, *inputs: Any) -> tuple[torch.Tensor, ...]:
        return tuple(self.engine.reference(*inputs))

    def profile(self, inputs: Sequence[Any], calls: int) -> list[tuple[str, float]]:
        return [("__myl_MulAdd", 0.25 * len(inputs[0])), ("other", 0.5), ("add.elementwise [profile 1]", 0.5)]

    def inspect(self) -> Any:
        fused = {"Name": "__myl_MulAdd", "Metadata": "mul:aten::mul.Tensor\x1fadd:aten::add.Tensor"}
        return {"Layers": [fused, "other"], "Engine": {"device_memory": 4096, "aux_streams": 2}}


class Silent(Timed):
    """One that tells no times."""

    profile = inspect = property()  # type: ignore[assignment]  # there is no such attribute


class Plugin:
    trtplug_contract = CONTRACT

    @hookimpl
    def trtplug_executors(self) -> list[Executor]:
        return [Executor("tensorrt", lambda: None, Timed), Executor("silent", lambda: None, Silent)]


class Block(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 + 1


def compiled_for(executor: str, **settings: Any) -> Any:
    """With the plugin's executors, one of which takes the place of TensorRT's."""
    manager = PluginManager(block=["trtplug-tensorrt"])
    manager.load_entry_points()
    manager.register(Plugin(), "timed")
    program = trtplug.trace(Block(), inputs=[trtplug.Input(min_shape=(1,), opt_shape=(4,), max_shape=(8,), name="x")])
    registry = Registry(manager.plugins)
    return trtplug.compile(program, min_block_size=1, executor=executor, registry=registry, **settings)


@pytest.fixture(scope="module")
def recorded() -> Profile:
    """A profile as TensorRT's executor gives it, the numbers being ours."""
    found = compiled_for("tensorrt").profile(torch.ones(4))
    assert isinstance(found, Profile)
    return found


def test_a_module_tells_its_layers(recorded: Profile) -> None:
    assert [(layer.engine, layer.layer, layer.ms, layer.nodes) for layer in recorded.layers] == [
        ("engine_0", "__myl_MulAdd", 1.0, ("mul", "add")),
        ("engine_0", "other", 0.5, ()),
        ("engine_0", "add.elementwise [profile 1]", 0.5, ("add",)),  # which the inspector does not list
    ]
    assert recorded.ms == 2.0
    assert [layer.layer for layer in recorded.costliest(1)] == ["__myl_MulAdd"]
    assert [node.op for node in recorded.nodes_of(recorded.layers[0])] == ["aten::mul.Tensor", "aten::add.Tensor"]
    assert (recorded.calls, recorded.inputs, recorded.caution) == (10, ("x: float32[4]",), "")


def test_the_table_of_a_profile(recorded: Profile) -> None:
    text = str(recorded)
    assert "3 layers of TensorRT's: 2.000 ms, medians of 10 calls on cpu" in text
    assert re.search(r"1\.0000 +50\.0% +█{8} +0 +mul, add +\S*test_profile\.py:\d+", text)
    recorded.print(shown := io.StringIO(), layers=1)
    assert "… and 2 more layers, 1.000 ms" in shown.getvalue()


def test_a_profile_as_json_and_as_a_page(recorded: Profile) -> None:
    data = json.loads(recorded.to_json())
    jsonschema.validate(data, SCHEMA)
    assert (data["format"], data["version"]) == ("trtplug-profile", 1)
    assert data["layers"][0] == {
        "engine": "engine_0",
        "layer": "__myl_MulAdd",
        "ms": 1.0,
        "nodes": ["mul", "add"],
        "share": pytest.approx(1 / 2),
    }
    page = page_data(recorded.to_html())
    assert page == {**data, "ops": [], "shares": recorded.report.shares, "left_out": []}


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt-get install chromium)")
def test_the_page_shows_layers_as_bars(recorded: Profile, tmp_path: Path) -> None:
    script = """
    document.querySelector(".list.layers .row").click();
    const bars = [...document.querySelectorAll(".list.layers .meter > i")].map(bar => bar.style.width);
    return {bars, detail: document.getElementById("layers-detail").textContent, words: document.body.innerText};
    """
    seen = visit(recorded.to_html(), script, tmp_path)
    assert seen.console == ()
    assert seen.result["bars"] == ["100%", "50%", "50%"]
    assert "aten::mul.Tensor" in seen.result["detail"]
    assert "return x * 2 + 1" in seen.result["detail"]
    assert "x[0]=1..4..8" in seen.result["words"]  # as a profile in the settings calls what has no name
    assert "4,096 bytes of scratch memory" in seen.result["words"]


def test_the_report_says_what_a_loaded_engine_is(recorded: Profile, tmp_path: Path) -> None:
    (engine,) = recorded.report.engines
    layers = (LayerRecord("__myl_MulAdd", ("mul", "add")), LayerRecord("other", ()))
    assert engine.loaded == LoadedRecord(4096, None, 2, layers)
    assert "loaded: 2 layers of TensorRT's, 4,096 bytes of scratch memory, 2 auxiliary streams" in str(recorded.report)
    data = json.loads(recorded.report.to_json())
    jsonschema.validate(data, SCHEMA)
    assert report_of(json.dumps(data).encode()) == recorded.report


def test_tensorrt_is_asked_for_its_layers_when_the_report_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked, inspect = [], Timed.inspect
    monkeypatch.setattr(Timed, "inspect", lambda self: asked.append(self) or inspect(self))
    compiled = compiled_for("tensorrt")
    copied, found = copy.copy(compiled), copy.deepcopy(compiled)
    compiled(torch.ones(4))
    assert not asked
    assert compiled.report is compiled.report
    assert copied.report is found.report is compiled.report
    assert compiled.report.engines[0].loaded is not None
    assert len(asked) == 1


def test_a_report_of_before_engines_said_so_is_read(recorded: Profile) -> None:
    data = json.loads(recorded.report.to_json())
    for engine in data["engines"]:
        del engine["profiles"], engine["loaded"]
    (engine,) = report_of(json.dumps(data).encode()).engines
    assert (engine.profiles, engine.loaded) == ((), None)
    del data["engines"][0]["inputs"]
    with pytest.raises(Malformed, match="a EngineRecord has the fields"):
        report_of(json.dumps(data).encode())


def test_the_reference_executor_tells_its_own_times_and_says_so() -> None:
    found = compiled_for("reference", profiles=["x[0]=1..2", "x[0]=4..8"]).profile(torch.ones(4), calls=2)
    assert {node for layer in found.layers for node in layer.nodes} == {"mul", "add"}
    assert all(layer.ms > 0 for layer in found.layers)
    assert "not of TensorRT: they say nothing of a GPU" in found.caution
    assert found.caution.split(":")[0] in str(found)
    assert found.report.engines[0].loaded is None
    jsonschema.validate(json.loads(found.to_json()), SCHEMA)


def test_executors_without_times_say_so() -> None:
    compiled = compiled_for("silent")
    with pytest.raises(ExecutorError, match="executor 'silent' tells no times of layers"):
        compiled.profile(torch.ones(4))
    with pytest.raises(SettingsError, match="calls=0: must be at least 1"):
        compiled.profile(torch.ones(4), calls=0)


# --- the command line -------------------------------------------------------------------------------------------------


MODEL = """
import torch, trtplug

class Table(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(9, 4)

    def forward(self, ids, *, scale):
        return self.table(ids).relu() * scale

def make():
    batch = dict(min_shape=(1, 2), opt_shape=(3, 2), max_shape=(6, 2), dtype=torch.int64, dims={0: "batch"})
    return trtplug.trace(Table().eval(), [trtplug.Input(**batch)], {"scale": 2.0})
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a model of dynamic sizes, a keyword and a constant; beside it the model, compiled."""
    file = tmp_path_factory.mktemp("profile") / "a_table.py"
    file.write_text(MODEL)
    program = load_model(f"{file}:make")
    trtplug.save(trtplug.compile(program, min_block_size=1, executor="reference"), file.with_suffix(".trtp"))
    return file


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["profile", *map(str, words), "--calls", "1"])


def test_profile_of_a_model(model: Path, tmp_path: Path) -> None:
    profiles = "--profile", "batch=1..3", "--profile", "batch=4..6"
    result = invoke(f"{model}:make", "--json", "--html", tmp_path / "page.html", "--min-block-size", 1, *profiles)
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    jsonschema.validate(data, SCHEMA)
    assert data["inputs"] == ["args_0: int64[3, 2]", "kwargs_scale: 2.0"] or data["inputs"][0].endswith("int64[3, 2]")
    made = [
        [(size["name"], size["min"], size["max"]) for size in sizes]
        for sizes in data["model"]["engines"][0]["profiles"]
    ]
    assert made == [[("batch", 1, 3)], [("batch", 4, 6)]]
    assert page_data((tmp_path / "page.html").read_text())["layers"] == sorted(
        data["layers"], key=lambda layer: -layer["ms"]
    )


def test_profile_of_a_file_at_a_size(model: Path) -> None:
    result = invoke(model.with_suffix(".trtp"), "--sizes", "batch=5", "--layers", 1)
    assert result.exit_code == 0, result.output
    assert "int64[5, 2]" in result.stdout
    assert "more layers" in result.stdout


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--sizes", "bach=5"], "unknown dynamic size 'bach': did you mean 'batch'"),
        (["--sizes", "batch=1..5"], "is a range; a call has one size: batch=1"),
        (["--sizes", "batch=50"], "batch is compiled for 1 to 6"),
        (
            ["--min-block-size", "3", "--tf32"],
            "is compiled already, so min_block_size, tf32 can change nothing|tf32 can",
        ),
    ],
)
def test_what_profile_refuses(model: Path, words: list[str], error: str) -> None:
    result = invoke(model.with_suffix(".trtp"), *words)
    assert isinstance(result.exception, TrtplugError)
    assert re.search(error, str(result.exception))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_profile_on_a_gpu() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8)).cuda().eval()
    batch = trtplug.Input(min_shape=(1, 64), opt_shape=(8, 64), max_shape=(32, 64), dims={0: "batch"})
    compiled = trtplug.compile(model, inputs=[batch], profiles=["batch=1", "batch=2..8..32"], min_block_size=1)
    (engine,) = compiled.report.engines
    assert [[str(size) for size in sizes] for sizes in engine.profiles] == [["batch=1"], ["batch=2..8..32"]]
    assert engine.loaded is not None
    assert engine.loaded.layers
    assert engine.loaded.device_memory is not None
    assert engine.loaded.aux_streams is not None
    found = compiled.profile(torch.randn(8, 64, device="cuda"))
    assert found.caution == ""
    assert found.device == torch.cuda.get_device_name()
    assert {node for layer in found.layers for node in layer.nodes} <= {node.name for node in compiled.report.nodes}
    assert any(layer.nodes for layer in found.layers)
    jsonschema.validate(json.loads(found.to_json()), SCHEMA)
