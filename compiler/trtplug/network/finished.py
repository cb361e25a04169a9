"""A finished network: built into an engine, or lifted into Torch code that computes what it means."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch.fx import GraphModule, Node

from trtplug._tensorrt import library, serialized
from trtplug.errors import BuildError
from trtplug.network.builder import NetworkBuilder
from trtplug_registry import ShapeRange, TensorFacts

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase of the build, the steps done in it, and the steps that it has."""


@dataclasses.dataclass(frozen=True)
class Binding:
    """One input or output.

    Attributes:
        name: as the engine knows it.
        facts: shape (-1 where dynamic) and dtype.
        smallest, typical, largest: for an input, the shapes that the engine is built for; for a size input, which has
            shape (), the numbers themselves, as a tuple of one.
        size: whether it is a size rather than a tensor; such inputs are int64 with shape ().
        extents: each size (for a size input: the size itself) as an int or an expression of symbols that all bindings
            of the network share; () where it is not known.
        profiles: for an input, smallest, typical and largest by optimization profile, where the engine has several; as
            many for each input. Then those above are of all of them together.
    """

    name: str
    facts: TensorFacts
    smallest: tuple[int, ...] = ()
    typical: tuple[int, ...] = ()
    largest: tuple[int, ...] = ()
    size: bool = False
    extents: tuple[int | sympy.Expr, ...] = dataclasses.field(default=(), compare=False)  # symbols differ by process
    profiles: tuple[ShapeRange, ...] = ()

    @property
    def dynamic(self) -> bool:
        return -1 in self.facts.shape


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """What an engine build may be told.

    Attributes:
        workspace_bytes: most scratch memory that an engine may use; None leaves TensorRT's own default.
        tf32: whether float32 products may round their operands to TF32 on a GPU.
        weight_streaming: whether the engine's weights may stay in the host's memory.
    """

    workspace_bytes: int | None = None
    tf32: bool = False
    weight_streaming: bool = False


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that is complete, with the weights it points into.

    Attributes:
        name: of the block.
        source: the builder; keeps the definition, the weights and the logger alive.
        inputs, outputs: in call order.
    """

    name: str
    source: NetworkBuilder
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]

    @property
    def definition(self) -> Any:
        return self.source.definition

    @property
    def weights(self) -> Mapping[str, torch.Tensor]:
        return self.source.weights

    @property
    def num_layers(self) -> int:
        return int(self.definition.num_layers)

    def lift(self) -> GraphModule:
        """The network as Torch code: takes the inputs in order, returns the tuple of outputs. See `reference.lift`."""
        from trtplug.reference import lift

        return lift(self.definition, self.weights)

    def build(self, progress: Progress | None = None, options: BuildOptions | None = None) -> bytes:
        """Builds the engine, with the real TensorRT, on this machine.

        Raises:
            BuildError: TensorRT refuses; it names the layers that TensorRT's words mention.
        """
        source = self.source
        source.logger.take()
        config = source.builder.create_builder_config()
        self._configure(config, options or BuildOptions())
        if progress is not None and hasattr(config, "progress_monitor"):
            config.progress_monitor = _monitor(progress)
        plan = serialized(source.builder, self.definition, config)
        messages = source.logger.take()
        if plan is None:
            layers = mentioned(messages, source.nodes)
            raise BuildError(f"TensorRT cannot build {self.name}", layers, messages)
        return plan

    def nodes_of(self, layers: tuple[str, ...]) -> tuple[Node, ...]:
        """The FX nodes that layers come from, each once."""
        return tuple(dict.fromkeys(self.source.nodes[layer] for layer in layers if layer in self.source.nodes))

    def _configure(self, config: Any, options: BuildOptions) -> None:
        trt = library()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that fused layers say what they are made of
        if options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        if not options.tf32:
            config.clear_flag(trt.BuilderFlag.TF32)
        else:
            config.set_flag(trt.BuilderFlag.TF32)
        if options.weight_streaming:
            config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
        if not any(binding.dynamic or binding.size for binding in self.inputs):
            return
        for spans in profiles_of(self.inputs) or [[(b.smallest, b.typical, b.largest) for b in self.inputs]]:
            self._add_profile(config, spans)

    def _add_profile(self, config: Any, spans: Sequence[ShapeRange]) -> None:
        profile = self.source.builder.create_optimization_profile()
        for binding, points in zip(self.inputs, spans, strict=True):
            if binding.size:
                profile.set_shape_input(binding.name, *(list(point) for point in points))
            elif binding.dynamic:
                profile.set_shape(binding.name, *points)
        if config.add_optimization_profile(profile) < 0:
            what = f"TensorRT refuses the shape ranges of {self.name}: {[b for b in self.inputs if b.dynamic]}"
            raise BuildError(what, (), self.source.logger.take())


def profiles_of(inputs: Sequence[Binding]) -> tuple[tuple[ShapeRange, ...], ...]:
    """By optimization profile, the range of each input; () where there is one at most."""
    return tuple(zip(*(binding.profiles for binding in inputs), strict=True))


def mentioned(messages: tuple[str, ...], names: Mapping[str, Any]) -> tuple[str, ...]:
    """The layer names that occur in TensorRT's messages."""
    words = {word for message in messages for word in re.findall(r"[\w.]+", message)}
    return tuple(name for name in names if name in words)


def _monitor(progress: Progress) -> Any:
    trt = library()

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined,misc]  # the class is known at run time only
        """Passes progress on. Called from C++: never raises."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps
            progress(phase, 0, steps)

        def phase_finish(self, phase: str) -> None:
            steps = self.steps.pop(phase, 0)
            progress(phase, steps, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            progress(phase, step + 1, self.steps.get(phase, 0))
            return True

    return Monitor()
