"""``.pt2``: a compiled model as a real ``ExportedProgram``, its engines being calls of `stored_engine`'s op."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import PythonReferenceAnalysis

from trtplug import stored_engine
from trtplug.artefacts.files import replaced_file
from trtplug.artefacts.malformed import Malformed
from trtplug.artefacts.records import report_of
from trtplug.artefacts.values import decode_spec, encode_spec
from trtplug.branches import RELATIONS
from trtplug.compiled import CompiledModule
from trtplug.engine import CompiledEngine, EngineModule
from trtplug.errors import ArtefactError
from trtplug.executors import installed_executor
from trtplug.inputs import TensorInput
from trtplug.lowering import Lowered, flatten_inputs, graphs
from trtplug.report import CompilationReport

_REPORT = "trtplug_report.json"


class LoadedModule(nn.Module):
    """What `load` returns for a format of Torch's own: called as the model was, without `CompiledModule`'s insides.

    Attributes:
        report: the compilation's.
        program: the ``ExportedProgram``, where it came from one.
    """

    def __init__(self, module: nn.Module, report: CompilationReport, program: ExportedProgram | None = None) -> None:
        super().__init__()
        self.module = module
        self.report = report
        self.program = program

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model. Inputs that do not fit raise what Torch raises for them."""
        return self.module(*args, **kwargs)

    def extra_repr(self) -> str:
        return self.report.summary()


# --- writing ----------------------------------------------------------------------------------------------------------


def save_exported(compiled: CompiledModule, target: Path) -> None:
    """Writes a model as an ``ExportedProgram``.

    Raises:
        ArtefactError: the model holds something that ``torch.export`` does not take.
    """
    program = exported(compiled, target)
    try:
        with replaced_file(target) as file, quietly():
            torch.export.save(program, file, extra_files={_REPORT: compiled.report.to_json()})
    except OSError:
        raise
    except Exception as error:  # Torch raises many kinds
        raise ArtefactError(target, f"torch.export.save refuses it: {cause_of(error)}") from error


def exported(compiled: CompiledModule, target: Path) -> ExportedProgram:
    """The linked graph, exported once more; each engine is a call of an op, its data being a buffer."""
    try:
        module = PortableModule(compiled)
        args, kwargs = module.example()
        with quietly():
            return torch.export.export(module, args, kwargs, dynamic_shapes=module.dynamic_shapes(), strict=False)
    except Malformed as error:
        raise ArtefactError(target, f"the model cannot be saved: {error.what}") from error
    except Exception as error:  # torch.export raises many kinds
        raise ArtefactError(target, f"torch.export refuses the model: {cause_of(error)}") from error


class EngineCall(nn.Module):
    """An engine as the op that Torch's formats hold."""

    def __init__(self, engine: CompiledEngine, executor: str) -> None:
        super().__init__()
        data, self.signature = stored_engine.packed(engine)
        self.register_buffer("data", data)
        self.sizes = sum(binding.size for binding in engine.input_bindings)
        self.executor = executor

    def forward(self, *inputs: Any) -> list[torch.Tensor]:
        count = len(inputs) - self.sizes
        data = self.get_buffer("data")
        call = torch.ops.trtplug.stored_engine
        made: list[torch.Tensor] = call(list(inputs[:count]), data, self.signature, list(inputs[count:]), self.executor)
        return made


