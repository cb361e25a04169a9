"""``trtplug certify`` and the pytest plugin: right and wrong plugins are told apart, and nobody else is bothered."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import torch
from typer.testing import CliRunner

import trtplug
from trtplug.cli import app
from trtplug.testing import Status, plugin_cases
from trtplug_registry import Domain, Example, Only, Plugin, Registry, Tensor, converter, lowering_pass

aten = torch.ops.aten

PLUGIN = """
import torch
from trtplug_registry import FLOATS, Domain, Tensor, converter, lowering_pass
trtplug_contract = 1

@converter(torch.ops.aten.erf.default, Domain(self=Tensor({dtypes})))
def erf(ctx, self):
    return ctx.unary({kind!r}, self)

@lowering_pass("idle")
def idle(graph_module):
    '''x -> x'''
    return False

def trtplug_converters():
    return [erf] if {kind!r} else []

def trtplug_lowering_passes():
    return [idle] if {idle} else []
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a plugin of one converter into a folder on sys.path; returns the folder."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(**facts):
        (tmp_path / "planted_ops.py").write_text(PLUGIN.format(**{"dtypes": "FLOATS", **facts}))
        info = tmp_path / "planted_ops-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted-ops\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[trtplug]\nplanted-ops = planted_ops\n")
        return tmp_path

    yield install
    sys.modules.pop("planted_ops", None)


def certify(*options: str):
    result = CliRunner().invoke(app, ["certify", "planted-ops", *options])
    return result.exit_code, result.output


def test_a_right_plugin_is_certified(install):
    install(kind="ERF", idle=False)
    status, output = certify("--json")
    report = json.loads(output)
    jsonschema.validate(report, json.loads((Path(__file__).parents[3] / "docs/report.schema.json").read_text()))
    assert status == 0, output
    assert report["counts"]["violated"] == report["counts"]["unproven"] == 0
    laws = {(verdict["subject"], verdict["law"]): verdict for verdict in report["verdicts"]}
    erf = "planted-ops:aten::erf"
    assert {law for subject, law in laws if subject == erf} == {
        *("equals-eager", "total", "builds", "reasons", "dynamic", "order", "refusals")
    }
    assert laws[erf, "equals-eager"]["dtype"] == "bfloat16"  # the last of them
    assert laws["planted-ops", "order"]["status"] == "holds"


def test_a_wrong_converter_and_an_idle_pass(install):
    install(kind="NEG", idle=True, dtypes="(torch.float32,)")
    status, output = certify()
    assert status == 1
    assert "✗\N{NO-BREAK SPACE}equals-eager (float32)" in output
    assert "violated: planted-ops:aten::erf float32 equals-eager" in output
    assert "run_op(" in output  # the script that shows it
    assert "unproven: planted-ops:idle preserves" in output


def test_what_is_unproven_fails_only_where_that_is_asked_for(install):
    install(kind="", idle=True)
    cases = [case for case in plugin_cases("planted-ops") if case.kind == "pass"]
    assert [case.judge().status for case in cases] == [Status.UNPROVEN]
    assert certify()[0] == 0
    assert certify("--strict")[0] == 1


def test_a_plugin_that_is_not_there(install):
    status, _ = certify()
    assert status != 0


@lowering_pass("double")
def double(graph_module):
    """relu(x) -> relu(x) + relu(x)"""
    found = graph_module.graph.find_nodes(op="call_function", target=aten.relu.default)
    for node in found:
        users = list(node.users)
        with graph_module.graph.inserting_after(node):
            twice = graph_module.graph.call_function(aten.add.Tensor, (node, node))
        twice.meta = dict(node.meta)
        for user in users:
            user.replace_input_with(node, twice)
    return bool(found)


@converter(aten.relu.default, Domain(self=Tensor((torch.float32,))))
def relu(ctx, self):
    return ctx.activation("RELU", self)


@converter(aten.leaky_relu.default, Domain(self=Tensor((torch.float32,)), negative_slope=Only(0.5)))
def never(ctx, self, negative_slope=0.01): ...


def statuses(**brought) -> dict[str, Status]:
    plugin = Plugin("mine", **{kind: tuple(_stamped(item) for item in items) for kind, items in brought.items()})
    cases = plugin_cases("mine", Registry([plugin, *trtplug.registry().plugins]))
    return {case.subject: case.judge().status for case in cases if case.law in ("preserves", "example")}


def _stamped(item):
    return dataclasses.replace(item, plugin="mine")


def test_a_pass_is_held_to_its_examples():
    model = Example("double", lambda x: torch.relu(x) * 1, lambda: (torch.randn(3),))
    assert statuses(passes=[double], examples=[model])["mine:double"] is Status.VIOLATED
    other = Example("double", lambda x: x * 2, lambda: (torch.randn(3),))
    assert statuses(passes=[double], examples=[other])["mine:double"] is Status.UNPROVEN


def test_an_example_of_a_converter_in_which_it_has_no_part_proves_nothing():
    right = Example("aten::relu", torch.relu, lambda: (torch.randn(3),))
    wrong = Example("aten::leaky_relu", lambda x: torch.relu(x) + 0, lambda: (torch.randn(3),))
    found = statuses(converters=[relu, never], examples=[right, wrong])
    assert found == {"mine:aten::relu": Status.HOLDS, "mine:aten::leaky_relu": Status.UNPROVEN}


UNRELATED = """
import sys

def test_nothing_of_ours_is_loaded():
    assert not {"torch", "numpy", "hypothesis", "trtplug.testing", "trtplug_registry"} & set(sys.modules)
"""


def run_pytest(folder, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    switched_off = ["-p", "no:hypothesispytest", "-p", "no:xdist"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [*command, *switched_off, *options], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_an_unrelated_suite_is_not_bothered(tmp_path):
    (tmp_path / "test_unrelated.py").write_text(UNRELATED)
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_pytest_tries_the_laws_of_a_plugin(install):
    folder = install(kind="NEG", idle=True, dtypes="(torch.float32,)")
    done = run_pytest(
        folder, "--trtplug-plugin=planted-ops", "-k", "equals or preserves", "-rs", "--trtplug-profile=ci"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "planted-ops:aten::erf-float32-equals-eager" in done.stdout
    assert "run_op(" in done.stdout
    assert "unproven: planted-ops:idle" in done.stdout
    assert "1 failed, 1 skipped" in done.stdout
