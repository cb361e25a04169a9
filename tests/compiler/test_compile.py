"""compile(m)(x) equals m(x), whatever is or is not supported; the report says why; wrong input is explained."""

from __future__ import annotations

import dataclasses
import json
import warnings

import pytest
import torch
from torch import nn

import trtplug
from trtplug.engine import CompiledEngine
from trtplug.errors import BuildError, ExecutorError
from trtplug.network import Network
from trtplug_registry import (
    CONTRACT,
    Domain,
    Executor,
    Only,
    Plugin,
    PluginManager,
    PluginWarning,
    ReasonCode,
    Registry,
    Tensor,
    UnknownNameError,
    converter,
)

aten = torch.ops.aten


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).softmax(-1)


@pytest.fixture
def mlp() -> nn.Module:
    torch.manual_seed(0)
    return Mlp().eval()


def plugins_with(**hooks) -> list[Plugin]:
    """The installed plugins, and one more with these hooks."""
    manager = PluginManager(strict=True)
    manager.load_entry_points()
    members = {f"trtplug_{name}": staticmethod(lambda value=value: value) for name, value in hooks.items()}
    manager.register(type("Extra", (), {"trtplug_contract": CONTRACT, **members}), "extra")
    return list(manager.plugins)


def assert_equal(compiled, model, *args, **kwargs):
    torch.testing.assert_close(compiled(*args, **kwargs), model(*args, **kwargs), equal_nan=True)


def test_a_model_becomes_one_engine(mlp):
    compiled = trtplug.compile(mlp, (torch.randn(2, 4),))
    assert_equal(compiled, mlp, torch.randn(2, 4))
    report = compiled.report
    assert (len(report.engines), report.torch_ops) == (1, ())
    assert report.executor == "reference"
    assert set(report.stages) == {"trace", "lower", "partition", "convert", "build", "lift", "link"}
    assert report.engines[0].bytes == len(compiled.engines[0].plan) > 1000
    assert all(node.converter.startswith("trtplug") for node in report.nodes)


def test_dynamic_sizes(mlp):
    batch = trtplug.Input(min_shape=(1, 4), opt_shape=(8, 4), max_shape=(64, 4))
    compiled = trtplug.compile(mlp, inputs=[batch])
    for size in (1, 2, 8, 64):
        assert_equal(compiled, mlp, torch.randn(size, 4))
    assert compiled.engines[0].input_bindings[0].smallest == (1, 4)
    assert compiled.engines[0].input_bindings[0].typical == (8, 4)
    assert compiled.engines[0].input_bindings[0].largest == (64, 4)


# --- an op that nobody supports, and plugins that misbehave ---------------------------------------------------------


