"""The runner holds every pass to what it promises, and undoes one that does not keep it."""

from __future__ import annotations

import pytest
import torch
from conftest_lowering import assert_runs_as, aten, registry_of, targets
from torch import nn

from trtplug.errors import LoweringError
from trtplug.lowering import lower
from trtplug.settings import Settings
from trtplug.tracing import trace
from trtplug_registry import PluginWarning, decline, lowering_pass, rewrite_rule, rule_pass


@pytest.fixture(scope="module")
def program():
    return trace(nn.Sequential(nn.ReLU(), nn.Tanh()), (torch.randn(3, 4),))


def of(graph_module, target):
    return next(node for node in graph_module.graph.nodes if node.target is target)


@lowering_pass("relu-to-gelu")
def wrong_numbers(graph_module):
    """relu → gelu"""
    of(graph_module, aten.relu.default).target = aten.gelu.default
    return True


@lowering_pass("raises")
def raises(graph_module):
    """relu →"""
    of(graph_module, aten.relu.default).target = aten.gelu.default
    raise ValueError("half way")


@lowering_pass("fewer-outputs")
def fewer_outputs(graph_module):
    """relu → relu, without its result"""
    of(graph_module, "output").args = ((),)
    return True


@lowering_pass("another-dtype")
def another_dtype(graph_module):
    """tanh: float32 → tanh: float64"""
    node = of(graph_module, aten.tanh.default)
    node.target = aten.cosh.default
    node.meta["val"] = node.meta["val"].double()
    return True


@lowering_pass("new-input")
def new_input(graph_module):
    """x → x, y"""
    graph = graph_module.graph
    with graph.inserting_before(next(iter(graph.nodes))):
        graph.placeholder("y")
    return True


@lowering_pass("no-metadata")
def no_metadata(graph_module):
    """relu → relu ─ relu"""
    node = of(graph_module, aten.relu.default)
    with graph_module.graph.inserting_after(node):
        new = graph_module.graph.call_function(aten.relu.default, (node,))
    node.replace_all_uses_with(new, lambda user: user is not new)
    return True


@lowering_pass("wrong-order")
def wrong_order(graph_module):
    """relu ─ tanh → tanh ─ relu, in the wrong order"""
    of(graph_module, aten.relu.default).append(of(graph_module, aten.tanh.default))
    of(graph_module, aten.tanh.default).append(of(graph_module, aten.relu.default))
    return True


@lowering_pass("new-attribute")
def new_attribute(graph_module):
    """relu → missing"""
    node = of(graph_module, aten.relu.default)
    with graph_module.graph.inserting_before(node):
        new = graph_module.graph.create_node("get_attr", "nowhere")
    new.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(new)
    return True


@lowering_pass("says-nothing")
def says_nothing(graph_module):
    """relu → relu"""


BAD = (raises, fewer_outputs, another_dtype, new_input, no_metadata, wrong_order, new_attribute, says_nothing)


@pytest.mark.parametrize("bad", BAD, ids=lambda item: item.name)
def test_a_bad_pass_is_undone_and_named(program, bad):
    @lowering_pass("a-good-one")
    def good(graph_module):
        """tanh → sinh"""
        of(graph_module, aten.tanh.default).target = aten.sinh.default
        return True

    @lowering_pass("z-good-one")
    def after(graph_module):
        """sinh → cosh"""
        of(graph_module, aten.sinh.default).target = aten.cosh.default
        return True

    with pytest.warns(PluginWarning, match=f"lowering pass 'toy:{bad.name}' is undone: ") as caught:
        lowered = lower(program, registry_of(passes=[good, bad, after]))
    assert len(caught) == 1
    assert targets(lowered) == ["relu.default", "cosh.default"]
    record = next(item for item in lowered.passes if item.id == f"toy:{bad.name}")
    assert record.error
    assert not record.changed
    lowered.graph_module.graph.lint()
    lowered.graph_module(torch.randn(3, 4))
    with pytest.raises(LoweringError, match=f"lowering pass 'toy:{bad.name}': "):
        lower(program, registry_of(passes=[good, bad, after]), strict=True)


def test_a_pass_is_not_run_where_the_graph_calls_none_of_its_ops(program):
    ran = []

    def spy(name, ops):
        @lowering_pass(name, ops=ops)
        def look(graph_module):
            """x → x"""
            ran.append(name)
            return False

        return look

    passes = [spy("tanh", [aten.tanh]), spy("cosh", [aten.cosh.default]), spy("any", ()), spy("name", ["aten::relu"])]
    lowered = lower(program, registry_of(passes=passes))
    assert ran == ["any", "name", "tanh"]
    skipped = next(item for item in lowered.passes if item.id == "toy:cosh")
    assert not skipped.changed
    assert skipped.nodes_before == skipped.nodes_after == len(lowered.graph_module.graph.nodes)


def test_attributes_are_restored():
    program = trace(nn.Linear(4, 4), (torch.randn(3, 4),))

    @lowering_pass("loses-weights")
    def loses(graph_module):
        """weight → nothing"""
        graph_module.weight = None
        graph_module.register_buffer("extra", torch.ones(1))
        raise ValueError("too late")

    with pytest.warns(PluginWarning, match="too late"):
        lowered = lower(program, registry_of(passes=[loses]))
    assert not hasattr(lowered.graph_module, "extra")
    assert lowered.graph_module.weight is program.exported.state_dict["weight"]


