"""What lowering did, where a user looks: the report in its three forms, dumped graphs, the command line."""

from __future__ import annotations

import io
import json
import re
import types
from pathlib import Path

import pytest
import torch
from conftest_lowering import aten, registry_of
from pages import page_data
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

import trtplug
from trtplug.cli import app
from trtplug.errors import LoweringError, SettingsError
from trtplug.jit import session
from trtplug.lowering import lower
from trtplug.report_tables import render
from trtplug.settings import Settings
from trtplug.testing import check_pass
from trtplug.tracing import trace
from trtplug_registry import (
    CONTRACT,
    FLOATS,
    Domain,
    PluginManager,
    Registry,
    Tensor,
    converter,
    lowering_pass,
    rewrite_rule,
    rule_pass,
)

MODEL = """
import torch
from rich.console import Console
from torch import nn

class Model(nn.Module):
    def forward(self, x):
        y = nn.functional.dropout(x, training=False)
        return torch.relu(torch.relu(y)) + torch.arange(4) * 2

def make():
    return Model(), (torch.randn(3, 4),)
"""


@rewrite_rule("double-relu", pattern=lambda x: aten.relu.default(aten.relu.default(x)))
def one_relu(x):
    """relu(relu(x)) → relu(x)"""
    return aten.relu.default(x)


@rewrite_rule("no-add", pattern=lambda x, y: aten.add.Tensor(x, y), check=lambda match: "adding is fine")
def no_add(x, y):
    """x + y → x - (-y)"""
    return aten.sub.Tensor(x, aten.neg.default(y))


class Rules:
    trtplug_contract = CONTRACT

    def trtplug_lowering_passes(self):
        return [rule_pass("rules", [one_relu, no_add])]


def with_plugin(plugin, name="mine", **choices) -> Registry:
    manager = PluginManager(strict=True)
    manager.load_entry_points()
    manager.register(plugin, name)
    return Registry(manager.plugins, capabilities=trtplug.registry().capabilities, **choices)


class Model(nn.Module):
    def forward(self, x):
        y = nn.functional.dropout(x, training=False)
        y = torch.relu(torch.relu(y)) + torch.arange(4) * 2
        return nn.functional.celu(y)


@pytest.fixture(scope="module")
def report():
    return trtplug.explain(Model(), (torch.randn(3, 4),), registry=with_plugin(Rules()))


def test_what_became_of_each_exported_call(report):
    by_name = {item.name: item for item in report.originals}
    assert list(by_name)[:3] == ["dropout", "relu", "relu_1"], "in the order of the graph"
    assert by_name["dropout"].became == "rewritten"
    assert by_name["dropout"].by == "trtplug-passes:no-ops-early"
    assert by_name["dropout"].nodes == ("x",)
    for name in ("relu", "relu_1"):
        assert (by_name[name].became, by_name[name].by) == ("rewritten", "mine:rules")
        (now,) = by_name[name].nodes
        record = next(node for node in report.nodes if node.name == now)
        assert record.op == "aten::relu"
        assert record.origin == "relu_1, rewritten by mine:rules"
    assert by_name["add"].became == "kept"
    assert by_name["add"].by.startswith("trtplug-converters:")
    assert by_name["celu"].op == "aten::celu"


def test_passes_in_the_report(report):
    record = next(item for item in report.passes if item["id"] == "mine:rules")
    assert record["changed"]
    assert record["seconds"] > 0
    assert record["nodes_after"] == record["nodes_before"] - 1
    assert record["applied"] == {"double-relu": 1}
    assert record["declined"] == {"no-add: adding is fine": 1}


def test_the_report_in_three_forms(report):
    held = json.loads(report.to_json())
    assert {"name": "dropout", "became": "rewritten"}.items() <= held["originals"][0].items()
    assert any(item["declined"] == {"no-add: adding is fine": 1} for item in held["passes"])
    text, plain = io.StringIO(), io.StringIO()
    render(report, Console(file=text, width=200), passes=True)
    report.print(plain)
    for words in ("mine:rules", "double-relu ×1", "no-add: adding is fine ×1", "trtplug-passes:no-ops-early"):
        assert words in " ".join(text.getvalue().split()), text.getvalue()
        assert words not in plain.getvalue()
    assert "aten::dropout" in text.getvalue()
    assert page_data(report.to_html())["model"] == held


