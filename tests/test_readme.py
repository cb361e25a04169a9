"""What the README shows, works."""

from __future__ import annotations

import re
import types
from pathlib import Path

import torch
from torch import nn

import trtplug
from trtplug_registry import PluginManager, Registry

ROOT = Path(__file__).parent.parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_plugin_is_real():
    @torch.library.custom_op("mylib::swish", mutates_args=())
    def swish(x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)

    swish.register_fake(torch.empty_like)
    (source,) = (block for block in blocks("python") if "trtplug_contract" in block)
    plugin = types.ModuleType("readme")
    exec(source, vars(plugin))
    manager = PluginManager(strict=True)
    manager.load_entry_points()
    manager.register(plugin, "readme")

    class Model(nn.Module):
        def forward(self, x):
            return swish(x) + 1

    compiled = trtplug.compile(Model(), (torch.randn(3),), registry=Registry(manager.plugins), min_block_size=1)
    assert not compiled.report.torch_ops
    x = torch.randn(3)
    torch.testing.assert_close(compiled(x), Model()(x))


def test_the_settings_are_all_named():
    import dataclasses

    text = (ROOT / "README.md").read_text()
    for field in dataclasses.fields(trtplug.Settings):
        assert f"`{field.name}`" in text, field.name


def test_there_are_two_commands():
    marked = re.findall(r"<!-- (the main job|the tests) -->\n```bash\n(.*?)\n```", (ROOT / "README.md").read_text())
    assert [name for name, _ in marked] == ["the main job", "the tests"]
    assert all(command.startswith("pip install ") for _, command in marked)