@torch.library.custom_op("trtplug_tests::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    return x.sort(-1).values * 2


@mystery.register_fake
def _(x):
    return torch.empty_like(x)


class WithMystery(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return torch.relu(self.after(mystery(torch.relu(self.before(x)))))


def test_an_op_that_nobody_supports_stays_in_torch():
    model = WithMystery().eval()
    compiled = trtplug.compile(model, (torch.randn(2, 4),), min_block_size=1)
    assert_equal(compiled, model, torch.randn(2, 4))
    (left,) = compiled.report.torch_ops
    assert left.op == "trtplug_tests::mystery"
    assert left.reasons[0].code is ReasonCode.NO_CONVERTER
    assert "test_compile.py" in left.source
    assert len(compiled.report.engines) == 2


def test_small_blocks_go_back_to_torch_and_say_so():
    model = WithMystery().eval()
    compiled = trtplug.compile(model, (torch.randn(2, 4),), min_block_size=3)
    assert not compiled.report.engines
    codes = {node.op: node.reasons[0].code for node in compiled.report.torch_ops}
    assert codes["aten::relu"] is ReasonCode.BLOCK_TOO_SMALL
    assert_equal(compiled, model, torch.randn(2, 4))


def raising_relu(ctx, self):
    raise RuntimeError("the plugin's own trouble")


def exiting_relu(ctx, self):
    raise SystemExit(3)


def unbuildable_relu(ctx, self):
    """Takes a slice past the end, which TensorRT notices only when it builds, in words that name no layer of ours."""
    sizes = ctx.sizes(self)
    doubled = [2 * size for size in sizes]
    beyond = ctx.slice(self, [size - 1 for size in sizes], list(sizes), [1] * len(sizes))
    assert doubled
    return beyond


def relu_plugin(function):
    return converter(aten.relu.default, Domain(self=Tensor()), priority=9)(function)


@pytest.mark.parametrize(
    ("function", "words"), [(raising_relu, "RuntimeError: the plugin's own trouble"), (exiting_relu, "SystemExit: 3")]
)
def test_a_converter_that_raises_costs_one_node(mlp, function, words):
    registry = Registry(plugins_with(converters=[relu_plugin(function)]))
    with pytest.warns(trtplug.FallbackWarning, match=rf"extra:aten::relu raised {words} \(.*test_compile.py:\d+\)"):
        compiled = trtplug.compile(mlp, (torch.randn(2, 4),), registry=registry, min_block_size=1)
    (left,) = compiled.report.torch_ops
    assert (left.op, left.reasons[0].code) == ("aten::relu", ReasonCode.CONVERSION_FAILED)
    assert left.reasons[0].converter == "extra:aten::relu"
    assert len(compiled.report.engines) == 2
    assert len(compiled.report.warnings) == 1
    assert_equal(compiled, mlp, torch.randn(2, 4))


def test_on_failure_raise(mlp):
    registry = Registry(plugins_with(converters=[relu_plugin(raising_relu)]))
    with pytest.raises(trtplug.ConversionError, match="the plugin's own trouble"):
        trtplug.compile(mlp, (torch.randn(2, 4),), registry=registry, on_failure="raise")


def test_a_block_that_tensorrt_refuses_costs_one_node(mlp):
    registry = Registry(plugins_with(converters=[relu_plugin(unbuildable_relu)]))
    with pytest.warns(trtplug.FallbackWarning, match="TensorRT cannot build"):
        compiled = trtplug.compile(mlp, (torch.randn(2, 4),), registry=registry, min_block_size=1)
    (left,) = compiled.report.torch_ops
    assert (left.op, left.reasons[0].code) == ("aten::relu", ReasonCode.BUILD_FAILED)
    assert_equal(compiled, mlp, torch.randn(2, 4))


def loading_without(kind, words):
    """An executor that cannot load an engine with a layer of some kind."""

    def prepare(engine):
        if any(node.meta.get("kind") == kind for node in engine.reference.graph.nodes):
            raise ExecutorError(f"{engine.name} has no execution context\n  TensorRT: {words}")
        return engine.reference

    return Executor("picky", lambda: None, prepare)


@pytest.mark.parametrize(
    ("words", "left", "blocks"),
    [
        ("[relu.activation] cuDNN graph compilation failed", ["aten::relu"], [1, 2]),
        ("cuDNN graph compilation failed", ["aten::linear", "aten::relu", "aten::linear", "aten::softmax.int"], []),
    ],
    ids=["names the node", "names none"],
)
def test_a_block_that_cannot_be_loaded(mlp, words, left, blocks):
    registry = Registry(plugins_with(executors=[loading_without("ACTIVATION", words)]))
    with pytest.warns(trtplug.FallbackWarning, match="cuDNN graph compilation failed"):
        compiled = trtplug.compile(mlp, (torch.randn(2, 4),), registry=registry, executor="picky", min_block_size=1)
    assert [node.op for node in compiled.report.torch_ops] == left
    assert {node.reasons[0].code for node in compiled.report.torch_ops} == {ReasonCode.BUILD_FAILED}
    assert [len(engine.nodes) for engine in compiled.report.engines] == blocks
    assert_equal(compiled, mlp, torch.randn(2, 4))


class Chain(nn.Module):
    """Forty additions, of distinct numbers."""

    def forward(self, x):
        for number in range(40):
            x = x + float(number)
        return x


def test_bisection_finds_the_node_when_tensorrt_names_none(monkeypatch):
    """One bad node in forty costs one node, in about log2(40) builds."""
    builds = []
    bad = 23

    def build(self: Network, progress=None, options=None) -> bytes:
        builds.append(self.num_layers)
        values = [w.item() for w in self.weights.values() if w.numel() == 1]
        if float(bad) in values:
            raise BuildError("TensorRT cannot build engine", (), ("something unspeakable happened",))
        return b"plan"

    monkeypatch.setattr(Network, "build", build)
    with pytest.warns(trtplug.FallbackWarning, match="something unspeakable"):
        compiled = trtplug.compile(Chain(), (torch.randn(2),), min_block_size=1)
    (left,) = compiled.report.torch_ops
    assert left.op == "aten::add.Tensor"
    assert left.reasons[0].code is ReasonCode.BUILD_FAILED
    assert [len(engine.nodes) for engine in compiled.report.engines] == [23, 16]
    assert len(builds) <= 1 + 6 + 2
    assert_equal(compiled, Chain(), torch.randn(2))


def test_conflicting_plugins_get_one_warning_if_the_graph_holds_the_op(mlp):
    def harmless(ctx, self):
        return ctx.activation("RELU", self)

    def plugin(name):
        manager = PluginManager(strict=True)
        made = converter(aten.relu.default, Domain(self=Tensor()))(harmless)
        hooks = {"trtplug_contract": CONTRACT, "trtplug_converters": staticmethod(lambda: [made])}
        manager.register(type("P", (), hooks), name)
        return manager.plugins[0]

    plugins = [*plugins_with(), plugin("one"), plugin("two")]
    with pytest.warns(PluginWarning, match=r"one:aten::relu and two:aten::relu") as caught:
        compiled = trtplug.compile(mlp, (torch.randn(2, 4),), registry=Registry(plugins))
    assert len(caught) == 1
    assert not compiled.report.torch_ops  # the built-in converter serves
    with pytest.raises(trtplug.TrtplugError, match="neither is used"):
        trtplug.compile(mlp, (torch.randn(2, 4),), registry=Registry(plugins), strict_plugins=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trtplug.compile(nn.Linear(4, 2), (torch.randn(2, 4),), registry=Registry(plugins))


# --- wrong input ------------------------------------------------------------------------------------------------------


def test_misspelt_names_are_errors_before_anything_is_done(mlp):
    x = torch.randn(2, 4)
    with pytest.raises(UnknownNameError, match="did you mean 'min_block_size'"):
        trtplug.compile(mlp, (x,), min_blok_size=1)
    with pytest.raises(UnknownNameError, match="unknown op 'aten::rellu': did you mean 'aten::relu'"):
        trtplug.compile(mlp, (x,), torch_ops=["aten::rellu"])
    with pytest.raises(UnknownNameError, match="unknown plugin"):
        trtplug.compile(mlp, (x,), block=["acne"])
    with pytest.raises(UnknownNameError, match="unknown plugin"):
        trtplug.compile(mlp, (x,), prefer=["acne"])
    with pytest.raises(UnknownNameError, match="unknown executor 'referense': did you mean 'reference'"):
        trtplug.compile(mlp, (x,), executor="referense")


@pytest.fixture
def dynamic(mlp):
    return trtplug.compile(mlp, inputs=[trtplug.Input(min_shape=(2, 4), opt_shape=(4, 4), max_shape=(8, 4), name="x")])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "0 inputs were given, the model takes 1"),
        ((torch.ones(2, 4), torch.ones(2, 4)), "2 inputs were given, the model takes 1"),
        ((torch.ones(9, 4),), r"dimension 0 of input 'x' is 9; it is compiled for 2 to 8"),
        ((torch.ones(1, 4),), r"dimension 0 of input 'x' is 1; \w+ is compiled for 2 to 8"),
        ((torch.ones(2, 5),), "dimension 1 of input 'x' is 5; 4 is expected"),
        ((torch.ones(4),), "of rank 1"),
        ((torch.ones(2, 4).double(),), r"convert it with \.to\(torch\.float32\)"),
        (([[1.0] * 4] * 2,), "nested differently|inputs were given"),
        ((3,), "a tensor float32"),
    ],
)
def test_inputs_that_do_not_fit(dynamic, args, words):
    with pytest.raises(trtplug.InputError, match=words):
        dynamic(*args)
    dynamic(torch.ones(2, 4))  # the module stays usable


