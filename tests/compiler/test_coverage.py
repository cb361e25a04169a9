"""Coverage of opsets, ops and models: what is said, in which forms, and that it is true."""

from __future__ import annotations

import dataclasses
import json
import random
import runpy
from pathlib import Path

import jsonschema
import pytest
import torch
from pages import page_data
from torch import nn
from typer.testing import CliRunner

import trtplug
from trtplug._tensorrt import capabilities
from trtplug.cli import app
from trtplug.covering.diff import compare
from trtplug.covering.markdown import cells_of, row
from trtplug.covering.opsets import overloads_in
from trtplug.covering.report import read_ops
from trtplug.testing import Law, check_converter, registry_of
from trtplug.testing.drawing import dtypes_of
from trtplug_registry import (
    FLOATS,
    Domain,
    Plugin,
    ReasonCode,
    Registry,
    Tensor,
    TrtplugError,
    UnknownNameError,
    converter,
)

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "report.schema.json").read_text())


@pytest.fixture(autouse=True)
def own_memory(tmp_path_factory, monkeypatch):
    """What is followed once is remembered for the module's tests, and not in the user's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "xdg"))


@pytest.fixture(scope="module")
def registry():
    """Of the built-in plugins, whatever else is installed."""
    return trtplug.registry(block=[plugin.name for plugin in trtplug.registry().plugins if not plugin.built_in])


@pytest.fixture(scope="module")
def core(registry, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "xdg"))
        return trtplug.coverage("core_aten", registry=registry)


class Mixed(nn.Module):
    """Two engines around a matrix exponential, a refused dtype, and a block that is too small."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x, d):
        h = self.a(x).relu().sigmoid()
        h = torch.linalg.matrix_exp(h) @ h
        h = self.b(h).tanh()
        z = self.c(torch.linalg.matrix_exp(h)).softmax(-1)
        return z, (d * 2).sin()


ARGS = (torch.randn(16, 16), torch.randn(3, dtype=torch.float64))


@pytest.fixture(scope="module")
def model(registry):
    return trtplug.coverage(Mixed().eval(), ARGS, registry=registry, name="mixed")


def invoke(*words):
    return CliRunner().invoke(app, ["coverage", *words])


# --- opsets and ops ---------------------------------------------------------------------------------------------------


def test_all_of_core_but_what_tensorrt_has_not(core):
    left = {op.op: op.reasons[0].because for op in core.ops if not op.covered}
    assert left.keys() == {
        *("aten::rand", "aten::randn", "aten::randperm", "aten::nonzero", "aten::_local_scalar_dense"),
        *("aten::_fft_c2r", "aten::_fft_r2c"),
    }
    assert all(left.values())


def test_every_core_op_has_one_status(core):
    assert len(core.ops) == len({op.op for op in core.ops}) == len(overloads_in("core_aten", trtplug.registry()))
    assert sum(core.counts.values()) == len(core.ops)
    for op in core.ops:
        assert bool(op.reasons) == (not op.covered), op
        assert (op.status == "converted") == any(candidate.wins for candidate in op.candidates), op


def test_statuses_by_what_happens_to_a_call(registry):
    (fill,) = (op for op in trtplug.coverage("aten::fill", registry=registry).ops if op.op == "aten::fill.Scalar")
    assert (fill.status, fill.decomposes_to) == ("decomposed", ("aten::full_like",))
    (size,) = trtplug.coverage("aten::sym_size.int", registry=registry).ops
    assert size.status == "folded"
    (relu,) = trtplug.coverage("aten.relu", registry=registry).ops
    assert relu.candidates[0].wins
    assert "float16" in relu.candidates[0].dtypes
    (random_op,) = trtplug.coverage("aten::bernoulli.p", registry=registry).ops
    assert "random" in random_op.reasons[0].because


