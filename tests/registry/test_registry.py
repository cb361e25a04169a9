"""The registry always answers; the order among converters is total; nothing leaks."""

from __future__ import annotations

import itertools
import types

import pytest
import torch
from conftest_registry import plugin_of, registry_of
from hypothesis import given
from hypothesis import strategies as st

from trtplug_registry import (
    FLOATS,
    Domain,
    Only,
    OutputsUsed,
    ReasonCode,
    Registry,
    Relation,
    Static,
    Supported,
    Tensor,
    UnknownNameError,
    Unsupported,
    converter,
)
from trtplug_registry.fingerprint import fingerprint

aten = torch.ops.aten


def relu(priority: int = 0, **choices):
    def relu(ctx, self): ...

    return converter(aten.relu.default, Domain(self=Tensor(FLOATS)), priority=priority, **choices)(relu)


def test_supported(call):
    registry = registry_of(relu())
    support = registry.lookup(call(aten.relu.default, torch.ones(2)))
    assert isinstance(support, Supported)
    assert support
    assert support.converter.id == "acme:aten::relu"


def codes(support) -> list[ReasonCode]:
    assert isinstance(support, Unsupported)
    assert not support
    return [reason.code for reason in support.reasons]


def test_each_reason_has_its_code(call):
    @converter(aten.leaky_relu.default, Domain(self=Tensor(FLOATS)))
    def pinned(ctx, self, negative_slope=0.01): ...

    @converter(aten.sin.default, Domain(self=Tensor()), needs=("INetworkDefinition.add_sine",))
    def newer(ctx, self): ...

    @converter(aten.max_pool2d_with_indices.default, Domain(OutputsUsed((0,)), **POOL))
    def pool(ctx, self, kernel_size, stride=(), padding=(0, 0), dilation=(1, 1), ceil_mode=False): ...

    class Old:
        version = "1.0"

        def has(self, name: str) -> bool:
            return False

    registry = registry_of(relu(), pinned, newer, pool, exclude=["aten::relu_", "aten.cos.default"], capabilities=Old())
    x = torch.ones(2)
    ask = registry.lookup
    assert codes(ask(call(aten.tanh.default, x))) == [ReasonCode.NO_CONVERTER]
    assert codes(ask(call(aten.relu.default, x.double()))) == [ReasonCode.DTYPE]
    assert codes(ask(call(aten.leaky_relu.default, x, 0.5))) == [ReasonCode.ARGUMENT]
    assert codes(ask(call(aten.sin.default, x))) == [ReasonCode.TENSORRT_VERSION]
    assert codes(ask(call(aten.cos.default, x))) == [ReasonCode.EXCLUDED_BY_USER]
    node = call(aten.relu.default, x)
    del node.args[0].meta["val"]
    assert codes(ask(node)) == [ReasonCode.NO_METADATA]
    node = call(aten.max_pool2d_with_indices.default, torch.ones(1, 1, 4, 4), [2, 2])
    assert ask(node)
    import operator

    with node.graph.inserting_after(node):
        index = node.graph.call_function(operator.getitem, (node, 1))
        node.graph.output_node().args = ((index,),)
    assert codes(ask(node)) == [ReasonCode.OUTPUT_USED]


POOL = {"self": Tensor(), "kernel_size": Only([2, 2])}


def test_module_paths_are_excluded(call):
    registry = registry_of(relu(), exclude=["encoder.layer.0"])
    node = call(aten.relu.default, torch.ones(2))
    node.meta["nn_module_stack"] = {"a": ("L['self'].encoder.layer.0.act", torch.nn.ReLU)}
    assert codes(registry.lookup(node)) == [ReasonCode.EXCLUDED_BY_USER]
    node = call(aten.relu.default, torch.ones(2))
    node.meta["nn_module_stack"] = {"a": ("encoder.layer.01.act", torch.nn.ReLU)}
    assert registry.lookup(node)


def test_the_verdict_is_total(call):
    """Law 2: whatever the node, there is an answer, and the graph is as it was."""
    registry = registry_of(relu())
    node = call(aten.relu.default, torch.ones(2))
    for strange in itertools.chain(node.graph.nodes, _strange_nodes()):
        before = str(strange.graph)
        assert codes(registry.lookup(strange)) or strange is node if strange is not node else registry.lookup(strange)
        assert str(strange.graph) == before


