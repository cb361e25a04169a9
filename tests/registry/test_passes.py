"""Passes have one order, whatever the order they are given in; every violation is listed."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtplug_registry import DeclarationError, PassOrderError, lowering_pass, order_passes


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
    assert [item.id for item in order_passes(passes)] == ["p:e", "p:d", "p:c", "p:a", "p:b"]


def test_all_violations_are_listed():
    passes = [
        make("a", before=["p:b"]),
        make("b", before=["p:a"]),
        make("c", after=["p:nowhere"]),
        make("d", phase="early", after=["p:c"]),
        make("c"),
    ]
    with pytest.raises(PassOrderError) as caught:
        order_passes(passes)
    message = str(caught.value)
    assert "two passes have the id 'p:c'" in message
    assert "'p:d' (early) names 'p:c', which is late" in message
    assert "these wait for each other: 'p:a', 'p:b'" in message


def test_an_unknown_anchor_lists_what_exists():
    with pytest.raises(PassOrderError, match=r"'p:a' names 'p:x', which does not exist; there are \['p:a'\]"):
        order_passes([make("a", after=["p:x"])])


def test_declarations():
    def undocumented(graph_module):
        return False

    def two(graph_module, more):
        """x -> x"""
        return False

    with pytest.raises(DeclarationError, match="docstring"):
        lowering_pass("a")(undocumented)
    with pytest.raises(DeclarationError, match="exactly one parameter"):
        lowering_pass("a")(two)
    with pytest.raises(DeclarationError, match="phase 'middle' is not one of early, late"):
        lowering_pass("a", phase="middle")(two)