def test_a_converter_that_cannot_be_used_here_does_not_win():
    @converter("aten::relu", Domain(self=Tensor(FLOATS)), needs=("INetworkDefinition.add_nothing",), priority=9)
    def relu(ctx, self):
        """relu(Tensor self) -> Tensor"""
        return self

    (op,) = trtplug.coverage(
        "aten::relu", registry=Registry(registry_of([relu]).plugins, capabilities=capabilities())
    ).ops
    assert op.status == "unsupported"
    assert op.reasons[0].code is ReasonCode.TENSORRT_VERSION


def test_unknown_names_suggest():
    with pytest.raises(UnknownNameError, match="core_aten"):
        trtplug.coverage("core_atn")
    with pytest.raises(UnknownNameError, match="aten::relu"):
        trtplug.coverage("aten::rellu")


def test_the_zoo_counts_calls(registry):
    report = trtplug.coverage("zoo", registry=registry)
    assert all(op.calls > 0 for op in report.ops)
    assert report.call_share > 0.95
    assert "of calls" in str(report)


def test_a_custom_namespace(registry):
    torch.library.define("coveragetest::odd", "(Tensor x) -> Tensor")
    (op,) = trtplug.coverage("coveragetest", registry=registry).ops
    assert op.status == "unsupported"


def test_what_is_claimed_converts_and_builds(registry, core):
    """For a sample of the ops that are said to be converted, drawn calls are converted and their engines built."""
    claimed = [op.by for op in core.ops if op.status == "converted"]
    for name in random.Random(7).sample(claimed, 6):
        (one,) = {c for c in registry if c.id == name}
        check_converter(registry, one, Law.BUILDS, dtype=dtypes_of(one.domain)[0])


# --- models -----------------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_what_compiling_does(model, registry):
    compiled = trtplug.compile(Mixed().eval(), ARGS, registry=registry).report
    dry = model.model
    assert [engine.nodes for engine in dry.engines] == [engine.nodes for engine in compiled.engines]
    assert {node.name: node.reasons for node in dry.torch_ops} == {n.name: n.reasons for n in compiled.torch_ops}


def test_shares_add_up(model):
    report = model.model
    assert sum(len(engine.nodes) for engine in report.engines) + len(report.torch_ops) == len(report.nodes)
    assert sum(unit.flops for unit in report.units) == sum(node.flops for node in report.nodes) > 0
    assert 0 < report.flop_share < 1
    assert sum(op.calls for op in model.ops) == len(report.nodes)


def test_flops_are_torchs_own(model):
    by_name = {node.name: node.flops for node in model.model.nodes}
    assert by_name["linear"] == 2 * 16 * 16 * 16
    assert by_name["relu"] == 0


def test_the_picture_holds_every_node_once_and_is_acyclic(model):
    report = model.model
    placed = [name for unit in report.units for name in unit.nodes]
    assert sorted(placed) == sorted(node.name for node in report.nodes)
    level = {unit.name: unit.level for unit in report.units}
    assert all(level[crossing.source] < level[crossing.target] for crossing in report.crossings)
    assert all(crossing.bytes > 0 for crossing in report.crossings)


def test_every_refusal_names_the_line(model):
    assert all("test_coverage.py" in node.source for node in model.model.torch_ops)


@pytest.mark.parametrize(
    ("settings", "kind"), [({}, "option"), ({"min_block_size": 1, "torch_ops": ["aten::tanh"]}, "option")], ids=str
)
def test_a_suggested_setting_does_what_it_says(settings, kind, registry):
    before = trtplug.explain(Mixed().eval(), ARGS, **settings)
    (item,) = (item for item in before.suggestions if item.kind == kind)
    assert item.nodes
    after = trtplug.explain(Mixed().eval(), ARGS, **{**settings, **item.settings})
    assert (len(after.engines), len(after.torch_ops)) == (item.engines[1], item.left[1])
    assert not {node.name for node in after.torch_ops} & set(item.nodes)