def _strange_nodes():
    import operator

    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    for target, args, kwargs in [
        (operator.getitem, (x, 0), {}),
        (torch.relu, (x,), {}),
        (aten.relu.default, (), {}),
        (aten.relu.default, (x, x, x), {}),
        (aten.relu.default, (3,), {"unknown": 1}),
        (aten.relu.default, ([x],), {}),
        (len, (), {}),
    ]:
        yield graph.call_function(target, args, kwargs)
    x.meta["val"] = object()
    yield graph.call_function(aten.relu.default, (x,))
    yield graph.call_method("relu", (x,))
    yield graph.get_attr("nothing")


def test_a_domain_that_raises_is_a_reason(call):
    def broken(call):
        raise RuntimeError("oops")

    @converter(aten.relu.default, Domain(Relation("fine", ("self",), broken), self=Tensor()))
    def relu(ctx, self): ...

    support = registry_of(relu).lookup(call(aten.relu.default, torch.ones(2)))
    assert "its domain raised RuntimeError: oops" in str(support)


def test_asking_leaves_no_guard():
    class Model(torch.nn.Module):
        def forward(self, x):
            return torch.relu(x)

    @converter(aten.relu.default, Domain(self=Tensor(zero_size=False, rank=(1, 2), static_axes=(1,))))
    def relu(ctx, self): ...

    dynamic = {0: torch.export.Dim("batch", min=1, max=64)}
    exported = torch.export.export(Model(), (torch.ones(3, 4),), dynamic_shapes=(dynamic,))
    (node,) = (node for node in exported.graph.nodes if node.op == "call_function")
    environment = node.meta["val"].fake_mode.shape_env
    guards, ranges = len(environment.guards), dict(environment.var_to_range)
    assert registry_of(relu).lookup(node)
    assert (len(environment.guards), dict(environment.var_to_range)) == (guards, ranges)


def test_the_verdict_is_memoized_until_something_changes(call, monkeypatch):
    registry = registry_of(relu())
    node = call(aten.relu.default, torch.ones(2))
    first = registry.lookup(node)
    assert registry.lookup(node) is first
    node.args[0].meta["val"] = node.args[0].meta["val"].to(torch.float64)
    assert codes(registry.lookup(node)) == [ReasonCode.DTYPE]
    node.target = aten.tanh.default
    assert codes(registry.lookup(node)) == [ReasonCode.NO_CONVERTER]


# --- order ----------------------------------------------------------------------------------------------------------


def test_order_preference_then_priority_then_third_party_then_name():
    built_in = plugin_of("trtplug-converters", relu(), distribution="trtplug")
    high = plugin_of("zulu", relu(priority=5), distribution="zulu")
    one = plugin_of("alpha", relu(), distribution="alpha")
    plugins = [built_in, high, one]

    def order(**choices):
        return [c.plugin for c in Registry(plugins, **choices).candidates(aten.relu.default)]

    assert order() == ["zulu", "alpha", "trtplug-converters"]
    assert order(prefer=["trtplug-converters"]) == ["trtplug-converters", "zulu", "alpha"]
    assert order(prefer=["alpha", "trtplug-converters"]) == ["alpha", "trtplug-converters", "zulu"]


@given(st.permutations(range(4)))
def test_registration_order_does_not_matter(order):
    """Law 6."""
    plugins = [plugin_of(name, relu(priority=p)) for name, p in [("a", 1), ("b", 1), ("c", 0), ("d", 2)]]
    expected = Registry(plugins)
    shuffled = Registry([plugins[place] for place in order])
    assert [c.id for c in shuffled] == [c.id for c in expected]
    assert shuffled.fingerprint == expected.fingerprint


def test_the_next_candidate_takes_what_the_first_refuses(call):
    @converter(aten.relu.default, Domain(self=Tensor((torch.float16,))), priority=1)
    def halves(ctx, self): ...

    registry = registry_of(halves, relu())
    assert registry.lookup(call(aten.relu.default, torch.ones(2).half())).converter.name == "halves"
    assert registry.lookup(call(aten.relu.default, torch.ones(2))).converter.name == "relu"
    assert codes(registry.lookup(call(aten.relu.default, torch.ones(2).int()))) == [ReasonCode.DTYPE] * 2


