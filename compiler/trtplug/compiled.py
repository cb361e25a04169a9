"""What `compile` returns: a module that is called as the model was."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from operator import getitem
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from trtplug.engine import CompiledEngine, EngineModule
from trtplug.errors import InputError, ModuleError, SettingsError
from trtplug.inputs import TensorInput, check_inputs, input_checks, shared_memory, without_autocast
from trtplug.lowering import Lowered, apply_mutations, flatten_inputs
from trtplug.report import CompilationReport
from trtplug_registry.executor import Run

if TYPE_CHECKING:
    from trtplug.profile import Profile
    from trtplug.weights import Recipe

MOST_SIGNATURES = 4096
"""Combinations of dtypes, shapes and devices that a module remembers to have checked."""


class CompiledModule(nn.Module):
    """A compiled model. Takes what the model took, returns what it returned, without gradients.

    Weights in engines are constants. ``state_dict`` holds the tensors that are still Torch's (buffers that the forward
    writes, weights of what runs in Torch), under the model's names; they share the model's memory. ``copy.deepcopy``
    makes a module with tensors of its own that shares the engines. Calls from several threads are safe where the model
    writes no buffer, and nobody updates weights meanwhile.

    Attributes:
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
        report: CompilationReport | Callable[[], CompilationReport],
        *,
        checks: Sequence[TensorInput | None] | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.engines = tuple(engines)
        self._report = report
        self.lowered = lowered
        if checks is None:
            placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
            checks = input_checks(placeholders, lowered.input_names, lowered.ranges)
        self.checks = tuple(checks)
        self._recipe = recipe
        self._straight = _straight(graph_module)
        self._keywords = _keywords_of_flat(lowered)
        self._written = tuple(int(mutation.target) for mutation in lowered.mutations if mutation.kind == "input")
        self._unflatten = _unflatten(lowered.out_spec)
        self._checked: set[tuple[Any, ...]] = set()
        self.register_load_state_dict_pre_hook(_to_own_names)  # type: ignore[no-untyped-call]  # torch's

    @property
    def report(self) -> CompilationReport:
        """What became of every node."""
        return self._report if isinstance(self._report, CompilationReport) else self._report()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model.

        Raises:
            InputError: the inputs do not fit what was compiled.
        """
        traced = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
        flat = self._inputs(args, kwargs, traced)
        run: Callable[..., Any] = self.graph_module
        if not traced and self._straight is not None and not any(self._straight[1]):
            run = self._straight[0]
        if not traced and (torch.is_grad_enabled() or torch._C._is_any_autocast_enabled()):
            with torch.no_grad(), without_autocast():
                results = run(*flat)
        else:
            results = run(*flat)
        if self.lowered.mutations:
            results = apply_mutations(self.lowered, flat, results)
        return self._unflatten(results)

    def _inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any], traced: bool) -> Sequence[Any]:
        """The flat inputs of a call. What has passed the checks once passes again at a glance."""
        names = self._keywords
        signature = None
        if names is not None and len(kwargs) == len(names) and not traced:
            try:
                flat = args if not names else (*args, *[kwargs[name] for name in names])
                signature = tuple([(value.dtype, value.shape, value.device, value.layout) for value in flat])
            except (AttributeError, KeyError):  # something else than tensors, or another keyword
                pass
            else:
                if signature in self._checked:
                    return flat
        flat = tuple(flatten_inputs(self.lowered, args, kwargs))
        check_inputs(self.checks, flat, self.lowered.branches)
        if self._written:
            self._refuse_shared(flat)
        elif signature is not None and len(self._checked) < MOST_SIGNATURES:
            self._checked.add(signature)
        return flat

    def _refuse_shared(self, flat: Sequence[Any]) -> None:
        pair = shared_memory(self._written, flat)
        if pair is not None:
            one, other = (self.lowered.input_names[place] for place in pair)
            raise InputError(
                f"the model writes to input {one!r}, which shares memory with {other!r}: pass a clone() of one"
            )

    def update_weights(self, state_dict: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
        """Gives the module other weights. Only the engines that hold one whose values differ are built again.

        The values are copied; neither they nor the model that was compiled share memory with the module for what is
        given. What shares memory in the model (tied weights, views) follows; constants that lowering computed from a
        weight are computed again. Buffers that the forward writes keep their values unless they are given.

        Args:
            state_dict: values by names of the model's ``state_dict``, all of them or some.

        Returns:
            Names of the engines that are new.

        Raises:
            UnknownNameError: a name is none of the model's.
            WeightsError: a value has another shape or dtype, or contradicts another one; or the module was loaded from
                a file, or copied by ``copy.deepcopy``, and so has no recipe.
            TrtplugError: an engine cannot be built, under ``on_failure="raise"``. The module is as it was after any
                of these.
        """
        from trtplug.weights import updated

        new, names = updated(
            self._recipe, [m for m in self.graph_module.modules() if isinstance(m, EngineModule)], state_dict
        )
        self.graph_module, self.lowered, self.engines = new.graph_module, new.lowered, new.engines
        self._report, self._recipe, self._straight = new._report, new._recipe, new._straight
        return names

    def profile(self, *args: Any, calls: int = 10, **kwargs: Any) -> Profile:
        """The time of every layer of the engines, for a call with these arguments.

        On a machine without a GPU the reference executor tells how long it computes each layer of the network, which
        says nothing about TensorRT.

        Args:
            args, kwargs: as for a call, which is made once.
            calls: of each engine, over which medians are taken.

        Raises:
            InputError: the inputs do not fit what was compiled.
            SettingsError: `calls` is not positive.
            ExecutorError: the executor tells no times; those called ``tensorrt`` and ``reference`` do.
        """
        from trtplug.profile import profiled

        if calls < 1:
            raise SettingsError(f"profile: calls={calls}: must be at least 1")
        flat = flatten_inputs(self.lowered, args, kwargs)
        return profiled(self, lambda: self(*args, **kwargs), flat, calls)

    # --- as a module ------------------------------------------------------------------------------------------------

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """The tensors that are Torch's, under the model's names."""
        return self.graph_module.state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Copies values into the tensors that `state_dict` has.

        Raises:
            ModuleError: a name is none of them, under ``strict``; or ``assign``: they are the model's own tensors.
        """
        if assign:
            raise ModuleError(
                "a compiled module shares the model's tensors, so none can be assigned: leave out assign="
            )
        own = self.state_dict()
        others = [name for name in state_dict if name not in own]
        if strict and others:
            names = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
            raise ModuleError(
                f"a compiled module cannot load {names}: weights in engines are constants, only"
                f" {', '.join(own) or 'nothing'} can be loaded. Give them to update_weights, which builds engines"
                " again, or load them into the model, and compile that"
            )
        return super().load_state_dict(state_dict, strict)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> CompiledModule:
        """What ``to``, ``cuda``, ``half`` and the like call.

        Raises:
            ModuleError: it would change a device or dtype, which engines cannot follow.
        """
        for tensor in (*self._probes(), *self.graph_module.parameters(), *self.graph_module.buffers()):
            before = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            after = fn(before)
            if (after.dtype, after.device) != (before.dtype, before.device):
                words = f"{before.dtype} on {before.device} to {after.dtype} on {after.device}"
                raise ModuleError(
                    f"a compiled module cannot be moved or cast ({words}): its engines are built for one device and"
                    " their dtypes. Move or cast the model, and compile that"
                )
        return self

    def _probes(self) -> list[torch.Tensor]:
        """One empty tensor for each dtype and device of the inputs."""
        nodes = (node.meta.get("val") for node in self.lowered.graph_module.graph.nodes if node.op == "placeholder")
        found = {(value.dtype, value.device) for value in nodes if isinstance(value, torch.Tensor)}
        return [torch.empty(0, dtype=dtype, device=device) for dtype, device in found]

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledModule:
        lowered = dataclasses.replace(
            self.lowered, graph_module=copy.deepcopy(self.lowered.graph_module, memo)
        )  # before the linked graph, which shares its tensors
        graph_module = copy.deepcopy(self.graph_module, memo)
        return CompiledModule(graph_module, lowered, self.engines, self._report, checks=self.checks)

    def __copy__(self) -> CompiledModule:
        return CompiledModule(
            self.graph_module, self.lowered, self.engines, self._report, checks=self.checks, recipe=self._recipe
        )

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise ModuleError(
            "a compiled module cannot be pickled: its engines belong to this process. Save it with"
            " trtplug.save(compiled, 'model.trtp'), and load it with trtplug.load('model.trtp')"
        )

    def extra_repr(self) -> str:
        return self.report.summary()