class PortableModule(nn.Module):
    """A compiled model in plain Torch: its linked graph, engines as calls of an op, plain containers around it."""

    def __init__(self, compiled: CompiledModule, executor: str = "auto") -> None:
        super().__init__()
        lowered = compiled.lowered
        specs = (decode_spec(encode_spec(spec)) for spec in (lowered.in_spec, lowered.out_spec))
        in_spec, out_spec = specs
        self.checks: Sequence[TensorInput | None] = compiled.checks
        self.graph_module = _portable(compiled.graph_module, lowered, executor)
        self.lowered = dataclasses.replace(
            lowered, graph_module=self.graph_module, in_spec=in_spec, out_spec=out_spec, history={}, passes=()
        )

        def forward(*args: Any, **kwargs: Any) -> Any:
            return self._call(args, kwargs)

        forward.__signature__ = _signature(in_spec, lowered.input_names)  # type: ignore[attr-defined]  # Python's own
        self.forward = forward

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        flat = flatten_inputs(self.lowered, args, kwargs)
        self._relate(flat)
        results = self.graph_module(*flat)
        count = len(results) - len(self.lowered.mutations)
        for mutation, value in zip(self.lowered.mutations, results[count:]):
            held = flat[int(mutation.target)] if mutation.kind == "input" else self._buffer(str(mutation.target))
            held.copy_(value)
        return pytree.tree_unflatten(results[:count], self.lowered.out_spec)

    def _buffer(self, path: str) -> torch.Tensor:
        found: torch.Tensor = graphs.attribute(self.graph_module, path)
        return found

    def _relate(self, flat: Sequence[Any]) -> None:
        """Tells Torch which sizes are equal, and which side of the model's branches they are of."""
        known: dict[Any, Any] = {}
        for check, value in zip(self.checks, flat, strict=True):
            for extent, size in zip(check.sizes, value.shape) if check is not None else ():
                if not isinstance(extent, int) and known.setdefault(extent, size) is not size:
                    torch._check(size == known[extent])
        for branch in self.lowered.branches:
            if known.keys() >= branch.symbols:
                sides = [sympy_interp(PythonReferenceAnalysis, known, side) for side in (branch.left, branch.right)]
                torch._check(RELATIONS[branch.relation][1](*sides))

    # --- what it is exported with ---------------------------------------------------------------------------------

    def example(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of typical sizes, all zeros, where the model's tensors are."""
        values = [node.meta.get("val") for node in self.graph_module.graph.nodes if node.op == "placeholder"]
        known = [
            value.device for value in (*values, *self.graph_module.parameters()) if isinstance(value, torch.Tensor)
        ]
        device = next(iter(known), None)
        flat = []
        for place, check in enumerate(self.checks):
            if check is None:
                flat.append(self.lowered.constants.get(place))
            else:
                shape = [_typical(size, span) for size, span in zip(check.sizes, check.ranges)]
                flat.append(torch.zeros(shape, dtype=check.dtype, device=device))
        args, kwargs = pytree.tree_unflatten(flat, self.lowered.in_spec)
        return args, kwargs

    def dynamic_shapes(self) -> Any:
        """Which sizes vary, and how far, as `torch.export` wants it."""
        flat = []
        for check in self.checks:
            varying: Any = None
            if check is not None:
                varying = tuple(
                    Dim.STATIC if isinstance(size, int) else Dim.AUTO(min=span.min, max=span.max)
                    for size, span in zip(check.sizes, check.ranges)
                )
            flat.append(varying)
        args, kwargs = pytree.tree_unflatten(flat, self.lowered.in_spec)
        return {**dict(zip(_positional(self.lowered.in_spec, self.lowered.input_names), args)), **kwargs}


def _positional(in_spec: pytree.TreeSpec, names: Sequence[str]) -> list[str]:
    """A name for each positional argument: the input's, where it is one."""
    taken = set(in_spec.child(1).context) if in_spec.num_children == 2 else set()
    made, place = [], 0
    for number, child in enumerate(in_spec.child(0).children()):
        name = names[place] if child.is_leaf() and names[place].isidentifier() else f"args_{number}"
        made.append(name if name not in taken and name != "self" else f"args_{number}")
        taken.add(made[-1])
        place += child.num_leaves
    return made


def _signature(in_spec: pytree.TreeSpec, names: Sequence[str]) -> inspect.Signature:
    kind = inspect.Parameter
    positional = [kind(name, kind.POSITIONAL_OR_KEYWORD) for name in _positional(in_spec, names)]
    return inspect.Signature([*positional, *(kind(name, kind.KEYWORD_ONLY) for name in in_spec.child(1).context)])


def _typical(size: Any, span: Any) -> int:
    """An example that Torch does not take for a constant: not 0 or 1 where that can be helped."""
    return size if isinstance(size, int) else min(max(span.opt, 2), span.max)


def _portable(linked: fx.GraphModule, lowered: Lowered, executor: str) -> fx.GraphModule:
    """The linked graph with each `EngineModule` replaced; tensors are shared."""
    graph, image = fx.Graph(), dict[fx.Node, fx.Node]()
    attributes: dict[str, Any] = {}
    for node in linked.graph.nodes:
        image[node] = graph.node_copy(node, image.__getitem__)  # its metadata too
        if node.op in ("get_attr", "call_module"):
            value = graphs.attribute(linked, node.target)
            attributes[str(node.target)] = (
                EngineCall(value.engine, executor) if isinstance(value, EngineModule) else value
            )
    made = fx.GraphModule(attributes, graph, "Portable")
    for mutation in lowered.mutations:
        if mutation.kind == "buffer" and mutation.target not in attributes:  # written, and never read
            graphs.assign(made, str(mutation.target), graphs.attribute(lowered.graph_module, mutation.target))
    return made


# --- reading ----------------------------------------------------------------------------------------------------------


def load_exported(target: Path, executor: str, device: torch.device | None) -> LoadedModule:
    """Reads what `save_exported` wrote. Torch unpickles parts of it: the caller has said that it is trusted.

    Raises:
        ArtefactError: Torch cannot read it, it is not ours, or an engine in it is damaged.
        ExecutorError, UnknownNameError: the executor cannot run here, or does not exist.
    """
    chosen = installed_executor(executor).name if executor != "auto" else executor
    files = {_REPORT: ""}
    logged: list[BaseException] = []
    try:
        with open(target, "rb") as file, quietly(), _caught(logged):
            program = torch.export.load(file, extra_files=files)
    except OSError as error:
        raise ArtefactError(target, f"it cannot be read: {error.strerror}") from error
    except Exception as error:  # Torch raises many kinds
        raise ArtefactError(target, f"torch.export.load cannot read it: {cause_of([*logged, error][0])}") from error
    report = read_report(target, files[_REPORT], "torch.export.load")
    _check_engines(program, chosen)
    if device is not None:
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    shown = report if chosen == "auto" else dataclasses.replace(report, executor=chosen)
    return LoadedModule(program.module(), shown, program)


def read_report(target: Path, text: str | bytes, instead: str) -> CompilationReport:
    """The report that a file of one of Torch's formats carries.

    Raises:
        ArtefactError: there is none, so `save` did not write the file; or it is damaged.
    """
    if not text:
        what = f"trtplug.save did not write it: it has no report. Load it with {instead}"
        raise ArtefactError(target, what)
    try:
        return report_of(text.encode() if isinstance(text, str) else text)
    except Malformed as error:
        raise ArtefactError(target, error.what, _REPORT) from error


def _check_engines(program: ExportedProgram, executor: str) -> None:
    """Compares every engine's data with its digest, and has each call use this executor."""
    held = program.graph_signature.inputs_to_buffers
    for node in program.graph_module.graph.nodes:
        if node.target is not torch.ops.trtplug.stored_engine.default:
            continue
        data, signature = node.args[1:3]
        stored_engine.check(program.state_dict[held[data.name]], signature)
        node.args, node.kwargs = node.args[:4], {**node.kwargs, "executor": executor}
    program.graph_module.recompile()


@contextlib.contextmanager
def _caught(errors: list[BaseException]) -> Iterator[None]:
    """Collects what ``torch.export.load`` only logs before it raises something that says less."""

    def collect(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            errors.append(record.exc_info[1])
        return False

    loggers = [logging.getLogger(name) for name in ("torch.export", "torch._export.serde.serialize")]
    for logger in loggers:
        logger.addFilter(collect)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(collect)


def cause_of(error: BaseException) -> str:
    """The first line of the error that started it."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    first = (str(error).splitlines() or [""])[0]
    return first if len(first) <= 300 else f"{first[:297]}..."


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """What Torch deprecates inside of its own formats is no news to the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        for words in (
            "No complete tensor found in the group",
            "The TorchScript type system doesn't support",
            "The given buffer is not writable",
        ):
            warnings.filterwarnings("ignore", words, UserWarning)
        yield