def test_keywords_that_do_not_fit(dynamic):
    with pytest.raises(trtplug.InputError, match="'z' is not expected"):
        dynamic(torch.ones(2, 4), z=1)


class Two(nn.Module):
    def forward(self, a, b):
        return (a + 1).sum(1), (b * 2).sum(1)


def test_sizes_that_must_agree():
    inputs = [
        trtplug.Input(min_shape=(1, 3), opt_shape=(4, 3), max_shape=(8, 3), dims={0: "batch"}, name=name)
        for name in "ab"
    ]
    compiled = trtplug.compile(Two(), inputs=inputs)
    with pytest.raises(trtplug.InputError, match="dimension 0 of input 'b' is 3, but dimension 0 of input 'a' is 2"):
        compiled(torch.ones(2, 3), torch.ones(3, 3))


def test_devices_that_differ():
    compiled = trtplug.compile(Two(), (torch.ones(2, 3), torch.ones(2, 3)))
    with pytest.raises(trtplug.InputError, match="'b' is on meta, 'a' on cpu"):
        compiled(torch.ones(2, 3), torch.ones(2, 3, device="meta"))


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_reports_forms_agree():
    compiled = trtplug.compile(WithMystery().eval(), (torch.randn(2, 4),), min_block_size=1)
    report = compiled.report
    parsed = json.loads(report.to_json())
    assert [engine["nodes"] for engine in parsed["engines"]] == [list(engine.nodes) for engine in report.engines]
    assert sum(len(engine.nodes) for engine in report.engines) + len(report.torch_ops) == len(report.nodes)
    table, page = str(report), report.to_html()
    for text in (table, page):
        assert report.summary() in text
        assert "trtplug_tests::mystery" in text
        assert "no-converter" in text


