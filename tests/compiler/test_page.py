"""The reports' page in a real browser: search, filters, a node opened, the picture, thousands of nodes."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from pages import BROWSER, visit
from torch import nn

import trtplug
from trtplug.insight import Crossing, Unit
from trtplug.report import CompilationReport, EngineRecord, NodeRecord
from trtplug_registry import Reason, ReasonCode

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt-get install chromium)")

TOOLS = """
const act = (id, value, event) => {
  const element = document.getElementById(id);
  element.value = value;
  element.dispatchEvent(new Event(event));
};
const type = (id, text) => act(id, text, "input"), choose = (id, value) => act(id, value, "change");
const rows = kind => [...document.querySelectorAll(".list." + kind + " .row")].map(r => r.dataset.key);
const shown = kind => document.querySelector("#" + kind + "-search").parentElement.querySelector("span").textContent;
"""


def large_report(count: int = 5_000) -> CompilationReport:
    reason = Reason(
        ReasonCode.DTYPE, "self", "float32 | float16", "float64[2, 3]", "not a TensorRT type", "p:aten::sin"
    )
    nodes, units, engines = [], [Unit("inputs", (), 0, 0)], []
    for block in range(count // 50):
        names = tuple(f"node_{block * 50 + place}" for place in range(50))
        inside = block % 2 == 0
        nodes += [
            NodeRecord(name, "aten::mul.Tensor", block // 2 if inside else None, "p:aten::mul.Tensor" if inside else "")
            if inside
            else NodeRecord(name, "aten::sin", None, "", (reason,), "model.py:3: y = x.sin()")
            for name in names
        ]
        units.append(Unit(f"engine {block // 2}" if inside else f"torch {block // 2}", names, 1000, block + 1))
        if inside:
            engines.append(EngineRecord(block // 2, names, ("x: float32[2, 3]",), ("y: float32[2, 3]",)))
    units.append(Unit("outputs", (), 0, len(units)))
    crossings = tuple(Crossing(a.name, b.name, ("t",), 4096) for a, b in itertools.pairwise(units))
    return CompilationReport(tuple(nodes), tuple(engines), {}, (), "", {}, (), tuple(units), crossings)


def test_five_thousand_nodes(tmp_path):
    script = (
        TOOLS
        + """
    const all = shown("nodes"), few = rows("nodes").length;
    type("nodes-search", "node_4371");
    const found = rows("nodes");
    document.querySelector(".list.nodes .row").click();
    const detail = document.getElementById("nodes-detail").textContent;
    type("nodes-search", "");
    choose("nodes-reason", "dtype");
    const refused = shown("nodes");
    choose("nodes-reason", "");
    choose("nodes-where", "TensorRT");
    const taken = shown("nodes");
    choose("nodes-where", "");
    document.querySelector("g.unit.engine").dispatchEvent(new MouseEvent("click", {bubbles: true}));
    return {all, few, found, detail, refused, taken, unit: shown("nodes"), first: rows("nodes")[0],
            address: location.hash, blocks: document.querySelectorAll("g.unit").length};
    """
    )
    seen = visit(large_report().to_html(), script, tmp_path)
    assert seen.console == ()
    found = seen.result
    assert found["all"] == "5,000"
    assert found["few"] < 60  # only what is in sight is in the page
    assert found["found"] == ["node_4371"]
    assert "float64[2, 3]" in found["detail"]
    assert "model.py:3" in found["detail"]
    assert (found["refused"], found["taken"]) == ("2,500 of 5,000", "2,500 of 5,000")
    assert (found["unit"], found["first"]) == ("50 of 5,000", "node_0")
    assert "nodes-unit=engine+0" in found["address"]
    assert found["blocks"] == 102


def test_a_model_that_is_too_large_for_a_page(tmp_path):
    report = large_report(100_000)
    page = report.to_html()
    assert len(page) < 16 * 2**20
    script = (
        TOOLS
        + """
    choose("nodes-where", "Torch");
    return {said: document.getElementById("left-out").textContent, title: document.getElementById("title").textContent,
            torch: shown("nodes"), blocks: document.querySelectorAll("g.unit").length};
    """
    )
    seen = visit(page, script, tmp_path)
    assert seen.console == ()
    assert (
        "nodes, those left to Torch first: 10,000 of 100,000; blocks of the partition, the first to run"
        in (seen.result["said"])
    )
    assert "1,000 of 2,002" in seen.result["said"]
    assert seen.result["title"] == report.summary()
    assert (seen.result["torch"], seen.result["blocks"]) == ("10,000", 1_000)
    assert len(json.loads(report.to_json())["nodes"]) == 100_000


class Small(nn.Module):
    def forward(self, x):
        y = x.relu() * 2
        z = torch.linalg.matrix_exp(y).tanh()
        return torch.linalg.matrix_exp(z).tanh() + y


@pytest.mark.parametrize("dark", [False, True])
def test_a_real_report(dark, tmp_path):
    report = trtplug.explain(Small(), (torch.randn(3, 3),), min_block_size=1)
    script = (
        TOOLS
        + """
    const boxes = [...document.querySelectorAll("g.unit rect")].map(r => r.getBBox());
    const ways = [...document.querySelectorAll("path.flow")], within = [];
    for (const way of ways) for (let at = 0; at < way.getTotalLength(); at += 2) {
      const p = way.getPointAtLength(at);
      if (boxes.some(b => b.x < p.x && p.x < b.x + b.width && b.y + 1 < p.y && p.y < b.y + b.height - 1))
        within.push(at);
    }
    return {title: document.getElementById("title").textContent, rows: rows("nodes").length,
            ways: ways.length, within, calls: rows("originals").length,
            words: document.body.innerText, ink: getComputedStyle(document.body).color,
            paper: getComputedStyle(document.querySelector("input")).backgroundColor};
    """
    )
    seen = visit(report.to_html(), script, tmp_path, dark)
    assert seen.console == ()
    assert seen.result["title"] == report.summary()
    assert seen.result["rows"] == len(report.nodes)
    assert seen.result["ways"] == len(report.crossings) > len(report.units) - 1  # one passes a block
    assert seen.result["within"] == []  # no line runs through a block
    assert seen.result["calls"] == len(report.originals)
    assert "would merge engines 0 to 2" in seen.result["words"]
    assert (seen.result["ink"] == "rgb(255, 255, 255)") == dark
    assert (seen.result["paper"] == "rgb(255, 255, 255)") == (not dark)


def test_an_opset(tmp_path):
    report = trtplug.coverage("aten::add")
    script = (
        TOOLS
        + """
    choose("ops-status", "converted");
    document.querySelector(".list.ops .row").click();
    return {rows: rows("ops"), detail: document.getElementById("ops-detail").textContent};
    """
    )
    seen = visit(report.to_html(), script, tmp_path)
    assert seen.console == ()
    assert set(seen.result["rows"]) == {op.op for op in report.ops if op.status == "converted"}
    assert "float32" in seen.result["detail"]
