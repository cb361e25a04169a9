"""The pipeline: trace → lower → partition → convert → build → link."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor as Threads
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

from trtplug.building import Begun, Builds, Built, Failure, Plan
from trtplug.cache import Finished, Found, Kept, stamped
from trtplug.cautions import conflicts, faults, rounding
from trtplug.collector import collector_paused
from trtplug.compiled import CompiledModule
from trtplug.convert import convert
from trtplug.engine import CompiledEngine, EngineModule
from trtplug.errors import BuildError, ConversionError, ExecutorError
from trtplug.executors import check_options, pick_executor
from trtplug.logs import configure_log, log_report
from trtplug.lowering import Lowered, lower
from trtplug.naming import op_name
from trtplug.network import Network
from trtplug.network.finished import BuildOptions, Progress
from trtplug.partition import Block, Partition, extract, link, partition
from trtplug.report import CompilationReport
from trtplug.reporting import Facts, make_report, once_loaded
from trtplug.settings import Settings
from trtplug.tf32 import PROCESS
from trtplug.tracing import Program, as_program, trace
from trtplug.turns import tracing_turn
from trtplug.weights import Recipe
from trtplug_registry import (
    Converter,
    Executor,
    PluginError,
    PluginWarning,
    Reason,
    ReasonCode,
    Registry,
    Selection,
)

_log = logging.getLogger(__name__)

MOST_FAILURES = 3
"""Nodes that one converter may fail for before the rest of its nodes go to Torch untried."""


class FallbackWarning(UserWarning):
    """A converter raised, or TensorRT refused a block: the node is left to Torch, and the compilation goes on."""


class Compilation:
    """One run of the pipeline: its stage times, its quarantine, and the blocks that are done.

    Args:
        settings, registry, progress: as for `compile`.
        kept: engines of an earlier run, to be used again where nothing that they are made of has changed.
        failed: the quarantine of an earlier run, by the names of its nodes.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        progress: Progress | None,
        kept: Kept | None = None,
        failed: Mapping[str, Reason] | None = None,
    ) -> None:
        configure_log()
        self.settings, self.registry, self.progress = settings, registry, progress
        PROCESS.decide(settings.tf32)
        self.stages: dict[str, float] = {}
        self.quarantine: dict[Node, Reason] = {}
        self._failed = dict(failed or {})
        self.warnings: list[str] = []
        self.blamed: collections.Counter[Converter | None] = collections.Counter()
        self.finished = Finished(settings, registry, kept)
        self.parts: Partition
        self.kept: Kept
        self._beside: Threads
        self._lifted: list[Network] = []
        self._built: dict[tuple[Any, ...], Built] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            with contextlib.nullcontext() if name in ("trace", "build") else collector_paused():  # the others' own
                yield
        finally:
            seconds = time.perf_counter() - start
            self.stages[name] = self.stages.get(name, 0.0) + seconds
            _log.debug("%s: %.3f s", name, seconds)

    # --- stages -----------------------------------------------------------------------------------------------------

    def program(self, model: Any, args: Any, kwargs: Any, inputs: Any, dynamic_shapes: Any) -> Program:
        with self.stage("trace"), tracing_turn():
            if isinstance(model, Program):
                return model
            if isinstance(model, ExportedProgram):
                return as_program(model)
            return trace(model, args, kwargs, inputs=inputs, dynamic_shapes=dynamic_shapes)

    def lower(self, program: Program) -> Lowered:
        graphs = (item.graph for item in program.exported.graph_module.modules() if isinstance(item, GraphModule))
        nodes = (node for graph in graphs for node in graph.nodes)
        for path in Selection(self.settings.torch_ops).unmet_paths(nodes):
            warnings.warn(
                f"torch_ops names {path!r}, which is no op or module of this model", UserWarning, stacklevel=4
            )
        with self.stage("lower"), tracing_turn():
            return lower(program, self.registry, self.settings, strict=self.settings.strict_plugins)

    def finish(self, program: Program, runners: Sequence[EngineModule] = ()) -> CompiledModule:
        """The rest of the pipeline. `runners` serve again where they run an engine that is found to serve again."""
        lowered = self.lower(program)
        executor = pick_executor(self.registry, self.settings.executor, lowered.device_type)
        check_options(executor, self.settings.run_options)
        engines, chosen = self.ready(lowered, executor, runners)
        with self.stage("link"):
            linked = link(lowered.graph_module, self.parts, chosen)
        quarantine = {node.name: reason for node, reason in self.quarantine.items()}
        recipe = Recipe(program, self.settings, self.registry, self.kept, quarantine)
        report = once_loaded(self.report(lowered, engines, executor.name), chosen)
        return CompiledModule(linked, lowered, tuple(engines), report, recipe=recipe)

    @collector_paused()
    def partition(self, lowered: Lowered) -> None:
        self.parts = partition(
            lowered.graph_module,
            lambda node: node not in self.quarantine and bool(self.registry.lookup(node)),
            min_block_size=self.settings.min_block_size,
        )

    def build_all(self, lowered: Lowered) -> list[CompiledEngine]:
        """Every block's engine. A node that fails is put in quarantine and the partition redone."""
        self._warn_of(conflicts(self.registry, lowered.graph_module.graph))
        self._warn_of(faults(self.registry))
        self.quarantine |= {n: self._failed[n.name] for n in lowered.graph_module.graph.nodes if n.name in self._failed}
        while True:
            with self.stage("partition"):
                self.partition(lowered)
            failure = self._build_blocks(lowered)
            if failure is None:
                built = [self._built[_key(block)] for block in self.parts.blocks]
                return [dataclasses.replace(each.engine, name=f"engine_{i}") for i, each in enumerate(built)]
            self._put_in_quarantine(*failure)

    def _build_blocks(self, lowered: Lowered) -> Failure | None:
        """Builds what is not built yet, several blocks at a time; the first failure, in the order of the blocks."""
        waiting: collections.deque[Begun] = collections.deque()
        failure = None
        with Builds(self._plan, len(self.parts.blocks)) as builds:
            for block in self.parts.blocks:
                begun = self._begin(lowered, block)
                while begun.network is not None and builds.full(begun.network) and failure is None:
                    failure = self._finish(lowered, waiting.popleft())
                if failure is not None:
                    break
                if begun.network is not None:
                    begun.plan = builds.start(begun.network)
                waiting.append(begun)
                if isinstance(begun.outcome, tuple):
                    break
            while waiting and failure is None:
                failure = self._finish(lowered, waiting.popleft())
            for begun in waiting:  # behind a failure; what is being built already will be of use
                plan = begun.plan() if begun.plan is not None and builds.parallel else None
                if plan is not None and plan.error is None:
                    self._built[_key(begun.block)] = self._made(begun, plan)
        return failure

    def ready(
        self, lowered: Lowered, executor: Executor, runners: Sequence[EngineModule] = ()
    ) -> tuple[list[CompiledEngine], list[EngineModule]]:
        """Every block's engine, and the module that runs it. What the executor cannot load is put in quarantine.

        `runners` serve again where they run an engine that is found to serve again. While TensorRT builds, or compiles
        kernels for the GPU, weights are stamped and finished networks lifted.
        """
        known = {(runner.engine.name, id(runner.engine.plan)): runner for runner in runners}
        with ThreadPoolExecutor(1, "trtplug-beside") as self._beside:
            stamps = self._beside.submit(stamped, lowered)
            engines = self._loadable(lowered, executor, known)
        self._lifted.clear()  # networks go in the thread that made them, and not beside what TensorRT does
        for engine in engines:
            _ = engine.reference  # or what lifting it raised
        self.kept = Kept(lowered, self.parts, engines, stamps.result())
        self._warn_of(rounding(self.settings, engines, executor), UserWarning)
        return engines, [known[engine.name, id(engine.plan)] for engine in engines]

    def _loadable(
        self, lowered: Lowered, executor: Executor, known: dict[tuple[str, int], EngineModule]
    ) -> list[CompiledEngine]:
        """Every block's engine; what runs it is put with what is known."""
        while True:
            engines = self.build_all(lowered)
            failed = None
            for block, engine in zip(self.parts.blocks, engines, strict=True):
                key = engine.name, id(engine.plan)
                try:
                    with self.stage("link"):
                        known[key] = known.get(key) or EngineModule(engine, executor, self.settings.run_options)
                except ExecutorError as error:
                    failed = block, error
                    break
            if failed is None:
                return engines
            self._leave_to_torch(*failed)

    def _begin(self, lowered: Lowered, block: Block) -> Begun:
        """The block, finished where it is known, or converted."""
        start = time.perf_counter()
        known = self._built.get(_key(block))
        if known is not None:
            return Begun(block, known)
        graph = extract(lowered.graph_module, block)
        found = self._find(lowered, graph)
        if found.engine is not None:
            return Begun(block, Built(found.engine, time.perf_counter() - start, found.cached))
        try:
            with self.stage("convert"):
                network = self._convert(lowered, block, graph)
        except ConversionError as error:
            return Begun(block, (self._original(lowered, block, error.node), ReasonCode.CONVERSION_FAILED, error))
        return Begun(block, None, network, found, time.perf_counter() - start)

    def _finish(self, lowered: Lowered, begun: Begun) -> Failure | None:
        """Puts the finished block with the others, or says what failed."""
        outcome = begun.outcome
        if begun.network is not None and begun.plan is not None:
            with self.stage("build"):
                plan = begun.plan()
            if plan.error is None:
                outcome = self._made(begun, plan)
            else:
                named = begun.network.nodes_of(plan.error.layers)
                with self.stage("build"):
                    known = len(named) == 1
                    node = (
                        self._original(lowered, begun.block, named[0]) if known else self._bisect(lowered, begun.block)
                    )
                outcome = node, ReasonCode.BUILD_FAILED, plan.error
        if isinstance(outcome, tuple):
            return outcome
        assert outcome is not None
        self._built[_key(begun.block)] = outcome
        return None

    def _made(self, begun: Begun, plan: Plan) -> Built:
        start, network = time.perf_counter(), begun.network
        assert network is not None
        self._lifted.append(network)
        name, lifted = f"engine_{begun.block.index}", self._beside.submit(self._lift, network)
        engine = CompiledEngine(name, network.inputs, network.outputs, plan.plan, lifted, network.num_layers)
        if begun.found.work is not None:
            with self.stage("cache"):
                self.finished.keep(begun.found, engine)
        return Built(engine, begun.seconds + plan.seconds + time.perf_counter() - start)

    def _lift(self, network: Network) -> GraphModule:
        with self.stage("lift"):
            return network.lift()

    def _find(self, lowered: Lowered, graph: GraphModule) -> Found:
        if not self.finished.asked:
            return Found()
        with self.stage("cache"):
            return self.finished.find(graph, lowered.ranges)

    def _convert(self, lowered: Lowered, block: Block, graph: GraphModule) -> Network:
        verdicts = {node.name: self.registry.lookup(node) for node in (*block.nodes, *block.copies)}

        def converter_of(node: Node) -> Converter:
            support = verdicts[node.name] if node.graph is graph.graph else self.registry.lookup(node)  # of a body
            converter = support.converter
            if converter is None:  # a domain has changed its mind since the partition
                raise ConversionError(str(support), node)
            return converter

        return convert(graph, converter_of, ranges=lowered.ranges, name=f"engine_{block.index}")

    def _plan(self, network: Network) -> bytes:
        settings = self.settings
        options = BuildOptions(settings.workspace_bytes, settings.tf32, settings.weight_streaming)
        return network.build(self.progress, options)

    # --- quarantine -------------------------------------------------------------------------------------------------

    def _original(self, lowered: Lowered, block: Block, node: Node | None) -> Node:
        """The lowered graph's node that a block's node was copied from; the block's first where nothing is to blame."""
        if node is not None:
            for candidate in (*block.nodes, *block.copies):
                if candidate.name == node.name:
                    return candidate
        return block.compute_nodes[0]

    def _bisect(self, lowered: Lowered, block: Block) -> Node:
        """The last node of the shortest prefix of a block that TensorRT refuses.

        A block's nodes are in topological order, so every prefix can stand alone; about log2 of them are built.
        """
        nodes = block.compute_nodes
        good, bad = 0, len(nodes)
        while bad - good > 1:
            middle = (good + bad) // 2
            if self._builds(lowered, frozenset(nodes[:middle])):
                good = middle
            else:
                bad = middle
        return nodes[bad - 1]

    def _builds(self, lowered: Lowered, nodes: frozenset[Node]) -> bool:
        parts = partition(lowered.graph_module, nodes.__contains__, min_block_size=1)
        try:
            for block in parts.blocks:
                self._plan(self._convert(lowered, block, extract(lowered.graph_module, block)))
        except (ConversionError, BuildError):
            return False
        return True

    def _put_in_quarantine(self, node: Node, code: ReasonCode, error: Exception) -> None:
        plugin_failed = code is ReasonCode.CONVERSION_FAILED
        again = node in self.quarantine  # nothing is won by trying once more
        if again or self.settings.on_failure == "raise" or (self.settings.strict_plugins and plugin_failed):
            raise error
        converter = self.registry.lookup(node).converter
        who = converter.id if converter else ""
        self.quarantine[node] = Reason(code, seen=str(error), converter=who)
        message = f"{op_name(node)} (node {node.name!r}) is left to Torch: {error}"
        if plugin_failed and self.blamed[converter]:  # one warning for each converter; the report has them all
            self.warnings.append(message)
        else:
            self._warn(message, FallbackWarning)
        self.blamed[converter] += plugin_failed
        if converter is not None and self.blamed[converter] == MOST_FAILURES:
            self._give_up(converter, graph=node.graph)

    def _leave_to_torch(self, block: Block, error: ExecutorError) -> None:
        """Blames the one node that TensorRT's words mention, or the whole block.

        Smaller parts of it are not tried: an engine without a context has ended the process when tried again.
        """
        words = {word.partition(".")[0] for word in re.findall(r"[\w.]+", str(error))}
        named = [node for node in block.compute_nodes if node.name in words]
        first, *others = named if len(named) == 1 else block.compute_nodes
        self._put_in_quarantine(first, ReasonCode.BUILD_FAILED, error)
        self.quarantine.update(dict.fromkeys(others, self.quarantine[first]))

    def _give_up(self, converter: Converter, graph: Graph) -> None:
        """A converter that has failed for several nodes is tried on no other."""
        message = f"converter {converter.id} has failed {MOST_FAILURES} times: the rest of its nodes are left to Torch"
        reason = Reason(ReasonCode.CONVERSION_FAILED, seen=message, converter=converter.id)
        mine = (n for n in graph.nodes if n not in self.quarantine and self.registry.lookup(n).converter is converter)
        self.quarantine.update(dict.fromkeys(mine, reason))
        self.warnings.append(message)

    def _warn(self, message: str, category: type[Warning]) -> None:
        self.warnings.append(message)
        with tracing_turn():  # another thread may have turned warnings into errors meanwhile
            warnings.warn(message, category, stacklevel=6)

    def _warn_of(self, messages: Iterable[str], category: type[Warning] = PluginWarning) -> None:
        """Of what is wrong with plugins strict mode raises the first."""
        for message in messages:
            if category is PluginWarning and self.settings.strict_plugins:
                raise PluginError(message)
            self._warn(message, category)

    def report(
        self, lowered: Lowered, engines: Sequence[CompiledEngine], executor: str, *, suggestions: bool = False
    ) -> CompilationReport:
        """What was done, and why; with `suggestions`, also what would change a verdict."""
        seconds = {id(built.engine.plan): built.seconds for built in self._built.values()}
        cached = frozenset(id(built.engine.plan) for built in self._built.values() if built.cached)
        facts = Facts(
            self.registry, self.settings, self.parts, self.quarantine, self.stages, tuple(self.warnings), cached
        )
        report = make_report(facts, lowered, engines, seconds, executor, suggestions=suggestions)
        log_report(report)
        return report


def _key(block: Block) -> tuple[Any, ...]:
    """Equal for two partitions' blocks where they are the same block."""
    return (block.nodes, block.copies, block.inputs, block.outputs, block.sizes)
