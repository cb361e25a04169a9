"""What the pages on plugins show, works; the hook reference is the specifications'."""

from __future__ import annotations

import re
import tomllib
import types
from pathlib import Path

import pytest
import torch
import typer
from torch import nn

import trtplug
from trtplug.cli import app
from trtplug.control import choices
from trtplug.testing import plugin_cases
from trtplug_registry import PluginManager, Registry
from trtplug_registry.reference import hook_reference

DOCS = Path(__file__).parent.parent / "docs"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / "write-a-plugin.md").read_text(), re.DOTALL)


def test_the_hook_reference_is_what_the_specifications_say():
    assert (DOCS / "hooks.md").read_text() == hook_reference(), (
        "run: python -m trtplug_registry.reference > docs/hooks.md"
    )


@pytest.fixture(scope="module")
def registry():
    """The page's code, in order, as one plugin."""
    plugin = types.ModuleType("page")
    for source in blocks("python"):
        exec(source, vars(plugin))
    plugin.trtplug_converters = lambda: [plugin.gated, plugin.clamp_min_zero, plugin.ported_erf]
    manager = PluginManager(strict=True)
    manager.load_entry_points()
    manager.register(plugin, "page")
    return Registry(manager.plugins)


class Model(nn.Module):
    def forward(self, x, gate):
        return torch.erf((x * torch.sigmoid(gate)).clamp_min(0))


def test_the_page_is_a_plugin(registry):
    x, gate = torch.randn(2, 3), torch.randn(2, 3)
    compiled = trtplug.compile(Model(), (x, gate), registry=registry, min_block_size=1)
    torch.testing.assert_close(compiled(x, gate), Model()(x, gate))
    assert [node.converter for node in compiled.report.nodes] == [
        *("page:docs::gated", "page:aten::clamp_min", "page:aten::erf")
    ]


def test_the_page_keeps_the_laws_that_it_promises(registry):
    picked = {"preserves", "equals-eager", "refusals"}
    for case in plugin_cases("page", registry):
        if (
            case.kind != "executor"
            and case.law in picked
            and case.dtype in ("", "float32")
            and "erf" not in case.subject
        ):
            case.check()


def test_the_commands_exist():
    commands = set(typer.main.get_command(app).commands)
    named = {match for block in blocks("bash") for match in re.findall(r"^trtplug ([\w-]+)", block, re.MULTILINE)}
    assert named == {"new-plugin", "certify"}
    assert named | {"plugins", "doctor"} <= commands


def test_the_table_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (source,) = (block for block in blocks("toml") if "tool.trtplug" in block)
    (tmp_path / "pyproject.toml").write_text(source)
    assert {name: list(choice.value) for name, choice in choices().items()} == tomllib.loads(source)["tool"]["trtplug"]
