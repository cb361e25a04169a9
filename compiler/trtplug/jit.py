"""``torch.compile(model, backend="trtplug", options={...})``.

Dynamo's graph is traced once more, on its fake tensors and before composite ops are taken apart, and enters the same
pipeline as an exported program. Parameters and buffers become constants of the engines, where nobody asks for their
gradient; each call checks that they are still the tensors that were compiled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import TracingContext, detect_fake_mode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from trtplug.compilation import Compilation, registry_for
from trtplug.engine import EngineModule
from trtplug.executors import pick_executor
from trtplug.lowering import Lifted, apply_mutations, graphs, lower_lifted
from trtplug.lowering.functionalize import remove_writes, writes
from trtplug.lowering.lift import append_writes
from trtplug.partition import link
from trtplug.ranges import Range
from trtplug.report import CompilationReport
from trtplug.settings import Settings

MAX_SIZE = 8192
"""The maximum of a size that nothing bounds, unless the size that was seen is larger; it becomes a guard."""


class TorchOnlyWarning(UserWarning):
    """A graph runs in Torch as a whole, and why."""


def backend(
    graph_module: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """The Dynamo backend. `options` are fields of `trtplug.Settings`.

    Raises:
        TrtplugError: an option is wrong. A graph that cannot be compiled runs in Torch, with a `TorchOnlyWarning`.
    """
    if mode not in (None, "default"):
        warnings.warn(f"trtplug has no mode {mode!r}; it is ignored", UserWarning, stacklevel=2)
    settings = Settings.of(options or {})
    if torch.is_grad_enabled() and any(isinstance(v, torch.Tensor) and v.requires_grad for v in example_inputs):
        why = "gradients are asked for; call the model under torch.no_grad() or torch.inference_mode()"
        return _in_torch(graph_module, why)
    return _Jit(graph_module, example_inputs, settings)


def _in_torch(graph_module: fx.GraphModule, why: str) -> Callable[..., Any]:
    message = f"a graph of {len(graph_module.graph.nodes)} nodes runs in Torch: {why}"
    warnings.warn(message, TorchOnlyWarning, stacklevel=3)
    run: Callable[..., Any] = graph_module.forward
    return run


class _Jit:
    """One graph of Dynamo's, compiled; compiled again where a parameter was changed in place."""

    report: CompilationReport

    def __init__(self, graph_module: fx.GraphModule, example_inputs: Sequence[Any], settings: Settings) -> None:
        self.settings = settings
        self.registry = registry_for(settings)
        self.source = graph_module
        placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
        self.frozen = [place for place, node in enumerate(placeholders) if _is_state(node, example_inputs[place])]
        self.fakes = _fake_inputs(placeholders, example_inputs)
        self.ranges = _bounded(self.fakes)
        self.traced = _trace(graph_module, self.fakes)
        self.run: Callable[..., Any] | None = None
        self.stamps: list[Any] = []
        self._compile(example_inputs)

    def __call__(self, *inputs: Any) -> Any:
        if self.stamps != [_stamp(inputs[place]) for place in self.frozen]:
            self._compile(inputs)
        if self.run is None:
            return self.source.forward(*inputs)
        return self.run(*inputs)

    def _compile(self, inputs: Sequence[Any]) -> None:
        self.stamps = [_stamp(inputs[place]) for place in self.frozen]
        lifted = self._lift(inputs)
        if lifted is None:
            _in_torch(self.source, "it writes to tensors in ways that cannot be expressed as values")
            self.run = None
            return
        run = Compilation(self.settings, self.registry, None)
        with run.stage("lower"):
            lowered = lower_lifted(lifted, self.ranges, self.registry, self.settings)
        device = next((v.device.type for v in inputs if isinstance(v, torch.Tensor)), "cpu")
        executor = pick_executor(self.registry, self.settings.executor, device)
        engines = run.build_all(lowered)
        with run.stage("link"):
            linked = link(lowered.graph_module, run.parts, [EngineModule(engine, executor) for engine in engines])
        self.report = run.report(lowered, engines, executor.name)
        frozen = frozenset(self.frozen)

        def call(*inputs: Any) -> Any:
            flat = [value for place, value in enumerate(inputs) if place not in frozen]
            return tuple(apply_mutations(lowered, flat, linked(*flat)))

        self.run = call

    def _lift(self, inputs: Sequence[Any]) -> Lifted | None:
        """The traced graph with its state as attributes; None where its writes cannot become values."""
        graph_module = fx.GraphModule(self.traced, _copy(self.traced.graph))
        placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
        for place in self.frozen:
            _freeze(graph_module, placeholders[place], inputs[place])
        names = [node.name for place, node in enumerate(placeholders) if place not in self.frozen]
        mutations: tuple[Any, ...] = ()
        if writes(graph_module):
            final = remove_writes(graph_module)
            if final is None or any(node.op == "get_attr" for node in final):
                return None
            mutations = append_writes(graph_module, final, names)
        graph_module.recompile()
        _, spec = pytree.tree_flatten(((), {}))
        return Lifted(graph_module, spec, spec, tuple(names), mutations, {}, False)


