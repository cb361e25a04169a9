"""A stand-alone program that runs calls in eager and in an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from trtplug.partition.value import is_getitem

MOST_ELEMENTS = 256
"""Tensors with more than this go into a file."""


def write_script(
    nodes: Sequence[fx.Node], output: fx.Node, values: Mapping[fx.Node, Any], executor: str
) -> tuple[str, dict[str, torch.Tensor]]:
    """The program, and the tensors that it reads from ``<its name>.safetensors``.

    Args:
        nodes: what is run, in order.
        output: the result that is compared: one of them, or an element of one.
        values: what every node before them gave.
        executor: that runs the engine.
    """
    writer = _Writer(values)
    for node in nodes:
        writer.call(node)
    result = writer.spell(output)
    read = (
        "from pathlib import Path\n\nfrom safetensors.torch import load_file\n\n"
        'stored = load_file(Path(__file__).with_suffix(".safetensors"))\n'
        if writer.stored
        else ""
    )
    given, body = "\n".join(writer.given), "\n".join(f"        {line}" for line in writer.body)
    how = "One call" if len(nodes) == 1 else f"{len(nodes)} calls"
    script = f'''"""{how}, in eager and in an engine on the {executor} executor."""

import torch
import trtplug
{read}
{given}


class Call(torch.nn.Module):
    def forward(self, {", ".join(writer.inputs)}):
{body}
        return {result}


args = ({"".join(f"{name}, " for name in writer.inputs)})
expected = Call()(*args)
compiled = trtplug.compile(Call().eval(), args, min_block_size=1, executor="{executor}")
found = compiled(*args)
print(compiled.report.summary())
print("eager", expected)
print("engine", found)
print("largest difference", (found.double() - expected.double()).abs().max().item())
'''
    return script, writer.stored


class _Writer:
    """The lines that make the inputs, and those that call."""

    def __init__(self, values: Mapping[fx.Node, Any]) -> None:
        self.values = values
        self.names: dict[fx.Node, str] = {}
        self.given: list[str] = []
        self.inputs: list[str] = []
        self.body: list[str] = []
        self.stored: dict[str, torch.Tensor] = {}

    def call(self, node: fx.Node) -> None:
        assert isinstance(node.target, OpOverload)
        given = [*map(self.spell, node.args), *(f"{name}={self.spell(value)}" for name, value in node.kwargs.items())]
        space, _, rest = node.target.name().partition("::")
        op = f"torch.ops.{space}.{rest if '.' in rest else rest + '.default'}"
        self._result(node, f"{op}({', '.join(given)})")

    def spell(self, leaf: Any) -> str:
        if isinstance(leaf, fx.Node):
            return self._name(leaf)
        if isinstance(leaf, str):
            return repr(leaf)
        return "[" + ", ".join(map(self.spell, leaf)) + "]" if isinstance(leaf, list | tuple) else _plain(leaf)

    def _name(self, node: fx.Node) -> str:
        if node in self.names:
            return self.names[node]
        if is_getitem(node) and node.args[0] in self.names:
            return self._result(node, f"{self.spell(node.args[0])}[{node.args[1]}]")
        value = self.values[node]
        return self._given(node, value) if isinstance(value, torch.Tensor) else _plain(value)

    def _result(self, node: fx.Node, words: str) -> str:
        name = self.names[node] = f"v{len(self.body)}"
        self.body.append(f"{name} = {words}")
        return name

    def _given(self, node: fx.Node, value: torch.Tensor) -> str:
        name = self.names[node] = f"t{len(self.given)}"
        if value.numel() > MOST_ELEMENTS:
            self.stored[name] = value.detach().cpu()
            made = f'stored["{name}"]'
        else:
            made = f"torch.tensor({value.detach().cpu().tolist()}, dtype={value.dtype}).reshape({list(value.shape)})"
        if value.device.type != "cpu":
            made += f'.to("{value.device.type}")'
        constant = node.op == "get_attr"
        self.given.append(f"{name} = {made}" + ("  # a constant of the graph" if constant else ""))
        if not constant:
            self.inputs.append(name)
        return name


def _plain(leaf: Any) -> str:
    if isinstance(leaf, float):
        return f'float("{leaf}")' if leaf != leaf or leaf in (float("inf"), float("-inf")) else repr(leaf)
    if isinstance(leaf, torch.device):
        return f'torch.device("{leaf}")'
    return str(leaf) if isinstance(leaf, torch.dtype | torch.layout | torch.memory_format) else repr(leaf)
