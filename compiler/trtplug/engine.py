"""A compiled block: the engine, what it means, and the module that stands in its place in the linked graph."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from trtplug import engine_op
from trtplug.errors import ExecutorError
from trtplug.executors import prepared
from trtplug.inspection import LayerRecord, LoadedRecord, origins
from trtplug.network import Binding
from trtplug.network.finished import profiles_of
from trtplug_registry import Executor, RunOptions, ShapeRange, TensorFacts
from trtplug_registry.executor import Run


@dataclasses.dataclass(frozen=True, eq=False)
class CompiledEngine:
    """One finished block; implements `trtplug_registry.Engine`.

    Attributes:
        name: ``engine_0`` and so on.
        input_bindings, output_bindings: in call order; sizes come after tensors.
        plan: TensorRT's serialized engine.
        lifted: the finished network lifted into Torch code, or the promise of it.
        num_layers: of the TensorRT network.
    """

    name: str
    input_bindings: tuple[Binding, ...]
    output_bindings: tuple[Binding, ...]
    plan: bytes
    lifted: GraphModule | Future[GraphModule]
    num_layers: int

    @property
    def inputs(self) -> Sequence[tuple[str, TensorFacts]]:
        return tuple((binding.name, binding.facts) for binding in self.input_bindings)

    @property
    def outputs(self) -> Sequence[tuple[str, TensorFacts]]:
        return tuple((binding.name, binding.facts) for binding in self.output_bindings)

    @property
    def reference(self) -> GraphModule:
        """What the network means; waits where it is being lifted, and raises what that raises."""
        return self.lifted if isinstance(self.lifted, GraphModule) else self.lifted.result()

    @property
    def profiles(self) -> Sequence[Sequence[ShapeRange]]:
        return profiles_of(self.input_bindings)


class EngineModule(nn.Module):
    """Runs an engine through an executor: takes the block's tensors, then its sizes; returns a tuple of tensors.

    Attributes:
        engine: what is run.
        executor, device: the executor's name, and the type of device that it asks for, or "".
    """

    def __init__(self, engine: CompiledEngine, executor: Executor, options: RunOptions | None = None) -> None:
        super().__init__()
        self.engine = engine
        self.executor, self.device = executor.name, executor.device
        self._run = prepared(executor, engine, options)
        self._registered = engine_op.register(engine, self._run)
        self._key = self._registered.key

    def forward(self, *inputs: Any) -> tuple[torch.Tensor, ...]:
        if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():  # somebody traces, or fakes
            tensors = [value for value in inputs if isinstance(value, torch.Tensor)]
            return tuple(engine_op.run(self._key, tensors, list(inputs[len(tensors) :])))
        return self._run(*inputs)

    @property
    def run(self) -> Run:
        """What the executor made of the engine: what `forward` calls where nobody traces."""
        return self._run

    def profile(self, inputs: Sequence[Any], calls: int) -> list[tuple[str, float]]:
        """Milliseconds by TensorRT layer, in order of execution.

        Raises:
            ExecutorError: the executor tells no times.
        """
        self.check_profiles()
        found: list[tuple[str, float]] = self._run.profile(inputs, calls)  # type: ignore[attr-defined]  # just checked
        return found

    def inspect(self) -> Any:
        """What TensorRT says about its layers; see `profile`."""
        self.check_profiles()
        return self._run.inspect()  # type: ignore[attr-defined]  # just checked

    def loaded(self, nodes: Sequence[str]) -> LoadedRecord | None:
        """What the loaded engine is; None where the executor does not say.

        Args:
            nodes: names of the engine's nodes.
        """
        if not hasattr(self._run, "inspect"):
            return None
        found = self._run.inspect()
        if "Engine" not in found:
            return None
        layers = (LayerRecord(name, made_of) for name, made_of in origins(found, nodes).items())
        return LoadedRecord(**found["Engine"], layers=tuple(layers))

    def check_profiles(self) -> None:
        """Raises `ExecutorError` where the executor tells no times."""
        if not hasattr(self._run, "profile"):
            raise ExecutorError(f"executor {self.executor!r} tells no times of layers: take tensorrt, or reference")

    def __deepcopy__(self, memo: dict[int, Any]) -> EngineModule:
        """Shares the engine, which nothing changes."""
        return copy.copy(self)

    def extra_repr(self) -> str:
        return f"{self.engine.name}, {self.engine.num_layers} layers, {len(self.engine.plan):,} bytes, {self.executor}"