# --- Dynamo's inputs --------------------------------------------------------------------------------------------------


def _is_state(node: fx.Node, value: Any) -> bool:
    """Whether an input of Dynamo's graph is a parameter or buffer of a module."""
    if not isinstance(value, torch.Tensor):
        return False
    if isinstance(value, torch.nn.Parameter):
        return True
    source = getattr(node, "_dynamo_source", None)
    guard_source = getattr(source, "guard_source", None)
    guard_source = guard_source() if callable(guard_source) else guard_source
    asked = ("is_unspecialized_nn_module", "is_specialized_nn_module", "is_unspecialized_builtin_nn_module")
    return any(getattr(guard_source, name, lambda: False)() for name in asked)


def _stamp(value: torch.Tensor) -> tuple[Any, ...]:
    """What changes when a tensor is replaced or written to."""
    version = 0 if value.is_inference() else value._version
    return id(value), value.data_ptr(), version


def _fake_inputs(placeholders: Sequence[fx.Node], inputs: Sequence[Any]) -> list[Any]:
    mode = detect_fake_mode(list(inputs))
    assert mode is not None
    return [_fake_input(mode, node, value) for node, value in zip(placeholders, inputs, strict=True)]


def _fake_input(mode: Any, node: fx.Node, value: Any) -> Any:
    """The fake of an input, symbolic exactly where Dynamo decided so; parameters have static sizes, for one."""
    if not isinstance(value, torch.Tensor) or isinstance(value, torch._subclasses.FakeTensor):
        return value
    tracing = TracingContext.try_get()
    context = None if tracing is None else tracing.tensor_to_context.get(value)
    source = getattr(node, "_dynamo_source", None) if context is None else context.tensor_source
    return mode.from_tensor(value, static_shapes=context is None, symbolic_context=context, source=source)


def _bounded(fakes: Sequence[Any]) -> dict[sympy.Symbol, Range]:
    """A finite range for every symbol in the inputs' shapes. A maximum that is ours becomes a guard of Dynamo's."""
    ranges: dict[sympy.Symbol, Range] = {}
    for value in fakes:
        sizes = value.shape if isinstance(value, torch.Tensor) else [value]
        for size in sizes:
            if isinstance(size, torch.SymInt):
                _bound(size, ranges)
    return ranges


def _bound(size: torch.SymInt, ranges: dict[sympy.Symbol, Range]) -> None:
    environment = size.node.shape_env
    for symbol in sorted(size.node.expr.free_symbols, key=str):
        if symbol in ranges:
            continue
        span = environment.var_to_range[symbol]
        hint = int(_hints(environment).get(symbol, 0) or 0)
        low = max(int(span.lower), 0)
        high = int(span.upper) if float(span.upper) < 2**31 else max(MAX_SIZE, 2 * hint)
        if float(span.upper) >= 2**31 and size.node.expr == symbol:
            assert size <= high  # evaluated now, so that it is a guard: a larger size compiles again
        ranges[symbol] = Range(low, min(max(hint, low), high), high)


def _hints(environment: Any) -> Any:
    """The sizes that were seen, by symbol; the attribute's name changed after torch 2.11."""
    found = getattr(environment, "backed_var_to_val", None)
    return environment.var_to_val if found is None else found


# --- the graph --------------------------------------------------------------------------------------------------------


def _trace(graph_module: fx.GraphModule, fakes: Sequence[Any]) -> fx.GraphModule:
    """Dynamo's graph as ATen calls, composite ones whole."""
    mode = detect_fake_mode(list(fakes))
    assert mode is not None
    with mode, enable_python_dispatcher(), torch.no_grad():
        trace = make_fx(graph_module, tracing_mode="real", pre_dispatch=True, _allow_non_fake_inputs=True)
        traced = trace(*fakes)
    (output,) = traced.graph.find_nodes(op="output")
    results = output.args[0]
    output.args = (tuple(results) if isinstance(results, list | tuple) else (results,),)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _copy(graph: fx.Graph) -> fx.Graph:
    copied = fx.Graph()
    image: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        image[node] = copied.node_copy(node, lambda source: image[source])
    return copied


def _freeze(graph_module: fx.GraphModule, node: fx.Node, value: torch.Tensor) -> None:
    name = graphs.free_attribute(graph_module, f"state_{node.name}")
    graphs.assign(graph_module, name, value.detach())
    with graph_module.graph.inserting_before(node):
        constant = graph_module.graph.create_node("get_attr", name)
    constant.meta = dict(node.meta)
    node.replace_all_uses_with(constant)
    graph_module.graph.erase_node(node)