def test_dumped_graphs(tmp_path):
    folder = tmp_path / "new" / "graphs"
    program = trace(Model(), (torch.randn(3, 4),))
    lower(program, with_plugin(Rules()), Settings(dump_graphs=str(folder)))
    names = sorted(item.name for item in folder.iterdir())
    assert names[0] == "000-lower.lift.py"
    assert names[2] == "001-trtplug-passes.no-ops-early.py"
    assert [name[:3] for name in names[::2]] == [f"{number:03}" for number in range(len(names) // 2)]
    (rules,) = folder.glob("*-mine.rules.py")
    assert "# mine:rules: " in rules.read_text()
    assert "# applied 1 × double-relu" in rules.read_text()
    assert "# declined 1 × no-add: adding is fine" in rules.read_text()
    assert "f32[3, 4]" in rules.read_text()
    lifted = (folder / "000-lower.lift.txt").read_text().splitlines()
    assert lifted[0] == "x: float32[3, 4] = placeholder"
    assert "test_lower_report.py:" in lifted[1]
    assert lifted[1].startswith("dropout: float32[3, 4] = aten::dropout(x, 0.5, False)")
    after = (folder / "001-trtplug-passes.no-ops-early.txt").read_text().splitlines()
    assert [line for line in lifted if line not in after] == [lifted[1], *[x for x in lifted if "relu(dropout)" in x]]
    lower(program, with_plugin(Rules()), Settings(dump_graphs=str(folder)))
    assert (folder / "2" / "000-lower.lift.txt").read_text().splitlines() == lifted
    with pytest.raises(SettingsError, match=r"dump_graphs=.*cannot be a folder"):
        lower(program, registry_of(), Settings(dump_graphs=str(folder / "000-lower.lift.py" / "x")))


def test_the_command_line(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    arguments = [
        "explain",
        f"{tmp_path}/model.py:make",
        "--dump-graphs",
        str(tmp_path / "graphs"),
        "--passes",
        "--verify",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "trtplug-passes:no-ops-early" in result.output
    assert (tmp_path / "graphs" / "000-lower.lift.py").is_file()
    chosen = ["--disable-pass", "trtplug-passes:no-ops-early", "--disable-pass", "trtplug-passes:no-ops", "--json"]
    result = CliRunner().invoke(app, [*arguments[:2], *chosen])
    assert "trtplug-passes:no-ops" not in [item["id"] for item in json.loads(result.stdout)["passes"]]
    result = CliRunner().invoke(app, [*arguments[:2], "--pass-order", "trtplug-passes:no-opps < x:y"])
    assert result.exit_code != 0
    assert "did you mean 'trtplug-passes:no-ops'" in str(result.exception)


def test_verify_names_the_guilty_pass_of_a_compilation():
    class Wrong:
        trtplug_contract = CONTRACT

        def trtplug_lowering_passes(self):
            @lowering_pass("wrong")
            def wrong(graph_module):
                """relu → neg"""
                for node in graph_module.graph.find_nodes(op="call_function", target=aten.relu.default):
                    node.target = aten.neg.default
                return True

            return [wrong]

    with pytest.raises(LoweringError, match="'mine:wrong' changes output 0"):
        trtplug.explain(Model(), (torch.randn(3, 4),), registry=with_plugin(Wrong()), verify=True)


def test_a_plugins_converter_of_a_composite_op_is_called(monkeypatch):
    called = []

    @converter(aten.hardswish.default, Domain(self=Tensor(FLOATS)))
    def hardswish(ctx, self):
        """hardswish(Tensor self) -> Tensor"""
        called.append(self.shape)
        gate = ctx.activation("HARD_SIGMOID", self, alpha=1 / 6, beta=0.5)
        return ctx.elementwise("PROD", self, gate)

    class Plugin:
        trtplug_contract = CONTRACT

        def trtplug_converters(self):
            return [hardswish]

    registry = with_plugin(Plugin())
    model, x = nn.Sequential(nn.Hardswish(), nn.ReLU()), torch.randn(3, 4)
    compiled = trtplug.compile(model, (x,), registry=registry, min_block_size=1)
    assert len(called) == 1
    torch.testing.assert_close(compiled(x), model(x))
    (fate,) = [item for item in compiled.report.originals if item.op == "aten::hardswish"]
    assert (fate.became, fate.by) == ("kept", "mine:aten::hardswish")
    monkeypatch.setattr(session, "registry_for", lambda settings: registry)
    fast = torch.compile(model, backend="trtplug", options={"min_block_size": 1})
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x))
    assert len(called) == 2
    (just_in_time,) = trtplug.reports(fast)
    assert [item.by for item in just_in_time.originals if item.op == "aten::hardswish"] == ["mine:aten::hardswish"]


def test_the_page_about_passes_is_true():
    page = (Path(__file__).parents[2] / "docs" / "passes.md").read_text()
    source, others = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    plugin = types.ModuleType("page")
    exec(source, vars(plugin))
    registry = with_plugin(plugin)
    x = torch.randn(3, 4)
    for item in registry.passes:
        if item.plugin == "mine":
            assert check_pass(item, lambda x: torch.sigmoid(x) * x + 1, (x,)) is (item.name == "fuse")
    report = trtplug.explain(nn.SiLU(), (x,), registry=registry)
    assert {"by-hand: there is nothing that it could do": 1} in [item["declined"] for item in report.passes]
    exec(others, vars(plugin))
    report = trtplug.explain(nn.SiLU(), (x,), registry=with_plugin(plugin))
    ids = [item["id"].partition(":")[2] for item in report.passes]
    assert "gelu" not in ids
    assert ids.index("products") < ids.index("rotary")
    assert report.to_dict()["pass_rulings"][0]["text"] == (
        "trtplug-passes:gelu does not run, says mine, because this target has no layer for it"
    )
    out = io.StringIO()
    report.print(out, passes=True)
    assert "trtplug-passes:gelu does not run" in out.getvalue()
    commands = re.findall(r"trtplug explain model.py:make ([^#\n]*)", page)
    assert len(commands) == 5
    for command in commands:
        assert command.split()[0] in CliRunner().invoke(app, ["explain", "--help"], env={"COLUMNS": "200"}).output