def test_a_suggested_dtype_does_what_it_says(model):
    (item,) = (item for item in model.model.suggestions if item.kind == "dtype")
    assert item.text == "float64 tensors as float32"
    after = trtplug.explain(Mixed().eval(), (ARGS[0], ARGS[1].float()))
    assert set(item.nodes) == {"mul", "sin"}
    assert not {node.name for node in after.torch_ops} & set(item.nodes)


def test_the_gain_of_an_op_is_that_of_having_it(model):
    """With a converter for the op, the partition is what was foretold."""

    @converter("aten::linalg_matrix_exp", Domain(self=Tensor(FLOATS)))
    def matrix_exp(ctx, self):
        """linalg_matrix_exp(Tensor self) -> Tensor"""
        return self

    (item,) = (item for item in model.model.suggestions if item.kind == "op")
    assert "aten::linalg_matrix_exp" in item.text
    assert item.merges
    assert f"would merge engines {item.merges[0][0]}" in item.gain
    registry = trtplug.registry()
    theirs = registry_of([matrix_exp]).plugins
    after = trtplug.explain(Mixed().eval(), ARGS, registry=Registry((*registry.plugins, *theirs)))
    assert (len(after.engines), len(after.torch_ops)) == (item.engines[1], item.left[1])


def test_a_bound_on_a_size_is_suggested():
    @converter("aten::linalg_matrix_exp", Domain(self=Tensor(FLOATS, dynamic=False, because="of the test")))
    def matrix_exp(ctx, self):
        """linalg_matrix_exp(Tensor self) -> Tensor"""
        return self

    class Powers(nn.Module):
        def forward(self, x):
            return torch.linalg.matrix_exp(x)

    inputs = [trtplug.Input(min_shape=(1, 4, 4), opt_shape=(2, 4, 4), max_shape=(8, 4, 4))]
    program = trtplug.trace(Powers(), inputs=inputs)
    report = trtplug.explain(program, registry=registry_of([matrix_exp]), min_block_size=1)
    (item,) = (item for item in report.suggestions if item.kind == "shape")
    assert "static" in item.text
    assert item.left == (1, 0)


class Sines(nn.Module):
    def forward(self, x):
        return torch.sin(torch.relu(x) + 1)


def claiming_relu(plugin: str, **facts) -> Plugin:
    @converter("aten::relu", Domain(self=Tensor(FLOATS)), priority=9, **facts)
    def relu(ctx, self):
        """relu(Tensor self) -> Tensor"""
        return ctx.activation("RELU", self)

    return Plugin(plugin, converters=(dataclasses.replace(relu, plugin=plugin),))


def test_a_suggested_plugin_does_what_it_says():
    theirs = [claiming_relu("one-ops"), claiming_relu("two-ops")]
    registry = Registry(theirs)
    report = trtplug.explain(Sines(), (torch.randn(3),), registry=registry, min_block_size=1)
    items = [item for item in report.suggestions if item.kind == "plugin"]
    assert {item.settings["prefer"] for item in items} == {("one-ops",), ("two-ops",)}
    for item in items:
        preferring = registry.having(**item.settings)
        after = trtplug.explain(Sines(), (torch.randn(3),), registry=preferring, min_block_size=1)
        assert (len(after.engines), len(after.torch_ops)) == (item.engines[1], item.left[1]) == (1, 2)


