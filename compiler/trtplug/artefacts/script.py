"""``.ts``: a compiled model as TorchScript, for programs that still load that. Torch has deprecated the format.

The linked graph is written as TorchScript's own source: ops by their packets, engines as calls of `stored_engine`'s op,
so that sizes stay sizes (a trace would fix them). TorchScript has types for few containers: inputs are tensors, side by
side; outputs are tensors and numbers in tuples and dicts.
"""

from __future__ import annotations

import builtins
import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from trtplug import stored_engine
from trtplug.artefacts.exported import LoadedModule, cause_of, quietly, read_report
from trtplug.artefacts.files import replaced_file
from trtplug.artefacts.malformed import Malformed, need
from trtplug.artefacts.values import decode_spec, encode_spec
from trtplug.compiled import CompiledModule
from trtplug.engine import EngineModule
from trtplug.errors import ArtefactError
from trtplug.executors import installed_executor
from trtplug.lowering import graphs

_REPORT = "trtplug_report.json"
_EXECUTOR = "executor"
_SIZE_FUNCTIONS = {torch.sym_max: builtins.max, torch.sym_min: builtins.min}


def save_script(compiled: CompiledModule, target: Path) -> None:
    """Writes a model as TorchScript.

    Raises:
        ArtefactError: TorchScript has no type or no function for something in it.
    """
    try:
        module = _Script(compiled).module
        with quietly():
            scripted = torch.jit.script(module)
            with replaced_file(target) as file:
                torch.jit.save(scripted, file, _extra_files={_REPORT: compiled.report.to_json()})
    except OSError:
        raise
    except Malformed as error:
        raise ArtefactError(target, f"TorchScript cannot hold the model: {error.what}; save it as .trtp") from error
    except Exception as error:  # Torch raises many kinds
        raise ArtefactError(target, f"TorchScript refuses the model: {cause_of(error)}; save it as .trtp") from error


def load_script(target: Path, executor: str, device: torch.device | None) -> LoadedModule:
    """Reads what `save_script` wrote. It may run anything: the caller has said that it is trusted.

    Raises:
        ArtefactError: Torch cannot read it, it is not ours, or an engine in it is damaged.
        ExecutorError, UnknownNameError: the executor cannot run here, or does not exist.
    """
    chosen = installed_executor(executor).name if executor != "auto" else executor
    files = {_REPORT: ""}
    try:
        with open(target, "rb") as file, quietly():
            module = torch.jit.load(file, map_location=device, _extra_files=files)
    except OSError as error:
        raise ArtefactError(target, f"it cannot be read: {error.strerror}") from error
    except Exception as error:  # Torch raises many kinds
        raise ArtefactError(target, f"torch.jit.load cannot read it: {cause_of(error)}") from error
    report = read_report(target, files[_REPORT], "torch.jit.load")
    for held in module.modules():
        if hasattr(held, "signature"):
            stored_engine.check(held.data, held.signature)
    setattr(module, _EXECUTOR, chosen)
    return LoadedModule(module, report if chosen == "auto" else dataclasses.replace(report, executor=chosen))


class _Script:
    """The linked graph in the words that TorchScript knows."""

    def __init__(self, compiled: CompiledModule) -> None:
        self.compiled, self.lowered = compiled, compiled.lowered
        self.graph = fx.Graph()
        self.image: dict[fx.Node, Any] = {}
        self.attributes: dict[str, Any] = {_EXECUTOR: "auto"}
        self._inputs()
        for node in compiled.graph_module.graph.nodes:
            if node.op == "output":
                self._output(node)
            elif node.op != "placeholder":
                self.image[node] = getattr(self, f"_{node.op}")(node)
        self.module = fx.GraphModule(self.attributes, self.graph, "Script")

    def _inputs(self) -> None:
        nodes = self.compiled.graph_module.graph.find_nodes(op="placeholder")
        spec = self.lowered.in_spec
        flat = all(child.is_leaf() for side in range(2) for child in spec.child(side).children())
        need(flat and not self.lowered.constants, "its inputs are not all tensors, side by side")
        for node, check in zip(nodes, self.compiled.checks, strict=True):
            need(check is not None, f"its input {node.name!r} is no tensor")
            self.image[node] = self.graph.placeholder(str(node.target))

    def _get_attr(self, node: fx.Node) -> fx.Node:
        return self._attribute(str(node.target), graphs.attribute(self.compiled.graph_module, node.target))

    def _attribute(self, path: str, value: Any) -> fx.Node:
        self.attributes[path] = value
        return self.graph.get_attr(path)

    def _call_module(self, node: fx.Node) -> fx.Node:
        held = graphs.attribute(self.compiled.graph_module, node.target)
        assert isinstance(held, EngineModule)
        content, described = stored_engine.packed(held.engine)
        data = self._attribute(f"{node.target}.data", content)
        signature = self._attribute(f"{node.target}.signature", described)
        sizes = sum(binding.size for binding in held.engine.input_bindings)
        inputs = [self._argument(argument) for argument in node.args]
        kwargs: dict[str, Any] = {"executor": self.graph.get_attr(_EXECUTOR)}
        if sizes:  # TorchScript takes an empty list for one of tensors
            kwargs["sizes"] = inputs[len(inputs) - sizes :]
        args = inputs[: len(inputs) - sizes], data, signature
        return self.graph.call_function(torch.ops.trtplug.stored_engine, args, kwargs)

    def _call_function(self, node: fx.Node) -> fx.Node:
        args = tuple(self._argument(argument) for argument in node.args)
        kwargs = {name: self._argument(argument) for name, argument in node.kwargs.items()}
        target: Any = node.target
        if target is torch.ops.aten.sym_size.int:
            target = torch.ops.aten.size
        elif isinstance(target, OpOverload):
            target = target.overloadpacket
        else:
            target = _SIZE_FUNCTIONS.get(target, target)
            known = target.__module__ in ("_operator", "math", "builtins")
            need(known, f"node {node.name!r} calls {target}, which is no function of TorchScript")
        return self.graph.create_node("call_function", target, args, kwargs, node.name)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            return self.image[value]
        if isinstance(value, list | tuple):
            return type(value)(self._argument(item) for item in value)
        if isinstance(value, torch.device):
            return str(value)
        if isinstance(value, float) and not math.isfinite(value):
            return self.graph.call_function(float, (str(value),))
        return value

    def _output(self, node: fx.Node) -> None:
        values: Any = node.args[0]
        results = [self._argument(value) for value in values]
        count = len(results) - len(self.lowered.mutations)
        for mutation, value in zip(self.lowered.mutations, results[count:]):
            if mutation.kind == "input":
                held = self.graph.find_nodes(op="placeholder")[int(mutation.target)]
            else:
                path = str(mutation.target)
                held = self._attribute(path, graphs.attribute(self.lowered.graph_module, path))
            self.graph.call_function(torch.ops.aten.copy_, (held, value))
        spec = decode_spec(encode_spec(self.lowered.out_spec))
        need(_has_types(spec), "its outputs are nested in a way that TorchScript has no type for")
        self.graph.output(pytree.tree_unflatten(results[:count], spec))


def _has_types(spec: pytree.TreeSpec) -> bool:
    """Tuples of anything, and dicts of tensors by strings."""
    if spec.is_leaf():
        return True
    children = spec.children()
    if spec.type is tuple:
        return all(map(_has_types, children))
    return (
        spec.type is dict and all(child.is_leaf() for child in children) and all(type(k) is str for k in spec.context)
    )
