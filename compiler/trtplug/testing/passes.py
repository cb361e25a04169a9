"""Law 7: a lowering pass preserves results, metadata and the names of inputs and outputs, and is idempotent."""

from __future__ import annotations

import copy
import dataclasses
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

import sympy
import torch
from torch import fx, nn

from trtplug.testing.compare import mismatch
from trtplug.testing.errors import LawViolationError
from trtplug_registry import LoweringPass, Tolerance, describe_value

REORDERED: Mapping[torch.dtype, Tolerance] = {
    torch.float32: Tolerance(1e-4, 1e-5, "a pass may reorder arithmetic"),
    torch.float16: Tolerance(5e-3, 2e-3, "a pass may reorder arithmetic"),
    torch.bfloat16: Tolerance(4e-2, 2e-2, "a pass may reorder arithmetic"),
}

ROUNDED: Mapping[torch.dtype, Tolerance] = {
    dtype: Tolerance(4e-2, 2e-2, "the pass is there to round to halves")
    for dtype in (torch.float32, torch.float16, torch.bfloat16)
}


def check_pass(
    lowering_pass: LoweringPass,
    model: nn.Module | fx.GraphModule | Callable[..., Any],
    inputs: Sequence[Any],
    *,
    dynamic_shapes: Any = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> bool:
    """Holds one pass to law 7 on one model.

    Args:
        lowering_pass: under test.
        model: a module or function, which is exported and lifted; or a graph as passes see it, of which a copy is used:
            placeholders, ``get_attr``, calls and an output tuple, with ``meta["val"]``.
        inputs: what the model is called with.
        dynamic_shapes: for ``torch.export``.
        settings: what the pass is given of those that it reads; its own defaults where not given.

    Returns:
        Whether the pass changed the graph: a pass that changes nothing has not been tested.

    Raises:
        LawViolationError: it changes a result, an input, an output's shape or dtype, or metadata that is then wrong; it
            breaks the graph; it changes the graph again when it is run once more; it says the wrong thing about it; or
            the graph calls none of the ops that it declares.
    """
    graph_module = copy.deepcopy(model) if isinstance(model, fx.GraphModule) else _lifted(model, inputs, dynamic_shapes)
    trial = _PassTrial(lowering_pass, graph_module, inputs, settings)
    changed = trial.apply("")
    if trial.apply(" the second time"):
        trial.fail("it changes the graph again when it is run once more: it is not idempotent")
    return changed


def admissible_order(
    passes: Sequence[LoweringPass], draw: random.Random, *, share: float = 1.0
) -> tuple[LoweringPass, ...]:
    """A random order of passes that their ``before`` and ``after`` admit.

    Args:
        passes: of one phase.
        draw: what decides.
        share: of the passes that are in it; the others still hold those before and after them apart.
    """
    left, order = list(passes), []
    while left:
        ids = {item.id for item in left}
        waiting = {name for item in left for name in item.before} | {item.id for item in left if ids & set(item.after)}
        item = draw.choice([item for item in left if item.id not in waiting])
        left.remove(item)
        if draw.random() < share:
            order.append(item)
    return tuple(order)


def _lifted(model: Any, inputs: Sequence[Any], dynamic_shapes: Any) -> fx.GraphModule:
    from trtplug.lowering.lift import lift

    module = model if isinstance(model, nn.Module) else _Function(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export's own
        exported = torch.export.export(module, tuple(inputs), dynamic_shapes=dynamic_shapes)
        return lift(exported).graph_module


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


@dataclasses.dataclass
class _PassTrial:
    lowering_pass: LoweringPass
    graph_module: fx.GraphModule
    inputs: Sequence[Any]
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.code = self.graph_module.graph.python_code("self").src
        self.expected = self._run()

    def apply(self, when: str) -> bool:
        """Runs the pass once, and checks all that it must keep. Returns whether the graph changed."""
        before, promise, looks = self._wiring(), self._promise(), self._looks()
        try:
            claimed = self.lowering_pass.function(self.graph_module, **self.settings)
        except Exception as error:  # a plugin's pass may raise anything
            self.fail(f"it raised{when} {type(error).__name__}: {error}", error)
        changed = before != self._wiring()
        if claimed is not changed:
            self.fail(f"it returned{when} {claimed!r}, but the graph has {'' if changed else 'not '}changed")
        if changed and not looks:
            self.fail(f"it changes{when} a graph that calls none of its ops, on which it would not be run")
        self._check_form(when)
        if self._promise() != promise:
            self.fail(f"inputs and outputs were{when}\n  {promise}\nand are\n  {self._promise()}")
        tolerances = ROUNDED if self.lowering_pass.rounds else REORDERED
        found = mismatch(self._run(check=True), self.expected, tolerances)
        if found is not None:
            self.fail(f"it changes{when} what the graph computes: {found}")
        return changed

    def fail(self, what: str, cause: Exception | None = None) -> NoReturn:
        after = self.graph_module.graph.python_code("self").src
        raise LawViolationError(
            f"law 7 does not hold for the pass {self.lowering_pass.id!r}: {what}\n\n"
            f"before:\n{self.code}\nafter:\n{after}"
        ) from cause

    def _looks(self) -> bool:
        from trtplug.lowering.state import State

        return self.lowering_pass.looks_for(State(self.graph_module).called)

    def _check_form(self, when: str) -> None:
        try:
            self.graph_module.graph.lint()
            self.graph_module.recompile()
        except Exception as error:  # lint raises RuntimeError, codegen SyntaxError
            self.fail(f"it breaks the graph{when}: {error}", error)

    def _wiring(self) -> list[tuple[Any, ...]]:
        return [(n.name, n.op, n.target, str(n.args), str(n.kwargs)) for n in self.graph_module.graph.nodes]

    def _promise(self) -> tuple[Any, Any]:
        """Names and metadata of the inputs, metadata of the outputs."""
        graph = self.graph_module.graph
        inputs = [(n.name, _described(n)) for n in graph.nodes if n.op == "placeholder"]
        (end,) = [n for n in graph.nodes if n.op == "output"]
        results = end.args[0]
        return inputs, [_described(item) for item in results] if isinstance(results, list | tuple) else repr(results)

    def _run(self, check: bool = False) -> list[Any]:
        """The graph's results; with `check`, each node's value is compared with its metadata."""
        given = [item.clone() if isinstance(item, torch.Tensor) else item for item in self.inputs]
        runner = _Checked(self, check)
        with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            results = runner.run(*given)
        return [item if isinstance(item, torch.Tensor) else torch.tensor(item) for item in results if item is not None]


class _Checked(fx.Interpreter):
    """Runs a graph and holds each node's value against its metadata."""

    def __init__(self, trial: _PassTrial, check: bool) -> None:
        super().__init__(trial.graph_module)
        self.extra_traceback = False
        self.trial, self.check = trial, check
        self.sizes: dict[sympy.Symbol, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "output":
            return value
        promised = n.meta.get("val")
        if n.op == "placeholder":
            self._learn(promised, value)
        if self.check and isinstance(value, torch.Tensor) and (n.users or n.op == "placeholder"):
            self._compare(n, promised, value)
        return value

    def _learn(self, promised: Any, value: Any) -> None:
        """What the inputs make of the symbols."""
        pairs = (
            zip(promised.shape, value.shape, strict=True) if isinstance(promised, torch.Tensor) else [(promised, value)]
        )
        for size, number in pairs:
            if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol):
                self.sizes[size.node.expr] = int(number)

    def _compare(self, node: fx.Node, promised: Any, value: torch.Tensor) -> None:
        if not isinstance(promised, torch.Tensor):
            self.trial.fail(f"the node {node.name!r} has no meta['val']")
        shape = [
            int(size.node.expr.xreplace(self.sizes)) if isinstance(size, torch.SymInt) else size
            for size in promised.shape
        ]
        if promised.dtype != value.dtype or shape != list(value.shape):
            self.trial.fail(
                f"the metadata of {node.name!r} says {promised.dtype}{shape},"
                f" it computes {value.dtype}{list(value.shape)}"
            )


def _described(value: Any) -> str:
    if not isinstance(value, fx.Node):
        return repr(value)
    return repr(describe_value(value.meta.get("val")))
