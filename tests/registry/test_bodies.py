"""Operators on graphs in the registry: whose parameters a converter has, and when a body is taken."""

from __future__ import annotations

import operator

import pytest
import torch
from conftest_registry import registry_of
from torch import nn
from torch.fx import Graph, GraphModule

from trtplug_registry import (
    BOOL,
    Body,
    BodyFacts,
    DeclarationError,
    Domain,
    ListOf,
    ReasonCode,
    Tensor,
    converter,
)

aten = torch.ops.aten
COND = torch.ops.higher_order.cond


def domain(**changed):
    return Domain(
        **{"pred": Tensor(BOOL), "true_fn": Body(), "false_fn": Body(), "operands": ListOf(Tensor()), **changed}
    )


@converter(COND, domain())
def cond(ctx, pred, true_fn, false_fn, operands):
    return ctx.conditional(pred, lambda: ctx.inline(true_fn, operands), lambda: ctx.inline(false_fn, operands))


@converter(aten.relu.default, Domain(self=Tensor()))
def relu(ctx, self):
    return self


def body(*ops, result=None):
    """A graph that applies ops one after the other."""
    graph = Graph()
    node = graph.placeholder("x")
    node.meta["val"] = torch.empty(2)
    for op in ops:
        node = graph.call_function(op, (node,))
        node.meta["val"] = torch.empty(2)
    graph.output((node,) if result is None else result)
    return GraphModule(nn.Module(), graph)


def call(then, otherwise):
    """A node that calls two bodies."""
    graph = Graph()
    pred, x = graph.placeholder("pred"), graph.placeholder("x")
    pred.meta["val"], x.meta["val"] = torch.tensor(True), torch.empty(2)
    sides = [graph.get_attr("then"), graph.get_attr("otherwise")]
    node = graph.call_function(COND, (pred, *sides, (x,)))
    node.meta["val"] = (torch.empty(2),)
    result = graph.call_function(operator.getitem, (node, 0))
    result.meta["val"] = torch.empty(2)
    graph.output((result,))
    if then is None:
        return node
    module = GraphModule({"then": then, "otherwise": otherwise}, graph)
    return next(node for node in module.graph.nodes if node.target is COND)


def test_both_bodies_must_be_taken_whole():
    registry = registry_of(cond, relu)
    assert registry.lookup(call(body(aten.relu.default), body(aten.relu.default, aten.relu.default)))
    support = registry.lookup(
        call(body(aten.relu.default), body(aten.relu.default, aten.sin.default, aten.cos.default))
    )
    (reason,) = support.reasons
    assert (reason.code, reason.argument, reason.converter) == (ReasonCode.BODY, "false_fn", "acme:higher_order::cond")
    assert reason.seen.startswith("its node 'sin_default' (aten::sin) is not supported: no-converter:")


def test_a_verdict_follows_its_bodies():
    """Bodies are lowered after the first question, while the call stays the same."""
    registry = registry_of(cond, relu)
    node = call(body(aten.relu.default), body(aten.sin.default))
    assert not registry.lookup(node)
    (sin,) = node.graph.owning_module.otherwise.graph.find_nodes(op="call_function", target=aten.sin.default)
    sin.target = aten.relu.default
    assert registry.lookup(node)


def test_bodies_within_bodies():
    registry = registry_of(cond, relu)
    good = call(body(), body(aten.relu.default)).graph.owning_module
    assert registry.lookup(call(good, good))
    bad = call(body(), body(aten.sin.default)).graph.owning_module
    (reason,) = registry.lookup(call(good, bad)).reasons
    assert reason.argument == "false_fn"
    assert "(higher_order::cond) is not supported: body: false_fn: its node 'sin_default' (aten::sin)" in reason.seen


@pytest.mark.parametrize(
    ("result", "words"), [((None,), "its result 0 is not a tensor"), ((3,), "its result 0 is not")]
)
def test_what_a_body_may_not_return(result, words):
    (reason,) = registry_of(cond, relu).lookup(call(body(result=result), body())).reasons
    assert words in reason.seen


def test_a_body_that_writes_or_draws_or_reads_data_is_not_taken():
    registry = registry_of(cond, relu)
    for op in (aten.relu_.default, aten.item.default, aten.bernoulli.default):
        assert registry.lookup(call(body(op), body())).reasons[0].code is ReasonCode.BODY


def test_without_a_graph_there_is_no_verdict_on_it():
    (reason,) = registry_of(cond, relu).lookup(call(None, None)).reasons
    assert reason.code is ReasonCode.NO_METADATA


def test_an_operator_that_nobody_takes():
    (reason,) = registry_of(relu).lookup(call(body(), body())).reasons
    assert str(reason) == "no-converter: no plugin has a converter for higher_order::cond"


def test_the_user_keeps_an_operator_in_torch():
    for name in ("higher_order::cond", "higher_order.cond", "re:cond$"):
        assert registry_of(cond, relu, exclude=[name]).lookup(call(body(), body())).reasons[0].code is (
            ReasonCode.EXCLUDED_BY_USER
        )


def test_an_operator_by_name_and_what_explains_it():
    @converter("higher_order::cond", domain())
    def named(ctx, pred, true_fn, false_fn, operands): ...

    registry = registry_of(named, relu)
    assert named.operator is COND
    assert named.overloads() == ()
    assert registry.lookup(call(body(), body()))
    assert [c.converter.name for c in registry.explain("higher_order::cond").candidates] == ["named"]
    assert registry.explain(call(body(), body(aten.sin.default))).candidates[0].reason.code is ReasonCode.BODY
    assert COND not in registry.targets  # which have schemas


def test_parameters_are_those_of_the_call():
    with pytest.raises(DeclarationError, match=r"higher_order::cond: its parameters after ctx are \['pred'\]"):
        converter(COND, Domain(pred=Tensor(BOOL)))(lambda ctx, pred: ())
    with pytest.raises(DeclarationError, match="higher_order::cond: the domain says nothing of 'operands'"):
        converter(COND, Domain(pred=Tensor(BOOL), true_fn=Body(), false_fn=Body()))(cond.function)
    with pytest.raises(DeclarationError, match="takes any number of arguments"):
        converter(torch.ops.higher_order.map_impl, Domain(args=ListOf(Tensor())))(lambda ctx, args: ())


def test_a_body_is_a_graph():
    assert Body().refusal("f", 3, {}).required == "a graph"
    assert Body().refusal("f", BodyFacts((), (), ""), {}) is None
    because = Body(because="my backend has no loops").refusal("f", BodyFacts((), (), "its node is odd"), {}).because
    assert because == "my backend has no loops"
