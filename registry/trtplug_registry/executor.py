"""Executors: what runs a finished block."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import torch
from torch.fx import GraphModule

from trtplug_registry.facts import TensorFacts

ShapeRange: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""The smallest, typical and largest shape of an input; of a size the number itself, as a shape of one."""


class Engine(Protocol):
    """A finished block, as an executor gets it."""

    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> Sequence[tuple[str, TensorFacts]]:
        """Names and facts of the inputs, in call order; a dynamic size is -1."""

    @property
    def outputs(self) -> Sequence[tuple[str, TensorFacts]]: ...

    @property
    def profiles(self) -> Sequence[Sequence[ShapeRange]]:
        """By optimization profile, in TensorRT's order, the range of each input; empty where there is one at most.

        An executor takes the shapes that one of them holds, and no other.
        """

    @property
    def plan(self) -> bytes | None:
        """TensorRT's serialized engine, or None where none was built."""

    @property
    def reference(self) -> GraphModule:
        """What the finished TensorRT network means, lifted into a graph of Torch calls."""


Run: TypeAlias = Callable[..., tuple[torch.Tensor, ...]]
"""Runs an engine. One that has these methods, too, can be profiled: ``profile(inputs, calls)`` returns milliseconds by
layer, pairs in order of execution; ``inspect()`` a dict like those of TensorRT's inspector: ``Layers``, each a name or
a dict with ``Name`` and ``Metadata`` (which names nodes), and, where an engine is loaded, ``Engine``: a dict of
``device_memory``, ``streamable_weights`` and ``aux_streams``, as far as they are known."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How engines are to be run; what they compute does not depend on it.

    Attributes:
        cuda_graphs: replay a call as a captured CUDA graph where its shapes come again.
        cache_dir: a folder where an executor may keep what it compiles for the device at hand, or None.
        cache_bytes: most bytes that everything kept there may have.
        weight_budget_bytes: most bytes of each engine's weights that stay on the device, of one that was built to have
            its weights streamed; None: all of them.
    """

    cuda_graphs: bool = False
    cache_dir: str | None = None
    cache_bytes: int = 10 * 2**30
    weight_budget_bytes: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Executor:
    """A way to run engines.

    Attributes:
        name: what the ``executor`` setting calls it.
        unavailable: why it cannot run here, in words, or None where it can.
        prepare: makes an engine's run function, from tensors (and ints for size inputs) to a tuple of tensors.
        priority: ``executor="auto"`` takes the highest that is available.
        device: the type of device (``"cuda"``) that its tensors live on; "" for any.
        plugin: who brought it; set by the registry.
        configured: as `prepare`, with options; None where it has none: then CUDA graphs and a budget for weights are
            refused for it.
    """

    name: str
    unavailable: Callable[[], str | None]
    prepare: Callable[[Engine], Run]
    priority: int = 0
    device: str = ""
    plugin: str = ""
    configured: Callable[[Engine, RunOptions], Run] | None = None
