"""Law 7 catches passes with planted bugs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx

from trtplug.lowering.lift import lift
from trtplug.testing import LawViolationError, check_pass
from trtplug_registry import lowering_pass

aten = torch.ops.aten
X = torch.randn(2, 3)


def model(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.relu(torch.relu(x)) + 1, x * 2


def calls_of(module: fx.GraphModule, op: object) -> list[fx.Node]:
    return [node for node in module.graph.nodes if node.target is op]


def right(module: fx.GraphModule) -> bool:
    """relu(relu(x)) → relu(x)"""
    for node in calls_of(module, aten.relu.default):
        if node.args[0].target is aten.relu.default:  # type: ignore[union-attr]
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
            module.graph.erase_node(node)
            return True
    return False


def changes_numbers(module: fx.GraphModule) -> bool:
    """relu(x) → x"""
    found = calls_of(module, aten.relu.default)
    for node in found:
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
        module.graph.erase_node(node)
    return bool(found)


def test_a_pass_that_forgets_an_op_of_its_own():
    with pytest.raises(LawViolationError, match="it changes a graph that calls none of its ops"):
        check_pass(lowering_pass("p", ops=[aten.sigmoid.default])(right), model, [X])


def lies(module: fx.GraphModule) -> bool:
    """relu(relu(x)) → relu(x), unsaid"""
    right(module)
    return False


def never_done(module: fx.GraphModule) -> bool:
    """relu(x) → relu(relu(x))"""
    node = calls_of(module, aten.relu.default)[-1]
    with module.graph.inserting_after(node):
        again = module.graph.call_function(aten.relu.default, (node,))
    again.meta = dict(node.meta)
    node.replace_all_uses_with(again, delete_user_cb=lambda user: user is not again)
    return True


def renames(module: fx.GraphModule) -> bool:
    """x → y"""
    node = next(iter(module.graph.nodes))
    if node.name == "renamed":
        return False
    node.name = node.target = "renamed"
    return True


def forgets_metadata(module: fx.GraphModule) -> bool:
    """relu(relu(x)) → neg(neg(relu(x)))"""
    if calls_of(module, aten.neg.default):
        return False
    node = calls_of(module, aten.relu.default)[-1]
    with module.graph.inserting_before(node):
        once = module.graph.call_function(aten.neg.default, node.args)
        twice = module.graph.call_function(aten.neg.default, (once,))
    node.args = (twice,)
    return True


def breaks(module: fx.GraphModule) -> bool:
    """uses a node before it is made"""
    first, *_, last = calls_of(module, aten.relu.default)
    if first.args[0] is last:
        return False
    first.args = (last,)
    return True


def raises(module: fx.GraphModule) -> bool:
    """x → nothing"""
    raise KeyError("x")


def test_a_right_pass_keeps_the_law_and_is_known_to_have_worked() -> None:
    assert check_pass(lowering_pass("right")(right), model, (X,))
    assert not check_pass(lowering_pass("right")(right), lambda x: x + 1, (X,))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (changes_numbers, "changes what the graph computes"),
        (lies, "returned False, but the graph has changed"),
        (never_done, "not idempotent"),
        (renames, "inputs and outputs were"),
        (forgets_metadata, "has no meta['val']"),
        (breaks, "breaks the graph"),
        (raises, "raised KeyError: 'x'"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_planted_bugs_are_caught(function: Callable[[fx.GraphModule], bool], words: str) -> None:
    with pytest.raises(LawViolationError) as error:
        check_pass(lowering_pass("planted")(function), model, (X,))
    assert words in str(error.value)
    assert "before:" in str(error.value)


def test_a_graph_that_is_given_is_not_changed() -> None:
    exported = torch.export.export(torch.nn.ReLU(), (X,))
    graph_module = lift(exported).graph_module
    before = str(graph_module.graph)
    check_pass(lowering_pass("right")(right), graph_module, (X,))
    assert str(graph_module.graph) == before
