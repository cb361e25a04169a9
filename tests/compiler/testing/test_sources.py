"""Which source a result speaks of: what changes it and what does not."""

from __future__ import annotations

import torch

import trtplug
from trtplug.testing.sources import digest, reached, source_of

MODULES = {
    "plugin": "",
    "plugin.one": """
import math
from torch import nn
from plugin import shared
from plugin.two import helper as help_out
from registry import Domain

SCALE = 2
TAKES = Domain(scale=SCALE)

@converter(TAKES)
def called(ctx, x):
    # why
    return help_out(ctx, shared.widened(x), nn.ReLU)

def other(ctx):
    return math.pi
""",
    "plugin.two": """
TABLE = {1: 2}
if TABLE:
    LIMIT = 3

def helper(ctx, x, y):
    return LIMIT
""",
    "plugin.shared": """
def widened(x):
    return narrowed(x)

def narrowed(x):
    return x

def unused(y):
    return y
""",
}
ROOT = ("plugin.one", "called")


def changed(module: str, old: str, new: str) -> bool:
    """Whether the digest sees a change."""
    assert old in MODULES[module]
    after = {**MODULES, module: MODULES[module].replace(old, new)}
    return digest([ROOT], MODULES.get) != digest([ROOT], after.get)


def test_what_is_reached() -> None:
    assert reached([ROOT], MODULES.get).keys() == {
        *(("plugin.one", name) for name in ("called", "TAKES", "SCALE")),
        *(("plugin.two", name) for name in ("helper", "LIMIT", "TABLE")),
        *(("plugin.shared", name) for name in ("widened", "narrowed")),
    }


def test_what_changes_it() -> None:
    assert changed("plugin.one", "SCALE = 2", "SCALE = 3")
    assert changed("plugin.one", "@converter(TAKES)", "@converter(ALL)")
    assert changed("plugin.one", "# why", "# because")
    assert changed("plugin.two", "LIMIT = 3", "LIMIT = 4")
    assert changed("plugin.shared", "return x", "return -x")
    assert changed("plugin.one", "from plugin import shared", "from plugin import two as shared")


def test_what_does_not() -> None:
    assert not changed("plugin.one", "math.pi", "math.e")
    assert not changed("plugin.shared", "return y", "return -y")
    assert not changed("plugin.one", "import math\n", "import math\n\n\n")


def test_all_of_a_module() -> None:
    assert reached([("plugin.two", "")], MODULES.get) == {("plugin.two", ""): MODULES["plugin.two"]}


def test_of_converters_and_of_torch() -> None:
    registry = trtplug.registry()
    relu, silu = (
        next(c for c in registry if c.target_name == f"aten::{name}" and c.built_in) for name in ("relu", "silu")
    )
    assert len(source_of(relu)) == 12
    assert source_of(relu) != source_of(silu)
    assert source_of(torch._decomp.decomposition_table[torch.ops.aten.elu.default]) == ""
