"""Nodes as messages and reports name them: the op, and the model's source line."""

from __future__ import annotations

import functools
import os

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch.fx import Node

from trtplug_registry import qualified_name

_TORCH = f"{os.path.dirname(torch.__file__)}{os.sep}"


def describe(node: Node | None) -> str:
    """A node as messages name it: op, name, and the model's source line where it is known."""
    if node is None:
        return "the network"
    op = op_name(node)
    line = source_line(node)
    return f"{op} (node {node.name!r}{f', {line}' if line else ''})"


def op_name(node: Node) -> str:
    """``aten::add.Tensor`` for an op, ``higher_order::cond`` for an operator on graphs, a function's name otherwise."""
    target = node.target
    if isinstance(target, OpOverload):
        return qualified_name(target)
    if isinstance(target, HigherOrderOperator):
        return qualified_name(target)
    return getattr(target, "__name__", str(target))


def source_line(node: Node) -> str:
    """``file:line: code`` of the innermost frame outside of Torch that the node came from, or ""."""
    return _innermost(node.meta.get("stack_trace") or "")


@functools.lru_cache(maxsize=1024)  # a loop or a module that is called again makes many nodes of one line
def _innermost(trace: str) -> str:
    lines = [line.strip() for line in trace.splitlines()]
    found = ""
    for place, line in enumerate(lines):
        if not line.startswith('File "'):
            continue
        file, _, rest = line.removeprefix('File "').partition('", line ')
        if found and file.startswith((_TORCH, "<eval_with_key>")):
            continue
        number = rest.partition(",")[0]
        code = lines[place + 1] if place + 1 < len(lines) and not lines[place + 1].startswith('File "') else ""
        found = f"{file}:{number}: {code}" if code else f"{file}:{number}"
    return found
