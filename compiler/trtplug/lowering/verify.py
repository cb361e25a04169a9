"""Numbers after each pass: the graph is run on drawn inputs and compared with what it gave before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy
import torch
from torch import fx

from trtplug.errors import LoweringError
from trtplug.input_specs import example_tensor
from trtplug.ranges import Range

_RELATIVE = {torch.float16: 5e-3, torch.bfloat16: 4e-2, torch.float32: 1e-4, torch.float64: 1e-7}
"""Passes may reorder arithmetic; this is what that costs on sums of a few thousand terms."""


class Verifier:
    """Holds the inputs and the results that every later state of the graph must reproduce.

    Args:
        graph_module: before any pass.
        ranges: sizes are drawn at opt.
    """

    def __init__(self, graph_module: fx.GraphModule, ranges: Mapping[sympy.Symbol, Range]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = [
            drawn(node.meta.get("val"), ranges, generator)
            for node in graph_module.graph.nodes
            if node.op == "placeholder"
        ]
        self.expected = self._run(graph_module)

    def _run(self, graph_module: fx.GraphModule) -> list[Any]:
        inputs = [item.clone() if isinstance(item, torch.Tensor) else item for item in self.inputs]
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            results = fx.Interpreter(graph_module, garbage_collect_values=True).run(*inputs)
            return [result.detach() if isinstance(result, torch.Tensor) else result for result in results]

    def check(self, graph_module: fx.GraphModule, identifier: str, *, rounds: bool = False) -> None:
        """Raises `LoweringError`, naming `identifier`, where a result differs.

        With `rounds`, floats may differ by what half types round off; what follows is compared with the new results.
        """
        try:
            found = self._run(graph_module)
        except Exception as error:
            raise LoweringError(
                f"after {identifier!r} the graph does not run: {type(error).__name__}: {error}"
            ) from error
        for place, (ours, theirs) in enumerate(zip(found, self.expected, strict=True)):
            difference = _difference(ours, theirs, rounds)
            if difference:
                raise LoweringError(f"{identifier!r} changes output {place}: {difference}")
        if rounds:
            self.expected = found


def _difference(ours: Any, theirs: Any, rounds: bool) -> str:
    if not isinstance(theirs, torch.Tensor):
        return "" if ours == theirs else f"it was {theirs!r} and is {ours!r}"
    if not isinstance(ours, torch.Tensor):
        return f"it was a tensor and is {type(ours).__name__}"
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return f"it was {theirs.dtype}{list(theirs.shape)} and is {ours.dtype}{list(ours.shape)}"
    if theirs.dtype.is_floating_point or theirs.dtype.is_complex:
        finite = theirs[theirs.isfinite()]
        relative = _RELATIVE[torch.bfloat16] if rounds else _RELATIVE.get(theirs.dtype, 1e-4)
        size = float(finite.abs().max()) if finite.numel() else 0.0
        same = torch.isclose(ours, theirs, rtol=relative, atol=relative * min(size, 1e3), equal_nan=True)
    elif rounds:
        return ""  # a rank, a class, a comparison: whatever follows from floats that are almost equal
    else:
        same = ours == theirs
    if bool(same.all()):
        return ""
    place = tuple((~same).nonzero()[0].tolist())
    return f"{int((~same).sum())} of {same.numel()} elements differ; at {place} {theirs[place]} became {ours[place]}"


def drawn(value: Any, ranges: Mapping[sympy.Symbol, Range], generator: torch.Generator) -> Any:
    """A real value for a placeholder's fake one, every size at opt."""
    if isinstance(value, torch.Tensor):
        shape = [size_at_opt(size, ranges) for size in value.shape]
        return example_tensor(shape, value.dtype, value.device, generator)
    return size_at_opt(value, ranges) if isinstance(value, torch.SymInt) else value


def size_at_opt(size: Any, ranges: Mapping[sympy.Symbol, Range]) -> int:
    if not isinstance(size, torch.SymInt):
        return int(size)
    expression = size.node.expr
    return int(expression.xreplace({s: sympy.Integer(ranges[s].opt) for s in expression.free_symbols if s in ranges}))