def test_a_suggested_version_does_what_it_says():
    theirs = claiming_relu("new-ops", needs=("INetworkDefinition.add_nothing",))
    registry = Registry([theirs], capabilities=capabilities())
    report = trtplug.explain(Sines(), (torch.randn(3),), registry=registry, min_block_size=1)
    (item,) = (item for item in report.suggestions if item.kind == "version")
    assert item.text == "a TensorRT that has INetworkDefinition.add_nothing"
    assert item.nodes == ("relu",)
    newer = Registry([theirs], capabilities=None)  # one that has everything
    after = trtplug.explain(Sines(), (torch.randn(3),), registry=newer, min_block_size=1)
    assert (len(after.engines), len(after.torch_ops)) == (item.engines[1], item.left[1])


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["core", "model", "op"])
def test_the_forms_agree(which, request, registry):
    report = trtplug.coverage("aten::add", registry=registry) if which == "op" else request.getfixturevalue(which)
    data = json.loads(report.to_json())
    jsonschema.validate(data, SCHEMA)
    assert page_data(report.to_html()) == {**data, "left_out": []}
    table = " ".join(str(report).split())
    if which != "op":
        assert (report.model or report).summary() in table
    if which == "core":
        assert all(op["op"] in table for op in data["ops"] if op["status"] in ("unsupported", "decomposed"))
    if which == "model":
        left = [node["name"] for node in data["model"]["nodes"] if node["engine"] is None]
        assert all(f" {name} " in table for name in left)
        assert all(
            item["text"].split()[0] in table and item["gain"].split(";")[0] in table for item in suggestions(data)
        )
    shares = {share["name"]: sum(part["share"] for part in share["parts"]) for share in data["shares"]}
    assert shares["ops"] == pytest.approx(sum(op.covered for op in report.ops) / len(report.ops))


def suggestions(data: dict) -> list[dict]:
    return data["model"]["suggestions"]


def test_explains_json_is_the_model_of_the_schema(model):
    data = json.loads(model.model.to_json())
    jsonschema.validate(data, SCHEMA)
    assert (data["format"], data["version"]) == ("trtplug-report", 1)


def test_the_terminal_shows_what_crosses_between_blocks(model):
    text = str(model.model)
    inner = [c for c in model.model.crossings if c.source != "inputs" and c.target != "outputs"]
    assert inner
    rows = [line.split() for line in text.splitlines()]
    for crossing in inner:
        words = [*crossing.source.split(), *crossing.target.split(), f"{crossing.bytes:,}"]
        assert any(row[: len(words)] == words and crossing.tensors[0] in " ".join(row) for row in rows), crossing
    total = sum(crossing.bytes for crossing in inner)
    assert f"{sum(len(c.tensors) for c in inner)} tensors, {total:,} bytes a call" in text


def test_a_page_cannot_be_broken_by_what_it_shows(model):
    hostile = dataclasses.replace(model, subject="</script><script>alert(1)</script>")
    assert page_data(hostile.to_html())["subject"] == hostile.subject
    assert "<script>alert" not in hostile.to_html()