def _to_own_names(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Makes the names that `CompiledModule.state_dict` gives those of its attributes."""
    for name in module.graph_module.state_dict():  # type: ignore[union-attr]  # a CompiledModule
        if prefix + name in state_dict:
            state_dict[f"{prefix}graph_module.{name}"] = state_dict.pop(prefix + name)


def _keywords_of_flat(lowered: Lowered) -> tuple[str, ...] | None:
    """The keywords in order, where the inputs are all tensors or numbers beside each other; None for anything else."""
    spec = lowered.in_spec
    if lowered.constants or spec.num_children != 2:
        return None
    if any(not leaf.is_leaf() for side in range(2) for leaf in spec.child(side).children()):
        return None
    return tuple(spec.child(1).context)


def _straight(graph_module: GraphModule) -> tuple[Run, tuple[Mapping[int, Any], ...]] | None:
    """What runs a graph that is one engine and nothing else, and the hooks by which it must not be run.

    To walk the graph to it would cost a call more than all the rest.
    """
    graph = graph_module.graph
    calls = [node for node in graph.nodes if node.op not in ("placeholder", "output") and node.target is not getitem]
    if len(calls) != 1 or calls[0].op != "call_module":
        return None
    (call,), (output,) = calls, graph.find_nodes(op="output")
    module = graph_module.get_submodule(str(call.target))
    returned: Any = output.args[0]
    results = [node.args if isinstance(node, Node) else None for node in returned]
    if not isinstance(module, EngineModule) or list(call.args) != list(graph.find_nodes(op="placeholder")):
        return None
    if results != [(call, place) for place in range(len(module.engine.outputs))]:
        return None
    return module.run, (module._forward_pre_hooks, module._forward_hooks)


def _unflatten(spec: pytree.TreeSpec) -> Callable[[Sequence[Any]], Any]:
    """What makes the model's output of the flat results."""
    if spec.is_leaf():
        return lambda results: results[0]
    if spec.type is tuple and all(leaf.is_leaf() for leaf in spec.children()):
        return tuple
    return lambda results: pytree.tree_unflatten(results, spec)
