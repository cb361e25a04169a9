"""Calls that nobody reads are removed."""

from __future__ import annotations

from torch import fx

from trtplug_registry import is_collective, lowering_pass


def dead_code(graph_module: fx.GraphModule) -> bool:
    """Removes calls and attributes without users.

        x ─ relu ─ y         x ─ relu ─ y
        └── exp          →

    Stays: placeholders, assertions, writes, random ops (to leave one out shifts the numbers that later ones draw), and
    collectives (other processes wait for them).
    """
    unused = (node for node in graph_module.graph.nodes if not node.users and node.op not in ("placeholder", "output"))
    if all(node.is_impure() for node in unused):  # what Torch does about the rest begins with a check of every node
        return False
    # without the argument, random ops would go where Dynamo is at work
    return bool(graph_module.graph.eliminate_dead_code(lambda node: node.is_impure() or is_collective(node.target)))


remove_dead_code_early = lowering_pass(
    "dead-code-early", phase="early", after=["no-ops-early", "constant-folding-early"]
)(dead_code)
remove_dead_code = lowering_pass(
    "dead-code",
    after=["no-ops", "type-promotion", "constant-folding", "sizes-from-inputs"],
)(dead_code)
