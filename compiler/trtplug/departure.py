"""Where an engine's numbers leave eager's: the first node, its values, and a script that shows it alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from trtplug.assembly import registry_for
from trtplug.compilation import Compilation
from trtplug.convert import convert
from trtplug.departure_script import write_script
from trtplug.engine import CompiledEngine
from trtplug.errors import LoweringError
from trtplug.executors import pick_executor
from trtplug.lowering import Lowered, flatten_inputs
from trtplug.naming import op_name, source_line
from trtplug.network.finished import BuildOptions
from trtplug.partition import Block, extract, partition
from trtplug.settings import Settings
from trtplug.tracing import Program
from trtplug_registry import Converter, Executor, Registry

TOLERANCES: Mapping[torch.dtype, float] = {torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""How far a result may be from eager's, relative to its largest element; 1e-3 for float32, and nothing for integers."""


@dataclasses.dataclass(frozen=True)
class Departure:
    """A node whose result is not eager's.

    Attributes:
        node, op, source: which, and the model's line.
        executor: that computed it.
        alone: whether the node departs when it is given eager's own inputs; else the difference has grown on the way,
            and this is the first node where it passes the tolerance.
        output: which of its results.
        place: the element with the largest difference.
        expected, found: that element in eager and here.
        differing, total: elements beyond the tolerance, and all.
        tolerance: that was allowed, absolute.
        script: a Python program that shows the difference; reads `tensors`, if any, from a file beside it.
        tensors: what is too large to be written in the script.
    """

    node: str
    op: str
    source: str
    executor: str
    alone: bool
    output: str
    place: tuple[int, ...]
    expected: Any
    found: Any
    differing: int
    total: int
    tolerance: float
    script: str = ""
    tensors: Mapping[str, torch.Tensor] = dataclasses.field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        how = "on eager's own inputs" if self.alone else "as the first whose inputs have drifted so far"
        where = f" ({self.source})" if self.source else ""
        return (
            f"{self.op} (node {self.node!r}){where} departs from eager on the {self.executor} executor, {how}: "
            f"{self.differing:,} of {self.total:,} elements of {self.output} by more than {self.tolerance:.3g}; "
            f"at {list(self.place)} eager has {self.expected}, the engine {self.found}"
        )

    def write(self, path: Path) -> None:
        """Writes the reproducer, and the tensors that it reads beside it."""
        path.write_text(self.script)
        if self.tensors:
            from safetensors.torch import save_file

            save_file({name: t.contiguous() for name, t in self.tensors.items()}, path.with_suffix(".safetensors"))


def find_departure(
    model: nn.Module | Program | ExportedProgram,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    tolerance: float | None = None,
    registry: Registry | None = None,
    **settings: Any,
) -> Departure | None:
    """The first node, in order of execution, where an engine departs from eager; None where none does.

    Every engine is run on eager's own inputs; in one that departs, every node alone, and then longer and longer
    stretches of it.

    Args:
        model, settings, registry: as for `trtplug.compile`; a module is traced with these arguments.
        args, kwargs: of the call; all in one nesting as the model takes them.
        tolerance: relative to a result's largest element; by dtype (`TOLERANCES`) where None.

    Raises:
        LoweringError: before any engine, the lowered graph departs from the model: a pass or decomposition is wrong.
    """
    chosen = Settings.of(settings)
    search = _Search(chosen, registry if registry is not None else registry_for(chosen), tolerance)
    found = search.run(model, args, dict(kwargs or {}))
    if found is None:
        return None
    departure, nodes, output = found
    script, tensors = write_script(nodes, output, search.values, departure.executor)
    return dataclasses.replace(departure, script=script, tensors=tensors)


