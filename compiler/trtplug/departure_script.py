"""A stand-alone program that runs one call in eager and in an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

MOST_ELEMENTS = 256
"""Tensors with more than this go into a file."""


def write_script(node: fx.Node, values: Mapping[fx.Node, Any], executor: str) -> tuple[str, dict[str, torch.Tensor]]:
    """The program, and the tensors that it reads from ``<its name>.safetensors``."""
    assert isinstance(node.target, OpOverload)
    stored: dict[str, torch.Tensor] = {}
    lines: list[str] = []
    inputs: list[str] = []
    names: dict[fx.Node, str] = {}
    for source in node.all_input_nodes:
        value = values[source]
        if not isinstance(value, torch.Tensor):
            continue
        name = names[source] = f"t{len(names)}"
        constant = source.op == "get_attr"
        if value.numel() > MOST_ELEMENTS:
            stored[name] = value.detach().cpu()
            made = f'stored["{name}"]'
        else:
            made = f"torch.tensor({value.detach().cpu().tolist()}, dtype={value.dtype}).reshape({list(value.shape)})"
        lines.append(f"{name} = {made}" + ("  # a constant of the graph" if constant else ""))
        if not constant:
            inputs.append(name)

    def spell(leaf: Any) -> str:
        if isinstance(leaf, fx.Node):
            return names.get(leaf) or repr(values[leaf])
        if isinstance(leaf, str):
            return repr(leaf)
        return "[" + ", ".join(map(spell, leaf)) + "]" if isinstance(leaf, list | tuple) else _plain(leaf)

    call = ", ".join([*map(spell, node.args), *(f"{name}={spell(value)}" for name, value in node.kwargs.items())])
    space, _, rest = node.target.name().partition("::")
    op = f"torch.ops.{space}.{rest if '.' in rest else rest + '.default'}"
    read = (
        "from pathlib import Path\n\nfrom safetensors.torch import load_file\n\n"
        'stored = load_file(Path(__file__).with_suffix(".safetensors"))\n'
        if stored
        else ""
    )
    body = "\n".join(lines)
    script = f'''"""One call, in eager and in an engine on the {executor} executor."""

import torch
import trtplug
{read}
{body}


class Call(torch.nn.Module):
    def forward(self, {", ".join(inputs)}):
        return {op}({call})


args = ({"".join(f"{name}, " for name in inputs)})
expected = Call()(*args)
compiled = trtplug.compile(Call().eval(), args, min_block_size=1, executor="{executor}")
found = compiled(*args)
print(compiled.report.summary())
for ours, theirs in zip(*(item if isinstance(item, tuple | list) else (item,) for item in (found, expected))):
    print("eager", theirs)
    print("engine", ours)
    print("largest difference", (ours.double() - theirs.double()).abs().max().item())
'''
    return script, stored


def _plain(leaf: Any) -> str:
    if isinstance(leaf, float):
        return f'float("{leaf}")' if leaf != leaf or leaf in (float("inf"), float("-inf")) else repr(leaf)
    if isinstance(leaf, torch.device):
        return f'torch.device("{leaf}")'
    return str(leaf) if isinstance(leaf, torch.dtype | torch.layout | torch.memory_format) else repr(leaf)
