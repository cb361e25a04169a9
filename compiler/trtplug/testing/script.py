"""A failing call as a stand-alone Python script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from trtplug.testing.drawn import DrawnCall, Layout
from trtplug_registry import TensorFacts, qualified_name


def script(
    call: DrawnCall,
    tensors: Mapping[str, torch.Tensor],
    constants: Sequence[str] = (),
    *,
    converter: str = "",
    dynamic: str = "",
    registry: str = "trtplug.registry()",
    runner: str = "run_op",
) -> str:
    """Python code that builds the call's arguments, runs eager and trtplug, and prints both.

    Args:
        call: what is called.
        tensors: the values, by place.
        constants: the places of constants.
        converter: the id of the converter, where it must be a given one.
        dynamic: further arguments of `run_op`, as code, for symbolic sizes.
        registry: an expression for the registry.
        runner: the function that runs the call: ``run_op`` converts it, ``run_lowered_op`` lowers it first.
    """
    lines = [
        "import torch",
        "import trtplug",
        "from math import inf, nan",
        f"from trtplug.testing import {'SizeOf, ' if 'SizeOf(' in dynamic else ''}{runner}",
        "",
    ]
    names = {place: place.replace("[", "_").replace("]", "") for place in tensors}
    for place, tensor in tensors.items():
        lines += _tensor(names[place], tensor, call.layouts.get(place, Layout()))

    def leaf(place: str, value: Any) -> Any:
        return Code(names[place]) if isinstance(value, TensorFacts) else Code(literal(value))

    args, kwargs = call.spell(leaf)
    lines.append(f"args = ({''.join(f'{arg!r}, ' for arg in args).rstrip(' ')})")
    lines.append(f"kwargs = {{{', '.join(f'{name!r}: {value!r}' for name, value in kwargs.items())}}}")
    lines.append(f"op = {op_code(call)}")
    lines.append("print('eager:  ', op(*args, **kwargs))")
    extra = f", constants={tuple(constants)!r}" if constants else ""
    extra += f", converter={converter!r}" if converter else ""
    extra += f", beside={{{', '.join(f'{place!r}: {names[place]}' for place in call.beside)}}}" if call.beside else ""
    extra += f", {dynamic}" if dynamic else ""
    lines.append(f"print('trtplug:', {runner}({registry}, op, args, kwargs{extra}))")
    return "\n".join(lines)


class Code:
    """A piece of code whose repr is itself."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def op_code(call: DrawnCall) -> str:
    space, _, name = qualified_name(call.op).partition("::")
    packet, _, overload = name.partition(".")
    return f"torch.ops.{space}.{packet}.{overload or 'default'}"


def literal(value: Any) -> str:
    """A literal argument as code."""
    if isinstance(value, torch.device):
        return f"torch.device({str(value)!r})"
    return repr(value)


def _tensor(name: str, tensor: torch.Tensor, layout: Layout) -> list[str]:
    flat = tensor.detach().flatten().tolist()
    shape = "" if tensor.dim() == 1 and flat else f".reshape({tuple(tensor.shape)})"
    lines = [f"{name} = torch.tensor({flat}, dtype={tensor.dtype}){shape}"]
    if layout != Layout():
        lines.append(f"{name} = {layout.code(name, tensor)}")
    return lines
