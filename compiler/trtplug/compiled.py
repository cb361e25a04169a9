"""What `compile` returns: a module that is called as the model was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from trtplug.engine import CompiledEngine
from trtplug.inputs import TensorInput, check_inputs, input_checks
from trtplug.lowering import Lowered, apply_mutations, flatten_inputs
from trtplug.report import CompilationReport


class CompiledModule(nn.Module):
    """A compiled model. Takes what the model took, returns what it returned.

    Attributes:
        report: what became of every node.
        engines: the TensorRT blocks, in order of execution.
        graph_module: the linked graph: Torch nodes, and one call per engine.
        lowered: how a call's inputs and outputs are nested, and what is written where.
        checks: what each flat input must be.
    """

    def __init__(
        self,
        graph_module: GraphModule,
        lowered: Lowered,
        engines: Sequence[CompiledEngine],
        report: CompilationReport,
        *,
        checks: Sequence[TensorInput | None] | None = None,
    ) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.engines = tuple(engines)
        self.report = report
        self.lowered = lowered
        if checks is None:
            placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
            checks = input_checks(placeholders, lowered.input_names, lowered.ranges)
        self.checks = tuple(checks)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model.

        Raises:
            InputError: the inputs do not fit what was compiled.
        """
        flat = flatten_inputs(self.lowered, args, kwargs)
        check_inputs(self.checks, flat)
        results = self.graph_module(*flat)
        return pytree.tree_unflatten(apply_mutations(self.lowered, flat, results), self.lowered.out_spec)

    def extra_repr(self) -> str:
        return self.report.summary()
