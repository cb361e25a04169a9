"""Examples: models with inputs, on which what a plugin brings can be seen at work where nothing can be drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A small model in which one thing that a plugin brings has work to do. Used by ``trtplug certify`` only.

    Attributes:
        subject: the name of a lowering pass of the plugin, or the qualified name of an op (``"mylib::op"``) that it
            converts or decomposes.
        model: a module, or a function of tensors.
        args: makes what it is called with; a function, so that loading the plugin draws no random numbers.
        dynamic_shapes: for ``torch.export``, where sizes are to be symbolic.
        plugin: who brought it; set by the registry.
    """

    subject: str
    model: Callable[..., Any]
    args: Callable[[], tuple[Any, ...]]
    dynamic_shapes: Any = None
    plugin: str = ""