def test_a_pass_that_changes_and_denies_it(program):
    @lowering_pass("denies")
    def denies(graph_module):
        """tanh → sinh"""
        of(graph_module, aten.tanh.default).target = aten.sinh.default
        return False

    with pytest.warns(PluginWarning, match="'toy:denies' changed the graph, but returned False"):
        lowered = lower(program, registry_of(passes=[denies]))
    assert targets(lowered) == ["relu.default", "sinh.default"]
    with pytest.raises(LoweringError, match="returned False"):
        lower(program, registry_of(passes=[denies]), strict=True)


def test_verify_names_the_first_pass_that_changes_a_result(program):
    @lowering_pass("innocent")
    def innocent(graph_module):
        """relu ─ tanh → relu ─ tanh, dead"""
        node = of(graph_module, aten.relu.default)
        with graph_module.graph.inserting_after(node):
            graph_module.graph.call_function(aten.relu.default, (node,))
        return True

    @lowering_pass("z-guilty-too")
    def also(graph_module):
        """tanh → sinh"""
        of(graph_module, aten.tanh.default).target = aten.sinh.default
        return True

    passes = [innocent, wrong_numbers, also]
    lower(program, registry_of(passes=passes))
    with pytest.raises(LoweringError, match=r"'toy:relu-to-gelu' changes output 0: .* elements differ"):
        lower(program, registry_of(passes=passes), Settings(verify=True))


def test_a_wrong_decomposition_is_found_by_verify(program):
    registry = registry_of(aten.exp.default, decompositions={aten.tanh.default: lambda self: torch.exp(self)})
    with pytest.raises(LoweringError, match="'lower:decompose' changes output 0"):
        lower(program, registry, Settings(verify=True))


def test_early_passes_see_the_graph_as_exported():
    seen = {}

    def spy(phase):
        @lowering_pass(f"spy-{phase}", phase=phase)
        def look(graph_module):
            """looks"""
            seen[phase] = [str(node.target) for node in graph_module.graph.nodes if node.op == "call_function"]
            return False

        return look

    program = trace(nn.Softmax(-1), (torch.randn(3, 4),))
    lower(program, registry_of(aten._softmax.default, passes=[spy("early"), spy("late")]), strict=True)
    assert seen == {"early": ["aten.softmax.int"], "late": ["aten._softmax.default"]}


def test_records_and_history():
    class Model(nn.Module):
        def forward(self, x):
            table = torch.arange(4) * 2
            return torch.softmax(nn.functional.dropout(x, training=False), -1) + table

    model = Model()
    lowered = lower(
        trace(model, (torch.randn(3, 4),)), registry_of(aten._softmax.default, aten.add.Tensor, built_in_passes=True)
    )
    assert_runs_as(lowered, model, torch.randn(3, 4))
    by_id = {record.id: record for record in lowered.passes}
    assert by_id["lowering_passes:no-ops-early"].changed
    assert by_id["lowering_passes:no-ops-early"].nodes_after < by_id["lowering_passes:no-ops-early"].nodes_before
    assert not by_id["lowering_passes:sizes-from-inputs"].changed
    history = lowered.history
    assert (history["dropout"].kind, history["dropout"].by) == ("rewritten", "lowering_passes:no-ops-early")
    assert (history["arange"].kind, history["arange"].by) == ("rewritten", "lowering_passes:constant-folding-early")
    assert (history["softmax"].kind, history["softmax"].nodes) == ("decomposed", ("softmax__softmax",))
    assert (history["add"].kind, history["add"].by) == ("kept", "toy:aten::add.Tensor")


def test_a_pass_reads_the_settings_that_it_names(program):
    seen = {}

    @lowering_pass("reads")
    def reads(graph_module, *, min_block_size=99, tf32=None):
        """looks"""
        seen.update(min_block_size=min_block_size, tf32=tf32)
        return False

    registry = registry_of(passes=[reads])
    lower(program, registry, Settings(min_block_size=7), strict=True)
    assert seen == {"min_block_size": 7, "tf32": False}

    @lowering_pass("misspells", ops=["toy::never_called"])  # told of whatever the graph holds
    def misspells(graph_module, *, min_block_sise=1):
        """looks"""
        return False

    with pytest.warns(PluginWarning, match="'toy:misspells' is undone: .*'min_block_sise': did you mean"):
        lower(program, registry_of(passes=[misspells]))


def test_rules_and_what_they_decline_are_in_the_record():
    @rewrite_rule("double-relu", pattern=lambda x: aten.relu.default(aten.relu.default(x)))
    def one_relu(x):
        """relu(relu(x)) → relu(x)"""
        return aten.relu.default(x)

    @lowering_pass("by-hand")
    def by_hand(graph_module):
        """nothing"""
        decline(graph_module, "tanh", "not today")
        decline(graph_module, "tanh", "not today")
        return False

    class Model(nn.Module):
        def forward(self, x):
            y = torch.relu(x)
            return torch.relu(torch.relu(torch.relu(x))), torch.relu(y) + y

    program = trace(Model(), (torch.randn(3, 4),))
    lowered = lower(program, registry_of(passes=[rule_pass("rules", [one_relu]), by_hand]), strict=True)
    by_id = {record.id: record for record in lowered.passes}
    assert by_id["toy:rules"].applied == {"double-relu": 2}
    assert by_id["toy:rules"].declined == {"double-relu: an inner result is read elsewhere": 1}
    assert by_id["toy:by-hand"].declined == {"tanh: not today": 2}
    assert_runs_as(lowered, Model(), torch.randn(3, 4))