# --- conflicts ------------------------------------------------------------------------------------------------------


def conflicting():
    return [plugin_of("one", relu(), distribution="one"), plugin_of("two", relu(), distribution="two")]


def test_two_third_parties_of_equal_priority_refuse_each_other(call):
    node = call(aten.relu.default, torch.ones(2))
    registry = Registry(conflicting())
    assert codes(registry.lookup(node)) == [ReasonCode.CONFLICT] * 2
    assert "prefer=['one'] or prefer=['two']" in str(registry.lookup(node))
    assert list(registry.conflicts) == [aten.relu.default]


def test_preference_resolves_a_conflict(call):
    support = Registry(conflicting(), prefer=["two"]).lookup(call(aten.relu.default, torch.ones(2)))
    assert support.converter.plugin == "two"


def test_the_built_in_converter_serves_where_third_parties_conflict(call):
    built_in = plugin_of("trtplug-converters", relu(), distribution="trtplug")
    support = Registry([*conflicting(), built_in]).lookup(call(aten.relu.default, torch.ones(2)))
    assert support.converter.plugin == "trtplug-converters"


def test_provably_disjoint_domains_do_not_conflict(call):
    def only(dtype):
        def relu(ctx, self): ...

        return converter(aten.relu.default, Domain(self=Tensor((dtype,))))(relu)

    registry = Registry([plugin_of("one", only(torch.float32)), plugin_of("two", only(torch.float16))])
    assert not registry.conflicts
    assert registry.lookup(call(aten.relu.default, torch.ones(2).half())).converter.plugin == "two"


# --- fingerprint ----------------------------------------------------------------------------------------------------


def test_the_fingerprint_does_not_depend_on_which_overloads_were_asked_for():
    packet = torch.ops.aten.special_chebyshev_polynomial_w
    before = fingerprint(frozenset({packet}))
    assert packet.x_scalar is not None  # from here on it is an attribute of the packet's own
    assert fingerprint(frozenset({packet})) == before != fingerprint(frozenset({torch.ops.aten.relu}))


