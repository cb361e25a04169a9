"""Rewrite rules: what a pattern matches, why one is declined, and what is taken care of for every rule."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import fx
from torch.export import Dim

from trtplug.lowering.lift import lift
from trtplug.testing import check_pass
from trtplug_registry import DeclarationError, RewriteRule, free_name, rewrite_rule, rule_pass, take_notes
from trtplug_registry.fingerprint import fingerprint

aten = torch.ops.aten
X = torch.randn(4, 6)


def graph_of(function: Any, *args: Any, dynamic: Any = None) -> fx.GraphModule:
    class Model(torch.nn.Module):
        def forward(self, *args: Any) -> Any:
            return function(*args)

    shapes = None if dynamic is None else (tuple(dynamic for _ in args),)
    return lift(torch.export.export(Model(), args, dynamic_shapes=shapes)).graph_module


def ops(graph_module: fx.GraphModule) -> list[str]:
    return [
        getattr(node.target, "__name__", "").partition(".")[0]
        for node in graph_module.graph.nodes
        if node.op == "call_function"
    ]


def rewritten(rule: RewriteRule, function: Any, *args: Any, dynamic: Any = None) -> tuple[list[str], dict[str, int]]:
    """The calls after a pass of one rule, which is held to law 7, and what it declined."""
    item = rule_pass("p", [rule])
    graph_module = graph_of(function, *args, dynamic=dynamic)
    check_pass(item, graph_module, args)
    item.function(graph_module)
    notes = take_notes(graph_module)
    graph_module.graph.eliminate_dead_code()
    return ops(graph_module), dict(notes.declined)


@rewrite_rule("double-relu", pattern=lambda x: aten.relu.default(aten.relu.default(x)))
def one_relu(x):
    """relu(relu(x)) → relu(x)"""
    return aten.relu.default(x)


def test_a_chain_shrinks_to_one():
    found, declined = rewritten(one_relu, lambda x: x.relu().relu().relu().relu() + 1, X)
    assert found == ["relu", "add"]
    assert not declined


def test_the_new_nodes_have_metadata_and_an_origin():
    graph_module = graph_of(lambda x: torch.relu(torch.relu(x)) + 1, X, dynamic={0: Dim.AUTO})
    assert rule_pass("p", [one_relu]).function(graph_module)
    (node,) = graph_module.graph.find_nodes(op="call_function", target=aten.relu.default)
    assert node.meta["val"].shape[1] == 6
    assert isinstance(node.meta["val"].shape[0], torch.SymInt)
    assert "test_rules.py" in node.meta["stack_trace"]
    notes = take_notes(graph_module)
    assert notes.applied == {"double-relu": 1}
    assert not take_notes(graph_module).applied


def test_an_inner_result_that_is_read_elsewhere():
    def model(x):
        y = torch.relu(x)
        return torch.relu(y), y * 2

    assert rewritten(one_relu, model, X) == (
        ["relu", "relu", "mul"],
        {"double-relu: an inner result is read elsewhere": 1},
    )


def test_a_check_says_why_not():
    @rewrite_rule(
        "sum-of-neg",
        pattern=lambda x, dim, keepdim: aten.sum.dim_IntList(aten.neg.default(x), dim, keepdim),
        check=lambda match, dim: "" if match.val("x").shape[dim[0]] < 5 else "the axis is too long",
    )
    def neg_of_sum(x, dim, keepdim):
        """sum(neg(x)) → neg(sum(x))"""
        return aten.neg.default(aten.sum.dim_IntList(x, dim, keepdim))

    found, declined = rewritten(neg_of_sum, lambda x: ((-x).sum(0), (-x).sum([1], True), (-x).sum([0], True)), X)
    assert found == ["sum", "neg", "neg", "sum", "sum", "neg"]
    assert declined == {"sum-of-neg: the axis is too long": 1}


@pytest.mark.parametrize("swapped", [False, True])
def test_operands_that_commute(swapped):
    def model(x, y):
        s = torch.sigmoid(x)
        return (s * x if swapped else x * s) + y

    def rule(*commutative):
        @rewrite_rule(
            "silu",
            pattern=lambda x: aten.mul.Tensor(x, aten.sigmoid.default(x)),
            commutative=commutative,
        )
        def silu(x):
            """x * sigmoid(x) → silu(x)"""
            return aten.silu.default(x)

        return silu

    assert rewritten(rule(aten.mul.Tensor), model, X, X)[0] == ["silu", "add"]
    assert ("silu" in rewritten(rule(), model, X, X)[0]) is not swapped


def test_literals():
    def rule(pattern):
        @rewrite_rule("r", pattern=pattern)
        def replace(x):
            """some add of x → relu(x)"""
            return aten.relu.default(x)

        return rule_pass("p", [replace])

    def applies(pattern, model, *args):
        return rule(pattern).function(graph_of(model, *args))

    def plus_two(x):
        return aten.add.Tensor(x, 2)

    def twice(x):
        return aten.add.Tensor(x, x, alpha=2)

    assert applies(plus_two, lambda x: x + 2, X)
    assert applies(plus_two, lambda x: x + 2.0, X)
    assert not applies(plus_two, lambda x: x + 3, X)
    assert not applies(plus_two, lambda x: torch.add(x, 2, alpha=2), X), "an omitted argument matches its default"
    assert not applies(plus_two, lambda x, y: x + y, X, X)
    assert applies(twice, lambda x: torch.add(x, x, alpha=2), X)
    assert not applies(twice, lambda x, y: torch.add(x, y, alpha=2), X, X + 1), "one parameter, one value"
    assert applies(lambda x: aten.add(x, 2), lambda x: x + 2, X), "a packet is any of its overloads"
    assert not applies(lambda x: aten.argmax.default(x, 1, True), lambda x: x.argmax(1), X)
    assert not applies(lambda x: aten.where.ScalarOther(aten.gt.Scalar(x, 0), x, True), lambda x: x * 1, X)


def test_lists_and_several_results():
    @rewrite_rule("cat-of-halves", pattern=_halves)
    def whole(x):
        """cat(split(x)) → clone(x)"""
        return aten.clone.default(x)

    found, _ = rewritten(whole, lambda x: torch.cat(x.split(3, 1), 1) * 2, X)
    assert found == ["clone", "mul"]
    found, declined = rewritten(whole, lambda x: torch.cat(x.split(2, 1), 1) * 2, X)
    assert "split" in found
    assert not declined

    @rewrite_rule(
        "two-products",
        pattern=lambda x, a, b: (aten.matmul.default(x, a), aten.matmul.default(x, b)),
        check=lambda match: "" if match.bindings["a"] is not match.bindings["b"] else "it is one",
    )
    def one_product(x, a, b):
        """(x @ a, x @ b) → split(x @ cat(a, b))"""
        both = aten.mm.default(x, aten.cat.default([a, b], 1))
        return aten.slice.Tensor(both, 1, 0, 4), aten.slice.Tensor(both, 1, 4)

    a, b = torch.randn(6, 4), torch.randn(6, 4)
    found, _ = rewritten(one_product, lambda x, a, b: (x @ a).relu() + (x @ b).neg(), X, a, b)
    assert found == ["cat", "mm", "slice", "slice", "relu", "neg", "add"]


def _halves(x):
    parts = aten.split.Tensor(x, 3, 1)
    return aten.cat.default([parts[0], parts[1]], 1)


def test_results_in_the_way_of_their_own_arguments():
    @rewrite_rule("pair", pattern=lambda x, y: (aten.sin.default(x), aten.mul.Tensor(aten.cos.default(x), y)))
    def pair(x, y):
        """(sin x, cos x * y) → (sin x, y * cos x)"""
        return aten.sin.default(x), aten.mul.Tensor(y, aten.cos.default(x))

    def tangled(x):
        s = torch.sin(x)
        return torch.cos(x) * s.exp()

    found, declined = rewritten(pair, tangled, X)
    assert found == ["sin", "cos", "exp", "mul"]
    assert declined == {"pair: its results are read before all of its arguments exist": 1}

    def in_between(x, y):
        s = torch.sin(x)
        return torch.cos(x) * y.exp(), s

    assert rewritten(pair, in_between, X, X + 1) == (["exp", "sin", "cos", "mul"], {})


def test_what_the_graph_returns_stays_fresh():
    @rewrite_rule("plus-zero", pattern=lambda x: aten.add.Tensor(x, 0))
    def nothing(x):
        """x + 0 → x"""
        return x

    assert rewritten(nothing, lambda x: (x + 0) * 2, X)[0] == ["mul"]
    for model in (lambda x: x + 0, lambda x: (x + 0).t(), lambda x: (x * 2 + 0, x)):
        found, declined = rewritten(nothing, model, X)
        assert "add" in found
        assert declined == {"plus-zero: the graph returns its result, which must be fresh memory": 1}

    @rewrite_rule("twice-permuted", pattern=lambda x: aten.permute.default(aten.permute.default(x, [1, 0]), [1, 0]))
    def same(x):
        """permute(permute(x)) → x"""
        return x

    assert rewritten(same, lambda x: x.permute(1, 0).permute(1, 0), X) == ([], {}), "a view of the input before, too"


def test_another_shape_or_dtype_is_declined():
    @rewrite_rule("wider", pattern=lambda x: aten.relu.default(x))
    def wider(x):
        """relu(x) → double(x)"""
        return aten._to_copy.default(x, dtype=torch.float64)

    @rewrite_rule("flat", pattern=lambda x: aten.relu.default(x))
    def flat(x):
        """relu(x) → flat(x)"""
        return aten.view.default(x, [-1])

    for rule in (wider, flat):
        found, declined = rewritten(rule, lambda x: torch.relu(x) + 1, X)
        assert found == ["relu", "add"]
        assert declined == {f"{rule.name}: the replacement has another shape, dtype or device": 1}


def test_some_sizes_only():
    @rewrite_rule("fixed", pattern=lambda x: aten.relu.default(x))
    def fixed(x):
        """relu(x) → clamp_min(x.view(4, 6))"""
        return aten.clamp_min.default(aten.view.default(x, [4, 6]), 0)

    assert rewritten(fixed, lambda x: torch.relu(x) + 1, X) == (["view", "clamp_min", "add"], {})
    graph_module = graph_of(lambda x: torch.relu(x) + 1, X, dynamic={0: Dim.DYNAMIC})
    before = str(graph_module.graph)
    assert not rule_pass("p", [fixed]).function(graph_module)
    assert str(graph_module.graph) == before
    (reason,) = take_notes(graph_module).declined
    assert reason == "fixed: the replacement would hold for some sizes only"


def test_constants():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.full((6,), 3.0))
            self.register_buffer("count", torch.full((6,), 3.0))

        def forward(self, x):
            self.count.add_(1)
            return x * self.scale * self.count

    def positive(match):
        scale = match.constant("scale")
        return "it is no constant" if scale is None else "" if (scale > 0).all() else "it is negative"

    @rewrite_rule("log-scale", pattern=lambda x, scale: aten.mul.Tensor(x, scale), check=positive)
    def by_log(match, x):
        """x * scale → x / (1 / scale)"""
        return aten.div.Tensor(x, match.buffer("inverse", 1 / match.constant("scale")))

    graph_module = lift(torch.export.export(Scaled(), (X,))).graph_module
    item = rule_pass("p", [by_log])
    check_pass(item, graph_module, (X,))
    assert item.function(graph_module)
    assert torch.equal(graph_module.inverse, torch.full((6,), 1 / 3.0))
    assert take_notes(graph_module).declined == {"log-scale: it is no constant": 1}


def test_rules_that_undo_each_other_end():
    @rewrite_rule("there", pattern=lambda x: aten.relu.default(x))
    def there(x):
        """relu → clamp_min"""
        return aten.clamp_min.default(x, 0)

    @rewrite_rule("back", pattern=lambda x: aten.clamp_min.default(x, 0))
    def back(x):
        """clamp_min → relu"""
        return aten.relu.default(x)

    with pytest.raises(RuntimeError, match="the rules of 'p' do not come to an end"):
        rule_pass("p", [there, back]).function(graph_of(lambda x: x.relu() + 1, X))


def test_the_first_rule_wins_and_the_docstring_is_that_of_all():
    @rewrite_rule("any", pattern=lambda x, y: aten.add(x, y))
    def to_sub(x, y):
        """x + y → x - (-y)"""
        return aten.sub.Tensor(x, aten.neg.default(y))

    @rewrite_rule("exact", pattern=lambda x, y: aten.add.Tensor(x, y))
    def to_mul(x, y):
        """x + y → x * 1 + y"""
        return aten.mul.Tensor(x, y)

    item = rule_pass("p", [to_sub, to_mul])
    assert item.function.__doc__ == "x + y → x - (-y)\nx + y → x * 1 + y"
    graph_module = graph_of(lambda x, y: x + y, X, X)
    item.function(graph_module)
    assert ops(graph_module) == ["neg", "sub"]


def test_declarations():
    def good(x):
        """a → b"""

    def undrawn(x):
        """Something."""

    relu = {"pattern": lambda x: aten.relu.default(x)}
    bad = (
        ({"pattern": lambda x: x}, good, "must return results of ops"),
        ({"pattern": lambda x: aten.relu_.default(x)}, good, "writes"),
        ({"pattern": lambda x: aten.rand_like.default(x)}, good, "random"),
        ({"pattern": lambda x, y: aten.relu.default(x)}, good, "does not use y"),
        (
            {"pattern": lambda x: (aten.exp.default(x), aten.relu.default(x))[1]},
            good,
            "nothing in its pattern uses exp",
        ),
        ({"pattern": lambda x: aten.relu.default(x) if x > 0 else x}, good, "cannot be traced"),
        (
            {"pattern": lambda x, y: (aten.relu.default(x), aten.exp.default(y))},
            good,
            "exp_default shares nothing",
        ),
        (relu, undrawn, "before → after"),
        (relu, lambda z: None, "docstring"),
        ({**relu, "check": lambda z: ""}, good, "the check takes z; there are the pattern's parameters \\(x\\)"),
    )
    for options, function, words in bad:
        with pytest.raises(DeclarationError, match=words):
            rewrite_rule("r", **options)(function)
    with pytest.raises(DeclarationError, match="two rules are named 'double-relu'"):
        rule_pass("p", [one_relu, one_relu])


def test_a_replacement_that_is_wrong_says_so():
    for result, words in (
        (lambda x: (x, x), "returned 2 results for 1"),
        (lambda x: 5, "returned 5, which is no result of an op"),
        (lambda x: x.shape[0], "a replacement calls ops"),
    ):

        def replace(x, result=result):
            """relu(x) → ?"""
            return result(x)

        replace.__signature__ = inspect.signature(lambda x: None)
        rule = rewrite_rule("r", pattern=lambda x: aten.relu.default(x))(replace)
        with pytest.raises(DeclarationError, match=words):
            rule_pass("p", [rule]).function(graph_of(lambda x: x.relu() + 1, X))


def test_getitem_of_several_results():
    @rewrite_rule("norm", pattern=lambda x, s, w, b, e: aten.native_layer_norm.default(x, s, w, b, e)[0])
    def layer_norm(x, s, w, b, e):
        """native_layer_norm(x)[0] → layer_norm(x)"""
        return aten.layer_norm.default(x, s, w, b, e)

    def model(x, w):
        return torch.native_layer_norm(x, [6], w, w, 1e-5)[0] + 1

    assert rewritten(layer_norm, model, X, torch.randn(6))[0] == ["layer_norm", "add"]

    def both(x, w):
        y = torch.native_layer_norm(x, [6], w, w, 1e-5)
        return y[0] + 1, y[1]

    assert "native_layer_norm" in rewritten(layer_norm, both, X, torch.randn(6))[0]


def test_rules_are_fingerprinted_by_what_they_do():
    def of(limit, op=aten.relu.default):
        @rewrite_rule("r", pattern=lambda x: op(op(x)), check=lambda match: "" if limit else "no")
        def replace(x):
            """a → b"""
            return aten.relu.default(x)

        return fingerprint(rule_pass("p", [replace]).function)

    assert of(1) == of(1)
    assert len({of(1), of(2), of(1, aten.exp.default)}) == 3


def test_a_free_name_is_found_among_thousands():
    module = torch.nn.Module()
    assert free_name(module, "scale") == "scale"
    for _ in range(1000):
        module.register_buffer(free_name(module, "scale"), torch.zeros(1))
    assert {*module._buffers} == {"scale", *(f"scale_{place}" for place in range(1, 1000))}