class _Recorder(fx.Interpreter):
    """Runs a graph in eager, and keeps every value."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.values[n] = super().run_node(n)
        return self.values[n]


_Blamed: TypeAlias = tuple[Departure, tuple[fx.Node, ...], fx.Node]


class _Search:
    def __init__(self, settings: Settings, registry: Registry, tolerance: float | None) -> None:
        self.settings, self.registry, self.tolerance = settings, registry, tolerance
        self.values: dict[fx.Node, Any] = {}
        self.lowered: Lowered
        self.executor: Executor

    def run(self, model: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> _Blamed | None:
        compilation = Compilation(self.settings, self.registry, None)
        program = compilation.program(model, args, kwargs, None, None)
        self.lowered = compilation.lower(program)
        flat = flatten_inputs(self.lowered, args, kwargs)
        device = next((v.device.type for v in flat if isinstance(v, torch.Tensor)), "cpu")
        self.executor = pick_executor(self.registry, self.settings.executor, device)
        recorder = _Recorder(self.lowered.graph_module)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            results = recorder.run(*_copies(flat))
        self.values = recorder.values
        if self.settings.precision == "keep":  # else lowering is meant to change numbers
            self._check_lowering(program.exported.module(), args, kwargs, results)
        compilation.partition(self.lowered)
        for block in compilation.parts.blocks:
            if self._departs(block.compute_nodes):
                return self._within(block.compute_nodes)
        return None

    def _check_lowering(self, model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any], results: Any) -> None:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            expected = pytree.tree_leaves(model(*_copies(args), **_copies(kwargs)))
        for place, (ours, theirs) in enumerate(zip(results, expected, strict=False)):  # then come written buffers
            if isinstance(theirs, torch.Tensor) and not _agree(ours, theirs, _allowed(theirs, self.tolerance)):
                difference = (ours.double() - theirs.double()).abs().max().item()
                raise LoweringError(
                    f"lowering changes output {place} by {difference:.3g}, before any engine: a pass or"
                    " decomposition is wrong. verify=True (trtplug explain --verify) names the pass"
                )

    def _within(self, nodes: tuple[fx.Node, ...]) -> _Blamed:
        """The node to blame in a stretch that departs, what must run to show it, and which result does."""
        for node in nodes:
            found = self._departs((node,))
            if found is not None:
                return self._departure(node, *found, alone=True), (node,), found[0]
        good, bad = 0, len(nodes)
        while bad - good > 1:
            middle = (good + bad) // 2
            if self._departs(nodes[:middle]) is None:
                good = middle
            else:
                bad = middle
        found = self._departs(nodes[:bad])
        assert found is not None
        return self._departure(nodes[bad - 1], *found, alone=False), nodes[:bad], found[0]

    def _departs(self, nodes: tuple[fx.Node, ...]) -> tuple[fx.Node, torch.Tensor, torch.Tensor, float] | None:
        """The first result that leaves the tolerance when these nodes run in engines on eager's inputs."""
        for output, found in self._results(frozenset(nodes)):
            expected = self.values[output]
            allowed = _allowed(expected, self.tolerance)
            if not _agree(found, expected, allowed):
                return output, expected, found, allowed
        return None

    def _results(self, nodes: frozenset[fx.Node]) -> Iterator[tuple[fx.Node, torch.Tensor]]:
        for block in partition(self.lowered.graph_module, nodes.__contains__, min_block_size=1).blocks:
            run = self.executor.prepare(self._engine(block))
            with torch.no_grad():
                results = run(*(self.values[node] for node in (*block.inputs, *block.sizes)))
            yield from zip(block.outputs, results, strict=True)

    def _engine(self, block: Block) -> CompiledEngine:
        verdicts = {node.name: self.registry.lookup(node).converter for node in (*block.nodes, *block.copies)}

        def converter_of(node: fx.Node) -> Converter:
            found = verdicts[node.name]
            assert found is not None  # it was supported when the graph was partitioned
            return found

        graph = extract(self.lowered.graph_module, block)
        network = convert(graph, converter_of, ranges=self.lowered.ranges, name="part")
        plan = b""
        if self.executor.name != "reference":
            plan = network.build(None, BuildOptions(self.settings.workspace_bytes, self.settings.tf32))
        return CompiledEngine("part", network.inputs, network.outputs, plan, network.lift(), network.num_layers)

    def _departure(
        self,
        node: fx.Node,
        output: fx.Node,
        expected: torch.Tensor,
        found: torch.Tensor,
        allowed: float,
        *,
        alone: bool,
    ) -> Departure:
        wrong = ~_close(found, expected, allowed)
        distance = torch.where(wrong, (found.double() - expected.double()).abs().nan_to_num(math.inf, math.inf), -1.0)
        place = tuple(int(i) for i in torch.unravel_index(distance.argmax(), distance.shape))
        return Departure(
            node.name,
            op_name(node),
            source_line(node),
            self.executor.name,
            alone,
            output.name,
            place,
            expected[place].item(),
            found[place].item(),
            int(wrong.sum()),
            wrong.numel(),
            allowed,
        )


def _copies(values: Any) -> Any:
    return pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, values)


def _allowed(expected: torch.Tensor, tolerance: float | None) -> float:
    if not expected.dtype.is_floating_point:
        return 0.0
    relative = TOLERANCES.get(expected.dtype, 1e-3) if tolerance is None else tolerance
    finite = expected[expected.isfinite()]
    return relative * max(float(finite.abs().max()) if finite.numel() else 0.0, 1e-6)


def _agree(found: torch.Tensor, expected: torch.Tensor, allowed: float) -> bool:
    if found.dtype != expected.dtype or found.shape != expected.shape:
        words = f"{found.dtype}{list(found.shape)}, eager {expected.dtype}{list(expected.shape)}"
        raise AssertionError(f"the engine computed {words}")  # the convert stage checks this
    return bool(_close(found, expected, allowed).all())


def _close(found: torch.Tensor, expected: torch.Tensor, allowed: float) -> torch.Tensor:
    if not expected.dtype.is_floating_point:
        return found == expected
    return torch.isclose(found, expected, rtol=0.0, atol=allowed, equal_nan=True)
