"""The compiler's errors, all `TrtplugError`: each says what was asked, what was found, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trtplug_registry import TrtplugError

if TYPE_CHECKING:  # who only needs the errors need not wait for Torch
    from torch.fx import Node


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
        from trtplug.naming import describe

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
