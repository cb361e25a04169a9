"""Passes have one order, whatever the order they are given in; every violation is listed."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest_registry import make_plugin
from hypothesis import given
from hypothesis import strategies as st

from trtplug_registry import (
    CONTRACT,
    DeclarationError,
    DisablePass,
    OrderPasses,
    PassOrderError,
    PluginManager,
    PluginWarning,
    Registry,
    arrange_passes,
    lowering_pass,
)


def make(name, plugin="p", **anchors):
    def rewrite(graph_module):
        """x -> x"""
        return False

    return dataclasses.replace(lowering_pass(name, **anchors)(rewrite), plugin=plugin)


FIVE = [
    make("a", after=["p:c"]),
    make("b"),
    make("c", before=["p:b"]),
    make("d", phase="early"),
    make("e", phase="early", before=["p:d"]),
]


@given(st.permutations(FIVE))
def test_the_order_is_stable(passes):
    assert [item.id for item in arrange_passes(passes).passes] == ["p:e", "p:d", "p:c", "p:a", "p:b"]


def test_all_violations_are_listed():
    passes = [
        make("a", before=["p:b"]),
        make("b", before=["p:a"]),
        make("e", after=["p:nowhere"]),
        make("c", before=["p:e"]),
        make("d", phase="early", after=["p:c"]),
        make("c"),
    ]
    with pytest.raises(PassOrderError) as caught:
        arrange_passes(passes)
    message = str(caught.value)
    assert "two passes have the id 'p:c'" in message
    assert "'p:e': unknown pass 'p:nowhere'" in message
    assert "'p:d': 'p:c' is late and 'p:d' is early" in message
    assert "these wait for each other: 'p:a', 'p:b'" in message


def test_an_unknown_anchor_lists_what_exists():
    with pytest.raises(PassOrderError, match=r"'p:a': unknown pass 'p:x': did you mean 'p:a'\?\n  there are p:a$"):
        arrange_passes([make("a", after=["p:x"])])


def test_declarations():
    def undocumented(graph_module):
        return False

    def two(graph_module, more):
        """x -> x"""
        return False

    with pytest.raises(DeclarationError, match="docstring"):
        lowering_pass("a")(undocumented)

    def no_default(graph_module, *, verify):
        """x -> x"""
        return False

    for function in (two, no_default, lambda *, x=3: False):
        function.__doc__ = "x -> x"
        with pytest.raises(DeclarationError, match=r"exactly one parameter.*keyword-only parameters with defaults"):
            lowering_pass("a")(function)

    def reads(graph_module, *, verify=False, min_block_size=3):
        """x -> x"""
        return False

    assert lowering_pass("a")(reads).settings == ("verify", "min_block_size")
    with pytest.raises(DeclarationError, match="phase 'middle' is not one of early, late"):
        lowering_pass("a", phase="middle")(two)
    with pytest.raises(DeclarationError, match="ops names 'relu'; name an overload, a packet, or 'namespace::op'"):
        lowering_pass("a", ops=["relu"])(reads)


def test_what_a_pass_looks_for():
    def rewrite(graph_module):
        """x -> x"""
        return False

    aten = torch.ops.aten
    called = {aten.relu.default, aten.relu, "aten::relu"}
    for ops in ([], [aten.relu.default], [aten.relu], ["aten::relu", "torchao::quantize_affine"]):
        assert lowering_pass("a", ops=ops)(rewrite).looks_for(called)
    assert not lowering_pass("a", ops=[aten.relu_.default, "torchao::quantize_affine"])(rewrite).looks_for(called)


def ids(passes, **choices):
    return [item.id for item in arrange_passes(passes, **choices).passes]


def test_a_disabled_pass_still_holds_the_others_apart():
    chain = [make("a", after=["p:b"]), make("b", after=["p:c"]), make("c")]
    assert ids(chain) == ["p:c", "p:b", "p:a"]
    assert ids(chain, disable=["p:b"]) == ["p:c", "p:a"]


def test_one_pass_takes_the_place_of_another():
    chain = [make("a", after=["p:b"]), make("b", after=["p:c"]), make("c"), make("own", "q", replaces="p:b")]
    assert ids(chain) == ["p:c", "q:own", "p:a"]
    assert ids(chain, disable=["q:own"]) == ["p:c", "p:b", "p:a"], "a disabled pass replaces nothing"
    again = make("again", "r", replaces="q:own")
    assert ids([*chain, again]) == ["p:c", "r:again", "p:a"]
    with pytest.raises(PassOrderError) as caught:
        arrange_passes([*chain, make("rival", "r", replaces="p:b"), make("early", "r", replaces="p:a", phase="early")])
    assert "'q:own' and 'r:rival' both replace 'p:b'; disable one of them" in str(caught.value)
    assert "'r:early' (early) replaces 'p:a', which is late" in str(caught.value)
    for circle in ([make("a", replaces="p:b"), make("b", replaces="p:a")], [make("a", replaces="p:a")]):
        with pytest.raises(PassOrderError, match="replace each other"):
            arrange_passes(circle)


def test_the_user_has_the_last_word_on_the_order():
    passes = [make("a"), make("b"), make("c", after=["p:a"])]
    assert ids(passes) == ["p:a", "p:b", "p:c"]
    assert ids(passes, order=["p:b < p:a"]) == ["p:b", "p:a", "p:c"]
    assert ids(passes, order=["p:c<p:a"]) == ["p:b", "p:c", "p:a"], "against what c says itself"
    with pytest.raises(PassOrderError, match="wait for each other: 'p:a', 'p:b', 'p:c'"):
        arrange_passes(passes, order=["p:b < p:a", "p:c < p:b"])


def test_what_names_an_absent_pass_is_moot_and_an_unknown_one_is_an_error():
    passes = [make("a", after=["gone:x"], replaces="gone:z"), make("b")]
    assert ids(passes, absent=["gone"], disable=["gone:y"], order=["gone:x < p:b", "p:b < p:a"]) == ["p:b", "p:a"]
    with pytest.raises(PassOrderError) as caught:
        arrange_passes(passes, disable=["p:bb"], order=["p:aa < p:b", "p:a > p:b", "p:a < p:b < p:a"])
    for words in (
        "'p:a': unknown pass 'gone:x'",
        "'p:a': unknown pass 'gone:z'",
        "the setting disable_passes: unknown pass 'p:bb': did you mean 'p:b'",
        "pass_order 'p:aa < p:b': unknown pass 'p:aa': did you mean 'p:a'",
        "pass_order 'p:a > p:b' is no order; write 'plugin:one < plugin:two'",
        "pass_order 'p:a < p:b < p:a' is no order",
    ):
        assert words in str(caught.value)


def test_a_blocked_or_broken_plugin_does_not_stop_the_assembly():
    def of(*passes, contract=CONTRACT):
        class Brings:
            trtplug_contract = contract

            def trtplug_lowering_passes(self):
                return passes

        return Brings()

    manager = PluginManager(block=["blocked"])
    manager.register(of(make("x")), "blocked")
    with pytest.warns(PluginWarning, match="plugin 'broken' is disabled"):
        manager.register(of(make("x"), contract=99), "broken")
    manager.register(of(make("a", after=["blocked:x", "broken:x"]), make("b", before=["a"])), "mine")
    registry = Registry(manager.plugins, blocked=manager.blocked)
    assert [item.id for item in registry.passes] == ["mine:b", "mine:a"]
    with pytest.raises(PassOrderError, match="'mine:a': unknown pass 'blocked:x'"):
        Registry(manager.plugins)
    with pytest.raises(PassOrderError, match="did you mean 'mine:a'"):
        Registry(manager.plugins, blocked=manager.blocked, disable_passes=["min:a"])
    chosen = Registry(
        manager.plugins, blocked=manager.blocked, disable_passes=["mine:b"], pass_order=["mine:a < mine:b"]
    )
    assert [item.id for item in chosen.passes] == ["mine:a"]
    assert chosen.fingerprint != registry.fingerprint


# --- what plugins say of others' passes -------------------------------------------------------------------------------


def disable(id, by="q", because="it is better so"):
    return DisablePass(id, because, by)


def before(first, second, by="q", because="it is better so"):
    return OrderPasses(first, second, because, by)


CHAIN = [make("a"), make("b", after=["p:a"]), make("c", after=["p:b"])]


def said(**given):
    return [str(ruling) for ruling in arrange_passes(CHAIN, **given).rulings]


def test_a_plugin_disables_anothers_pass_and_the_user_has_the_last_word():
    choices = [disable("p:b")]
    assert ids(CHAIN, choices=choices) == ["p:a", "p:c"], "which it still holds apart"
    assert said(choices=choices) == ["p:b does not run, says q, because it is better so"]
    assert ids(CHAIN, choices=choices, enable=["p:b"]) == ["p:a", "p:b", "p:c"]
    assert said(choices=choices, enable=["p:b", "p:c"]) == [
        "p:b does not run, says q, because it is better so (no effect: the setting enable_passes)",
        "p:b runs, says settings",
        "p:c runs, says settings (no effect: no plugin disables it)",
    ]
    own = make("own", "r", replaces="p:b")
    assert ids([*CHAIN, own], choices=[disable("r:own")]) == ["p:a", "p:b", "p:c"], "a disabled pass replaces nothing"


def test_a_plugin_reorders_others_passes_and_the_user_has_the_last_word():
    free = [make("a"), make("b"), make("c", after=["p:a"])]
    assert ids(free, choices=[before("p:b", "p:a")]) == ["p:b", "p:a", "p:c"]
    assert ids(free, choices=[before("p:c", "p:a")]) == ["p:b", "p:c", "p:a"], "against what c says itself"
    choices = [before("p:b", "p:a", "q"), before("p:a", "p:b", "r")]
    assert ids(free, choices=choices, order=["p:a < p:b"]) == ["p:a", "p:b", "p:c"]
    assert ids(free, choices=choices[::-1], order=["p:b < p:a"]) == ["p:b", "p:a", "p:c"]
    found = arrange_passes(free, choices=choices, order=["p:a < p:b"]).rulings
    assert [(item.by, item.overruled) for item in found] == [
        ("q", "the setting pass_order says the opposite"),
        ("r", ""),
        ("settings", ""),
    ]


@given(st.permutations([before("p:c", "p:a", "q"), before("p:b", "p:c", "r"), disable("p:a"), disable("p:a", "r")]))
def test_what_plugins_say_has_no_order(choices):
    loose = [make("a"), make("b"), make("c")]
    found = arrange_passes(loose, choices=choices)
    assert [item.id for item in found.passes] == ["p:b", "p:c"]
    assert [item.by for item in found.rulings] == ["q", "r", "q", "r"]


def test_all_violations_of_what_plugins_say_are_listed():
    choices = [
        disable("p:bb"),
        before("p:a", "p:cc"),
        before("p:a", "p:b", "q"),
        before("p:b", "p:a", "r"),
        before("p:a", "p:early"),
        disable("gone:x"),
        before("gone:x", "p:a"),
    ]
    passes = [make("a"), make("b"), make("c"), make("early", phase="early")]
    with pytest.raises(PassOrderError) as caught:
        arrange_passes(passes, choices=choices, order=["p:a < p:c", "p:c < p:a"], absent=["gone"], enable=["p:d"])
    for words in (
        "the plugin 'q' disables: unknown pass 'p:bb': did you mean 'p:b'",
        "the plugin 'q': unknown pass 'p:cc': did you mean 'p:c'",
        "the plugin 'q' wants 'p:a' before 'p:b', the plugin 'r' the opposite; decide with pass_order",
        "the plugin 'q': 'p:a' is late and 'p:early' is early",
        "pass_order 'p:c < p:a' and pass_order 'p:a < p:c' are opposites",
        "the setting enable_passes: unknown pass 'p:d'",
    ):
        assert words in str(caught.value)
    assert "gone" not in str(caught.value)
    with pytest.raises(PassOrderError, match="disable_passes and enable_passes both name 'p:a'"):
        arrange_passes(passes, disable=["p:a"], enable=["p:a"])


def test_a_circle_says_who_wants_what():
    with pytest.raises(PassOrderError) as caught:
        arrange_passes(CHAIN, choices=[before("p:c", "p:a")])
    assert (
        "these wait for each other: 'p:a', 'p:b', 'p:c' ('p:a' before 'p:b', says 'p:b';"
        " 'p:b' before 'p:c', says 'p:c'; 'p:c' before 'p:a', says the plugin 'q')"
    ) in str(caught.value)


def test_what_plugins_say_is_declared_with_a_reason():
    for make_choice in (lambda: DisablePass("p:a", ""), lambda: OrderPasses("p:a", "p:b", "")):
        with pytest.raises(DeclarationError, match="because= must say why"):
            make_choice()
    with pytest.raises(DeclarationError, match="one of your own, leave out"):
        DisablePass("a", "why")
    with pytest.raises(DeclarationError, match="cannot run before itself"):
        OrderPasses("p:a", "p:a", "why")


def test_a_plugin_with_a_say_is_one_of_many():
    """It is stamped, hashed, disabled with its passes, and leaves no trace once it is blocked."""

    def manager(block=(), says=()):
        made = PluginManager(block=block)
        made.register(make_plugin(lowering_passes=[make("a"), make("b"), make("c")]), "base")
        made.register(make_plugin(lowering_passes=[make("own"), *says]), "mine")
        made.settle_passes()
        return made

    plain = Registry(manager().plugins)
    says = [DisablePass("base:a", "it is slow"), OrderPasses("own", "base:b", "it prepares that")]
    told = Registry(manager(says=says).plugins)
    assert [item.id for item in told.passes] == ["base:c", "mine:own", "base:b"]
    assert [str(item) for item in told.pass_rulings] == [
        "base:a does not run, says mine, because it is slow",
        "mine:own runs before base:b, says mine, because it prepares that",
    ]
    assert told.fingerprint != plain.fingerprint
    assert [item.id for item in told.having(enable_passes=["base:a"]).passes] == [
        "base:a",
        "base:c",
        "mine:own",
        "base:b",
    ]
    blocked = Registry(manager(["mine"], says).plugins, blocked=["mine"])
    assert [item.id for item in blocked.passes] == ["base:a", "base:b", "base:c"]
    assert blocked.pass_rulings == ()
    with pytest.warns(PluginWarning, match="(?s)plugin 'mine' is disabled: .*unknown pass 'base:x'"):
        without = Registry(manager(says=[DisablePass("base:x", "why")]).plugins)
    assert [item.id for item in without.passes] == ["base:a", "base:b", "base:c"]
    with pytest.warns(PluginWarning, match="plugin 'mine' is disabled: .*name a pass of another plugin"):
        manager(says=[DisablePass("mine:own", "why")])
