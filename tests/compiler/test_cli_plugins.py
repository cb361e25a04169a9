"""``trtplug plugins`` and ``trtplug doctor``: what is there, what is wrong with it, and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch
from typer.testing import CliRunner

from trtplug.cli import app
from trtplug.cli.doctor import _executor_problems, examine
from trtplug.cli.listing import advice
from trtplug_registry import Plugin

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/report.schema.json").read_text())
PLUGIN = """
import torch
from trtplug_registry import FLOATS, DisablePass, Domain, Tensor, converter, lowering_pass
trtplug_contract = 1

@converter(torch.ops.aten.relu.default, Domain(self=Tensor({dtypes})){more})
def relu(ctx, self): ...

@lowering_pass("tidy", replaces="trtplug-passes:dead-code")
def tidy(graph_module):
    '''x -> x'''
    return False

def trtplug_converters():
    return [relu]

def trtplug_lowering_passes():
    return [tidy, DisablePass("trtplug-passes:gelu", because="it has one")] if {passes} else []
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs distributions of one module each into a folder on sys.path, and goes to an empty project."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("COLUMNS", "80")

    def install(distribution: str, source: str) -> None:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.5\n")
        (info / "entry_points.txt").write_text(f"[trtplug]\n{distribution} = {module}\n")

    yield install
    import sys

    for module in ("one_ops", "two_ops", "lost_ops"):
        sys.modules.pop(module, None)


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == status, result.output
    return result.output


def rows() -> dict[str, dict]:
    document = json.loads(run("plugins", "--json"))
    jsonschema.validate(document, SCHEMA)
    return {row["name"]: row for row in document["plugins"]}


def test_plugins_say_what_they_bring_and_whom_they_override(install, monkeypatch):
    install("one-ops", PLUGIN.format(dtypes="(torch.float32,)", more="", passes=True))
    monkeypatch.setenv("TRTPLUG_BLOCK", "trtplug-tensorrt")
    found = rows()
    one = found["one-ops"]
    assert (one["distribution"], one["version"], one["contract"], one["state"]) == ("one-ops", "2.5", 1, "loaded")
    assert [c["id"] for c in one["converters"]] == ["one-ops:aten::relu"]
    assert one["seconds"] > 0
    (over,) = one["overrides"]
    assert (over["op"], over["converter"], over["how"]) == ("aten::relu", "trtplug-converters:aten::relu", "in part")
    (under,) = found["trtplug-converters"]["overridden_by"]
    assert (under["op"], under["by"]) == ("aten::relu", "one-ops:aten::relu")
    assert one["replaces"] == [{"pass": "trtplug-passes:dead-code", "by": "one-ops:tidy"}]
    assert one["pass_rulings"] == ["trtplug-passes:gelu does not run, says one-ops, because it has one"]
    assert found["trtplug-tensorrt"]["state"] == "blocked"
    text = run("plugins")
    assert "aten::relu: asked before trtplug-converters:aten::relu (in part)" in text
    assert "the pass one-ops:tidy runs in the place of trtplug-passes:dead-code" in text
    assert one["pass_rulings"][0] in " ".join(text.split())
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.count(" loaded") == 4


def test_nothing_is_wrong_where_nothing_is(install):
    report = json.loads(run("doctor", "--json"))
    jsonschema.validate(report, SCHEMA)
    assert report["problems"] == []
    (chosen,) = (row for row in report["tensorrt"] if row["chosen"])
    assert (chosen["name"], chosen["installed"]) == ("tensorrt-rtx", True)
    assert report["environment"]["torch"] == torch.__version__
    assert {row["name"]: row["unavailable"] for row in report["executors"]}["reference"] == ""
    assert "No problems." in run("doctor")


def test_what_is_wrong_is_said_with_its_remedy(install, monkeypatch):
    install("one-ops", PLUGIN.format(dtypes="", more="", passes=False))
    install("two-ops", PLUGIN.format(dtypes="", more="", passes=False))
    install("lost-ops", "import not_there_at_all")
    text = " ".join(run("doctor", status=1).split())
    assert "error: plugin 'lost-ops' is disabled: ModuleNotFoundError: No module named 'not_there_at_all'" in text
    report = examine()
    what = {item["what"]: item["remedy"] for item in report["problems"]}
    lost = "plugin 'lost-ops' is disabled: ModuleNotFoundError: No module named 'not_there_at_all'"
    (lost,) = (found for found in what if found.startswith(lost))  # then comes the line that imports it
    assert "lost_ops.py:1)" in lost
    assert what[lost] == "install what it needs (pip install not_there_at_all?), or remove it: pip uninstall lost-ops"
    conflict = "one-ops:aten::relu and two-ops:aten::relu both claim aten::relu with equal priority: neither is used"
    assert what[conflict] == "prefer one of them, TRTPLUG_PREFER=one-ops or two-ops"
    assert rows()["one-ops"]["conflicts"] == [{"op": "aten::relu", "with": "two-ops:aten::relu"}]
    assert "conflict with two-ops:aten::relu" in run("plugins")
    monkeypatch.setenv("TRTPLUG_PREFER", "two-ops")
    what = {item["what"] for item in examine()["problems"] if item["severity"] == "warning"}
    assert what == {"one-ops:aten::relu is never reached: two-ops:aten::relu takes all of its calls"}


def test_a_wrong_setting_is_a_problem_and_no_traceback(install, monkeypatch):
    monkeypatch.setenv("TRTPLUG_BLOCK", "nobody")
    text = " ".join(run("doctor", status=1).split())
    assert "unknown plugin 'nobody'" in text
    assert examine()["settings"] == [{"name": "block", "value": ["nobody"], "source": "TRTPLUG_BLOCK"}]


def test_no_tensorrt(install, monkeypatch):
    monkeypatch.setenv("TRTPLUG_TENSORRT", "tensorrt_rx")
    problems = {item["what"]: item["remedy"] for item in examine()["problems"]}
    ((what, remedy),) = ((w, r) for w, r in problems.items() if w.startswith("no TensorRT"))
    assert "choose one of tensorrt, tensorrt_rtx" in what
    assert remedy.startswith("correct the variable")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("it was written for version 2 of the plugin contract", "pip install --upgrade acme"),
        ("its name is taken by the plugin of 'x'", "pip uninstall acme"),
        ("SyntaxError: invalid syntax", "TRTPLUG_BLOCK=ops"),
    ],
)
def test_advice(error, words):
    assert words in advice(Plugin("ops", distribution="acme", error=error))


def test_a_gpu_that_the_library_does_not_support():
    gpu = {"driver": "1", "usable by torch": True, "devices": ["a GPU"]}
    row = {"name": "tensorrt", "device": "cuda", "unavailable": "TensorRT 1 does not run on a GPU"}
    (problem,) = _executor_problems({"gpu": gpu, "executors": [row]})
    assert problem["severity"] == "warning"
    assert "TensorRT 1 does not run on a GPU" in problem["what"]
    (problem,) = _executor_problems({"gpu": {**gpu, "usable by torch": False}, "executors": []})
    assert "there is a driver (1)" in problem["what"]
    assert not _executor_problems({"gpu": {**gpu, "driver": "", "usable by torch": False}, "executors": []})
