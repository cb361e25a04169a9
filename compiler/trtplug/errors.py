"""The compiler's errors, all `TrtplugError`: each says what was asked, what was found, where, and what to do."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch.fx import Node

from trtplug_registry import TrtplugError, qualified_name


class SettingsError(TrtplugError):
    """A setting has a value that it cannot have."""


class InputError(TrtplugError):
    """The inputs of a call do not fit what was compiled: number, type, dtype, rank, size or device."""


class WeightsError(TrtplugError):
    """New weights do not fit the module that they are for, or it does not take any."""


class ModuleError(TrtplugError):
    """A compiled module is asked for what it cannot do as a module: to move, to be cast, to be pickled."""


class TraceError(TrtplugError):
    """``torch.export`` refuses the model, or specializes a size that was to be dynamic."""


class LoweringError(TrtplugError):
    """A lowering pass breaks the graph or changes what it promises to keep."""


class ConversionError(TrtplugError):
    """A converter fails, or TensorRT refuses one of its layers.

    Attributes:
        node: the FX node, where one is to blame.
        messages: TensorRT's own words.
    """

    def __init__(self, what: str, node: Node | None = None, messages: Sequence[str] = ()) -> None:
        self.what, self.node, self.messages = what, node, tuple(messages)
        super().__init__(f"{describe(node)}: {what}" + "".join(f"\n  TensorRT: {message}" for message in messages))


class BuildError(TrtplugError):
    """TensorRT refuses a finished network.

    Attributes:
        layers: names of our layers that TensorRT's words mention.
        messages: TensorRT's own words.
    """

    def __init__(self, what: str, layers: Sequence[str] = (), messages: Sequence[str] = ()) -> None:
        self.layers, self.messages = tuple(layers), tuple(messages)
        super().__init__(what + "".join(f"\n  TensorRT: {message}" for message in messages))


class ExecutorError(TrtplugError):
    """An executor is not available here, or an engine fails while running."""


class ArtefactError(TrtplugError):
    """A file cannot be loaded, or a model cannot be saved.

    Attributes:
        path: of the file.
        member: the part of the file that is at fault, or "".
    """

    def __init__(self, path: object, what: str, member: str = "") -> None:
        self.path, self.member = str(path), member
        super().__init__(f"{path}{f', member {member!r}' if member else ''}: {what}")


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


_TORCH = f"{os.path.dirname(torch.__file__)}{os.sep}"
