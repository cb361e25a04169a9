"""Graphs as files, one for each pass that changed something."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import fx

from trtplug.errors import SettingsError
from trtplug.lowering.value import PassRecord
from trtplug.naming import op_name, source_line


class GraphDump:
    """Writes a graph after each pass that changes it, numbered in the order in which they ran.

    ``NNN-plugin.pass.py`` is code to read, with shapes and source lines. ``NNN-plugin.pass.txt`` has one call a line,
    in names that passes keep, for ``diff``.

    Args:
        folder: made where it is not there. Where it holds a dump already (``torch.compile`` lowers one graph after the
            other), a subfolder with the next free number is taken.

    Raises:
        SettingsError: it cannot be made.
    """

    def __init__(self, folder: str) -> None:
        self.folder, number = Path(folder), 1
        while any(self.folder.glob("000-*")):
            number += 1
            self.folder = Path(folder) / str(number)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"dump_graphs={folder!r}: it cannot be a folder: {error.strerror}") from error
        self.count = 0

    def write(self, graph_module: fx.GraphModule, record: PassRecord) -> None:
        """Writes both files."""
        stem = f"{self.count:03}-{re.sub(r'[^A-Za-z0-9_.-]', '.', record.id)}"
        self.count += 1
        code = graph_module.print_readable(print_output=False, include_stride=False)
        (self.folder / f"{stem}.py").write_text(f"{_heading(record)}{code}\n")
        lines = (line_of(node) for node in graph_module.graph.nodes)
        (self.folder / f"{stem}.txt").write_text("".join(f"{line}\n" for line in lines))


def _heading(record: PassRecord) -> str:
    nodes = f"{record.nodes_before} → {record.nodes_after} nodes"
    notes = [f"applied {count} × {rule}" for rule, count in record.applied.items()]
    notes += [f"declined {count} × {reason}" for reason, count in record.declined.items()]
    return "".join(f"# {line}\n" for line in (f"{record.id}: {nodes}, {1e3 * record.seconds:.1f} ms", *notes))


def line_of(node: fx.Node) -> str:
    """A node in one line: ``add: float32[2, s0] = aten::add.Tensor(x, 1, alpha=2)  # model.py:7``."""
    arguments = ", ".join([*map(_words, node.args), *(f"{name}={_words(item)}" for name, item in node.kwargs.items())])
    called = {"call_function": op_name(node), "get_attr": f"attribute {node.target}"}.get(node.op, node.op)
    text = called if node.op in ("placeholder", "get_attr") else f"{called}({arguments})"
    line = source_line(node)
    return f"{node.name}: {_type(node.meta.get('val'))} = {text}{f'  # {line}' if line else ''}"


def _type(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{[*value.shape]}"
    return f"({', '.join(map(_type, value))})" if isinstance(value, list | tuple) else type(value).__name__


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_words, value))}]"
    return str(value) if isinstance(value, fx.Node | torch.dtype) else repr(value)