def test_a_saved_report_is_read_again(core, tmp_path):
    path = tmp_path / "core.json"
    path.write_text(core.to_json())
    again = read_ops(path)
    assert [(op.op, op.status, op.reasons) for op in again.ops] == [(o.op, o.status, o.reasons) for o in core.ops]
    assert again.ops == core.ops
    assert not compare(core, again).changes


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "trtplug-coverage", "version": 99}', '{"format": 3'])
def test_what_is_no_report_is_refused(text, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(TrtplugError, match=r"other\.json is not a coverage report"):
        read_ops(path)


def test_the_matrix_in_the_docs_is_what_the_registry_says():
    """Every op is in its table, and every eleventh row says what the registry does: asking about all takes minutes."""
    page = (DOCS / "support-matrix.md").read_text()
    maker = runpy.run_path(str(DOCS / "support_matrix.py"))
    if maker["made_with"]() not in page:
        pytest.skip(f"the matrix was not made with {maker['made_with']()}")
    again = "python docs/support_matrix.py > docs/support-matrix.md"
    lines = {text.split("`")[1]: text for text in page.splitlines() if text.startswith("| `")}
    tables = maker["names"]()
    assert list(lines) == [name for names in tables.values() for name in names], again
    assert all(f"`{name}`" in page for name in maker["decomposed"]()), again
    ops = maker["report"]([name for names in tables.values() for name in names[::11]]).ops
    registry = maker["registry"]()
    found = cells_of(ops, registry)
    for op in ops:
        assert row(op, found[op.op], registry) == lines[op.op], again


# --- the command ------------------------------------------------------------------------------------------------------


def test_exit_statuses(tmp_path, core):
    saved = tmp_path / "core.json"
    saved.write_text(core.to_json())
    assert invoke(str(saved), "--fail-under", "10").exit_code == 0
    assert invoke(str(saved), "--fail-under", "99.9").exit_code == 3
    worse = "core_aten?torch_ops=aten::relu"
    assert invoke("diff", worse, str(saved), "--fail-on-new-fallback").exit_code == 0
    result = invoke("diff", str(saved), worse, "--fail-on-new-fallback")
    assert result.exit_code == 4
    assert "aten::relu" in result.output
    assert invoke("diff", str(saved)).exit_code == 2
    assert invoke("core_aten", "relu").exit_code == 2


def test_a_diff_as_json(tmp_path, core):
    saved = tmp_path / "core.json"
    saved.write_text(core.to_json())
    data = json.loads(invoke("diff", str(saved), "core_aten?torch_ops=aten::relu", "--json").stdout)
    jsonschema.validate(data, SCHEMA)
    assert [change["op"] for change in data["changes"] if change["new_fallback"]] == ["aten::relu"]


def test_a_diff_sees_a_narrowed_domain_under_the_same_name(tmp_path):
    def report(dtypes, **more):
        def relu(ctx, self):
            return ctx.activation("RELU", self)

        domain = Domain(self=Tensor(dtypes))
        registry = registry_of([converter(torch.ops.aten.relu.default, domain, **more)(relu)])
        return trtplug.coverage("aten::relu", registry=registry)

    wide, narrow, static = report(FLOATS), report((torch.float32,)), report(FLOATS, dynamic_shapes=False)
    path = tmp_path / "wide.json"
    path.write_text(wide.to_json())
    (change,) = compare(read_ops(path), narrow).changes
    (words,) = change.domains
    assert words.startswith(f"{narrow.ops[0].by}, self: ")
    assert "float16" in words.partition("→")[0]
    assert "float16" not in words.partition("→")[2]
    assert not change.new_fallback
    (change,) = compare(wide, static).changes
    assert "static sizes only" in change.domains[0]
    assert not compare(wide, report(FLOATS)).changes
    jsonschema.validate(json.loads(compare(wide, narrow).to_json()), SCHEMA)


class Halves(nn.Module):
    """Two calls of an op, in modules of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        return self.two(self.one(x) + 1) * 2


def test_one_more_call_of_an_op_is_a_new_fallback(tmp_path):
    sides = []
    for excluded in (["one"], ["one", "two"]):
        report = trtplug.coverage(Halves(), (torch.randn(3),), torch_ops=excluded, min_block_size=1)
        path = tmp_path / f"{len(excluded)}.json"
        path.write_text(report.to_json())
        sides.append(str(path))
    words = ["coverage", "diff", *sides, "--fail-on-new-fallback"]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 4
    assert "1 of 2 calls in Torch" in " ".join(result.output.split())
    assert read_ops(Path(sides[0])).share == 0.75  # of the nodes, as before it was saved
    assert (invoke(sides[0], "--fail-under", "70").exit_code, invoke(sides[0], "--fail-under", "80").exit_code) == (
        0,
        3,
    )
    assert invoke("diff", *reversed(sides), "--fail-on-new-fallback").exit_code == 0


def test_a_model_by_its_file(tmp_path):
    file = tmp_path / "small.py"
    file.write_text("import torch\ndef make():\n    return torch.nn.Linear(4, 4).eval(), (torch.randn(2, 4),)\n")
    data = json.loads(invoke(f"{file}:make?min_block_size=1", "--json").stdout)
    assert data["kind"] == "model"
    assert data["share"] == 1.0


def test_a_wrong_setting_suggests():
    result = invoke("core_aten?min_blok_size=1")
    assert "min_block_size" in str(result.exception)