def test_explain_builds_nothing(mlp, monkeypatch):
    monkeypatch.setattr(Network, "build", lambda *args: pytest.fail("built"))
    report = trtplug.explain(mlp, (torch.randn(2, 4),))
    assert report.summary() == "4 of 4 compute nodes in 1 TensorRT engine(s)"
    assert report.engines[0].bytes == 0


def test_stages_are_callable_alone(mlp):
    from trtplug.convert import convert
    from trtplug.lowering import lower
    from trtplug.partition import extract, link, partition

    registry = trtplug.registry()
    program = trtplug.trace(mlp, (torch.randn(2, 4),))
    lowered = lower(program, registry)
    parts = partition(lowered.graph_module, lambda node: bool(registry.lookup(node)))
    graphs = [extract(lowered.graph_module, block) for block in parts.blocks]
    networks = [convert(graph, lambda node: registry.lookup(node).converter) for graph in graphs]
    assert [len(network.build()) > 0 for network in networks] == [True]
    linked = link(lowered.graph_module, parts, [network.lift() for network in networks])
    x = torch.randn(2, 4)
    torch.testing.assert_close(linked(x)[0], mlp(x))


def test_an_engine_is_a_frozen_value(mlp):
    (engine,) = trtplug.compile(mlp, (torch.randn(2, 4),)).engines
    assert isinstance(engine, CompiledEngine)
    with pytest.raises(dataclasses.FrozenInstanceError):
        engine.plan = b""


def test_the_report_tells_what_a_node_was():
    @converter(aten.addmm.default, Domain(self=Tensor(), mat1=Tensor(), mat2=Tensor(), beta=Only(1), alpha=Only(1)))
    def addmm(ctx, self, mat1, mat2, *, beta=1, alpha=1):
        return ctx.elementwise("SUM", ctx.matmul(mat1, mat2), self)

    plugins = [plugin for plugin in plugins_with(converters=[addmm]) if plugin.name != "trtplug-converters"]
    report = trtplug.compile(nn.Linear(4, 2), (torch.randn(2, 4),), registry=Registry(plugins), min_block_size=1).report
    made = {node.op: node.origin for node in report.nodes}
    assert made["aten::addmm"] == "linear, decomposed by torch"


def test_ops_and_modules_that_the_user_keeps(mlp):
    kept = ["aten::relu", "layers.2"]
    report = trtplug.explain(mlp, (torch.randn(2, 4),), torch_ops=kept, min_block_size=1)
    assert [node.op for node in report.torch_ops] == ["aten::relu", "aten::linear"]
    assert {node.reasons[0].code for node in report.torch_ops} == {ReasonCode.EXCLUDED_BY_USER}


class Reads(nn.Module):
    """A buffer that calls write to, and that is read by what goes into an engine."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(4))

    def forward(self, x):
        y = torch.relu(x + self.count)
        self.count.add_(1)
        return y


def test_what_calls_write_to_is_no_constant_of_an_engine():
    model, twin = Reads(), Reads()
    compiled = trtplug.compile(model, (torch.zeros(4),), min_block_size=1)
    (engine,) = compiled.engines
    assert {name for name, _ in engine.inputs} >= {"x", "b_count"}
    for _ in range(3):
        torch.testing.assert_close(compiled(torch.zeros(4)), twin(torch.zeros(4)))


def test_a_path_that_names_nothing_is_said_so():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU())).eval()
    for name in ("encoder.7", "aten.relv", "10"):
        with pytest.warns(UserWarning, match=f"torch_ops names '{name}', which is no op or module of this model"):
            trtplug.compile(model, (torch.ones(2, 4),), torch_ops=[name, "1", "1.0", "aten::gelu"])


def test_a_weight_check_is_for_torch_compile_only():
    with pytest.raises(trtplug.SettingsError, match=r"weight_check is for torch\.compile"):
        trtplug.compile(torch.nn.Linear(2, 2).eval(), (torch.randn(3, 2),), weight_check="data")