def test_the_fingerprint_tells_functions_closures_domains_and_choices_apart():
    def closing(value):
        def relu(ctx, self):
            return ctx.elementwise("MAX", self, value)

        return converter(aten.relu.default, Domain(self=Tensor(FLOATS)))(relu)

    @converter(aten.relu.default, Domain(self=Tensor(FLOATS, rank=(1, 8))))
    def ranked(ctx, self): ...

    prints = [
        registry_of(relu()).fingerprint,
        registry_of(relu(priority=1)).fingerprint,
        registry_of(closing(0.0)).fingerprint,
        registry_of(closing(1.0)).fingerprint,
        registry_of(ranked).fingerprint,
        registry_of(relu(), exclude=["aten::relu"]).fingerprint,
        Registry([plugin_of("other", relu())]).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert registry_of(relu()).fingerprint == prints[0]


HELPERS = """
import helpers

WIDTH = 3

def used(x):
    return x + 1

class Base:
    def size(self):
        return 1

class Kind(Base):
    rows = 2

    @property
    def width(self):
        return WIDTH

    @staticmethod
    def made(x):
        return x * 2

def plain(ctx, self): return used(self)
def inner(ctx, self): return [used(item) for item in (lambda: (used(i) for i in self))()]
def class_(ctx, self): return Kind.made(self)
def through_module(ctx, self): return helpers.used(self)
def unrelated(ctx, self): return self
"""
EDITS = {
    "x + 1": {"plain", "inner", "through_module"},
    "x * 2": {"class_"},
    "return 1": {"class_"},
    "rows = 2": {"class_"},
    "WIDTH = 3": {"class_"},
}


@pytest.mark.parametrize("edited", EDITS)
def test_the_fingerprint_follows_what_a_plugins_function_uses(edited):
    """Helpers, also within functions within it and by way of a module; methods and values of classes, and of bases."""

    def prints(source):
        module = types.ModuleType("helpers")
        module.helpers = module
        exec(source.replace("import helpers", ""), vars(module))
        names = ("plain", "inner", "class_", "through_module", "unrelated")
        return {name: fingerprint(getattr(module, name)) for name in names}

    before, again, after = prints(HELPERS), prints("\n\n" + HELPERS), prints(HELPERS.replace(edited, edited + "0"))
    assert before == again
    assert {name for name in before if before[name] != after[name]} == EDITS[edited]


# --- names ----------------------------------------------------------------------------------------------------------


def test_wrong_names_suggest_the_right_ones():
    with pytest.raises(UnknownNameError, match="did you mean 'acme'"):
        registry_of(relu(), prefer=["acne"])
    with pytest.raises(UnknownNameError, match="did you mean 'aten::relu'"):
        registry_of(relu(), exclude=["aten::rellu"])
    with pytest.raises(UnknownNameError, match=r"aten::relu\.default"):
        registry_of(relu(), exclude=["aten::relu.defautl"])


def test_explain_lists_candidates_and_their_reasons(call):
    @converter(aten.relu.default, Domain(self=Tensor((torch.float16,))), priority=1)
    def halves(ctx, self): ...

    registry = registry_of(halves, relu())
    explanation = registry.explain(call(aten.relu.default, torch.ones(2)))
    assert [(c.converter.name, c.reason.code if c.reason else None) for c in explanation.candidates] == [
        ("halves", ReasonCode.DTYPE),
        ("relu", None),
    ]
    assert [c.converter.name for c in registry.explain("aten::relu").candidates] == ["halves", "relu"]
    with pytest.raises(UnknownNameError, match="did you mean 'aten::relu'"):
        registry.explain("aten::relux")


def test_dynamic_shapes_can_be_refused_as_a_whole():
    class Model(torch.nn.Module):
        def forward(self, x):
            return torch.relu(x)

    exported = torch.export.export(Model(), (torch.ones(3),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    (node,) = (node for node in exported.graph.nodes if node.op == "call_function")
    assert codes(registry_of(relu(dynamic_shapes=False)).lookup(node)) == [ReasonCode.DYNAMIC_SHAPE]


def test_static_arguments_refuse_symbolic_numbers(call):
    @converter(aten.mul.Scalar, Domain(self=Tensor(), other=Static()))
    def mul(ctx, self, other): ...

    class Model(torch.nn.Module):
        def forward(self, x):
            return torch.ops.aten.mul.Scalar(x, x.shape[0])

    exported = torch.export.export(Model(), (torch.ones(3),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    node = next(node for node in exported.graph.nodes if node.target is aten.mul.Scalar)
    assert codes(registry_of(mul).lookup(node)) == [ReasonCode.DYNAMIC_SHAPE]


def test_a_domain_that_answers_differently_when_asked_twice_takes_nothing(call):
    answers = itertools.cycle([True, False])
    moody = Relation("a good mood", ("self",), holds=lambda call: next(answers))
    registry = registry_of(converter(aten.relu.default, Domain(moody, self=Tensor()))(lambda ctx, self: self))
    node = call(aten.relu.default, torch.ones(2))
    assert codes(registry.lookup(node)) == [ReasonCode.RELATION]
    assert codes(registry.lookup(call(aten.relu.default, torch.ones(2)))) == [ReasonCode.RELATION]
    ((culprit, text),) = registry.faults.items()
    assert culprit.id == "acme:aten::relu"
    assert text.startswith("its domain, asked twice about one call, said yes, then relation: self")


def test_a_converter_whose_op_is_loaded_later_and_does_not_fit_is_refused_with_the_reason(call):
    registry = registry_of(converter("late_ops::f", Domain(y=Tensor()))(lambda ctx, y: y))

    @torch.library.custom_op("late_ops::f", mutates_args=())
    def f(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    f.register_fake(torch.empty_like)
    (reason,) = registry.lookup(call(torch.ops.late_ops.f.default, torch.ones(2))).reasons
    assert reason.code is ReasonCode.NO_CONVERTER
    assert "its parameters after ctx are ['y'], the schema's are ['x']" in reason.seen
    assert [c.id for c in registry.faults] == ["acme:late_ops::f"]
