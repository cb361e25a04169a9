"""Registry-driven decomposition: what the registry takes stays whole, what it refuses is written with other ops.

Each refused call is traced on its own, one level deep, and the new calls are asked about in turn; there is no trace of
the whole program. Calls with equal metadata share one trace.

A decomposition is taken where it brings something: every new call is taken by the registry, or at least one that
computes (rather than moves elements around) is. Otherwise the call stays as it was, for Torch, which runs its fused
kernels; and so does one whose decomposition would hold only for the sizes it was traced with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from trtplug.lowering import graphs
from trtplug.lowering.functionalize import remove_writes, writes
from trtplug.lowering.value import Fate
from trtplug_registry import ReasonCode, Registry, Support, qualified_name
from trtplug_registry.guards import SpecializedError, unspecialized

WHY_NOT = "not_decomposed"
"""The metadata that says why a call that nobody converts is not written with other ops, in words."""

UNFAITHFUL = "written with other ops, it would have another shape or dtype than Torch's metadata promises"

_MOVERS = frozenset(
    {
        "aten::clone",
        "aten::contiguous",
        "aten::reshape",
        "aten::_unsafe_view",
        "aten::_to_copy",
        "aten::lift_fresh_copy",
    }
)
"""Ops that move elements and are not views by their schema."""


def decompose(graph_module: fx.GraphModule, registry: Registry) -> dict[str, Fate]:
    """Decomposes in place what the registry refuses. Returns the fate of each call that was in the graph."""
    stage = _Decomposition(graph_module, registry)
    fates: dict[str, Fate] = {}
    for node in list(graph_module.graph.nodes):
        if node.op == "call_function" and isinstance(node.target, OpOverload):
            fates[node.name] = stage.decide(node)
    return fates


@dataclasses.dataclass
class _Template:
    """One call, traced: a graph whose placeholders are the call's tensors and symbolic sizes."""

    graph_module: fx.GraphModule
    by: str


class _Decomposition:
    def __init__(self, graph_module: fx.GraphModule, registry: Registry) -> None:
        self.graph_module, self.registry = graph_module, registry
        self.graph = graph_module.graph
        self.mode = graphs.fake_mode_of(self.graph)
        self._templates: dict[Any, _Template | str] = {}
        self._useless: dict[Any, str] = {}
        self._within = [item for item in registry.passes if item.expansions]
        self._owners = {
            op: plugin.name
            for plugin in sorted(registry.plugins, key=lambda plugin: (not plugin.built_in, plugin.name))
            for op in plugin.decompositions
        }

    def decide(self, node: fx.Node) -> Fate:
        support = self.registry.lookup(node)
        if support.converter is not None:
            return Fate("kept", support.converter.id, (node.name,))
        name = node.name
        expansion = self._expand(node, frozenset())
        return Fate("torch", str(support), (name,)) if expansion is None else expansion

    def _expand(self, node: fx.Node, ancestors: frozenset[OpOverload]) -> Fate | None:
        """Replaces a refused call by its decomposition; None, and nothing is changed, if it has none that helps."""
        target = node.target
        assert isinstance(target, OpOverload)
        if target in ancestors or self._keeps_user(self.registry.lookup(node)):
            return None
        template, operands, key = self._template(node)
        attempt = None if key is None else (key, ancestors)
        if isinstance(template, str) or attempt in self._useless:
            node.meta[WHY_NOT] = template if isinstance(template, str) else self._useless[attempt]
            return None
        before = node.prev
        meta = graphs.origin(node)
        results = graphs.inline(
            self.graph_module, template.graph_module, operands, node, prefix=f"{node.name}_", meta=meta
        )
        # inner expansions replace nodes among the results, so a node of the graph holds them meanwhile
        with self.graph.inserting_before(node):
            holder = self.graph.call_function(_hold, (results,))
        left = self._left(self._between(before, holder), target, ancestors | {target})
        results = holder.args[0]
        self.graph.erase_node(holder)
        if left is None and graphs.replace_results(node, results):
            names = tuple(new.name for new in self._between(before, node) if new.op == "call_function")
            self.graph.erase_node(node)
            return Fate("decomposed", template.by, names)
        why_not = "" if left is None else self._stays(left)
        node.meta[WHY_NOT] = why_not
        if attempt is not None and not self.registry.exclude:  # an exclusion depends on the module, too
            self._useless[attempt] = why_not
        for new in reversed(self._between(before, node)):
            self.graph.erase_node(new)
        return None

    def _left(self, new: list[fx.Node], target: OpOverload, ancestors: frozenset[OpOverload]) -> fx.Node | None:
        """Asks about the new calls and decomposes further: one that stays, if all that brings TensorRT nothing.

        The op itself may come back in a call that the registry takes: the values of a top-k, say, without the places.
        """
        left: fx.Node | None = None
        computing = 0
        for node in new:
            if node.op != "call_function" or not isinstance(node.target, OpOverload) or _is_size(node):
                continue
            if self.registry.lookup(node):
                computing += _computes(node)
            elif node.target is target:
                return node
            elif self._expand(node, ancestors) is not None:
                computing += 1
            else:
                left = left or node
        return None if computing else left  # nothing new at all: the call is one of its operands

    def _stays(self, node: fx.Node) -> str:
        """Why a call that others would be written with stays in Torch."""
        reason = self.registry.lookup(node).reasons[0]
        why = reason.because or (reason.seen if reason.argument else node.meta.get(WHY_NOT))
        name = qualified_name(node.target)  # type: ignore[arg-type]  # an OpOverload
        return f"{why}" if why else f"it is written with {name}, which nobody converts"

    @staticmethod
    def _between(before: fx.Node, after: fx.Node) -> list[fx.Node]:
        found = []
        node = before.next
        while node is not after:
            found.append(node)
            node = node.next
        return found

    @staticmethod
    def _keeps_user(support: Support) -> bool:
        """Whether the user asked for this op or module to stay in Torch: then it stays whole."""
        return any(reason.code is ReasonCode.EXCLUDED_BY_USER for reason in support.reasons)

    # --- tracing one call -------------------------------------------------------------------------------------------

    def _template(self, node: fx.Node) -> tuple[_Template | str, list[Any], Any]:
        """The call's trace, or why there is none, what its placeholders stand for, and the key of calls that share it
        (None: it is alone).
        """
        leaves, spec = pytree.tree_flatten((node.args, dict(node.kwargs)))
        vals = [leaf.meta.get("val") if isinstance(leaf, fx.Node) else leaf for leaf in leaves]
        moving = [i for i, leaf in enumerate(leaves) if isinstance(leaf, fx.Node)]
        operands = [leaves[i] for i in moving]
        if any(not isinstance(vals[i], torch.Tensor | torch.SymInt | torch.SymFloat | torch.SymBool) for i in moving):
            return "", [], None
        used = _used_results(node)
        constant = tuple(leaves[i].op == "get_attr" or bool(leaves[i].meta.get("constant")) for i in moving)
        key = (node.target, spec, used, constant, graphs.facts(vals))
        try:
            known = key in self._templates
        except TypeError:  # an argument that cannot be hashed
            return self._trace(node, vals, spec, moving, used), operands, None
        if not known:
            self._templates[key] = self._trace(node, vals, spec, moving, used)
        return self._templates[key], operands, key

    def _trace(self, node: fx.Node, vals: Any, spec: Any, moving: list[int], used: Any) -> _Template | str:
        function, by = self._function(node.target)
        if function is None:
            return ""

        def call(*operands: Any) -> Any:
            leaves = list(vals)
            for place, operand in zip(moving, operands):
                leaves[place] = operand
            args, kwargs = pytree.tree_unflatten(leaves, spec)
            with torch._C.DisableTorchFunction():  # else make_fx records the op itself instead of what it calls
                results = function(*args, **kwargs)
            if used is None or not isinstance(results, list | tuple):
                return results
            return tuple(result if place in used else None for place, result in enumerate(results))

        try:
            # pre-dispatch, so that composite ops inside are recorded whole and asked about
            with self.mode, enable_python_dispatcher(), torch.no_grad(), unspecialized(self.mode.shape_env):
                traced = make_fx(call, tracing_mode="real", pre_dispatch=True, _allow_non_fake_inputs=True)(
                    *_apart([vals[i] for i in moving])
                )
        except NotImplementedError as error:
            return str(error)
        except SpecializedError as error:
            return f"written with other ops, it would hold only where {error}"
        except (Exception, SystemExit):  # a decomposition may refuse its arguments in any way
            return "nobody has written such a call with other ops"
        _without_detaching(traced.graph)
        traced.graph.eliminate_dead_code(fx.Node.is_impure)
        if writes(traced) and remove_writes(traced) != {}:  # to its own operands, or through views
            return "written with other ops, it would write to its arguments"
        for item in self._within:
            item.function(traced)
        if not _faithful(traced, node):
            return UNFAITHFUL
        return _Template(traced, by)

    def _function(self, target: Any) -> tuple[Callable[..., Any] | None, str]:
        brought = self.registry.decompositions.get(target)
        if brought is not None:
            return brought, self._owners.get(target, "")
        composite = torch._C.DispatchKey.CompositeImplicitAutograd
        own = composite in target.py_kernels or torch._C._dispatch_has_kernel_for_dispatch_key(
            target.name(), "CompositeImplicitAutograd"
        )
        return (target.decompose, "torch") if own else (None, "")


def _apart(operands: list[Any]) -> list[Any]:
    """The operands, no tensor twice: a trace tells its inputs apart by identity, and others share it."""
    seen: set[int] = set()
    found = []
    for operand in operands:
        if isinstance(operand, torch.Tensor) and id(operand) in seen:
            how: Any = {"dtype": operand.dtype, "device": operand.device}
            operand = torch.empty_strided(operand.size(), operand.stride(), **how)
        seen.add(id(operand))
        found.append(operand)
    return found


def _without_detaching(graph: fx.Graph) -> None:
    """Detaching in place is no write: a trace records it of each constant that ``torch.tensor`` makes."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.detach_.default):
        node.replace_all_uses_with(node.args[0])
        graph.erase_node(node)


def _hold(results: Any) -> Any:
    return results


def _used_results(node: fx.Node) -> frozenset[int] | None:
    """Which results of a call with several are read; None where it has one, or where they are read as a whole."""
    import operator

    if len(node.target._schema.returns) < 2:  # type: ignore[union-attr]  # an OpOverload
        return None
    if any(user.target is not operator.getitem for user in node.users):
        return None
    return frozenset(user.args[1] for user in node.users)  # type: ignore[misc]  # getitem's index


def _faithful(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether what was traced has the shapes and dtypes that the call's metadata promises."""
    results = graphs.values(graphs.output_node(traced.graph).args[0])
    promised = node.meta.get("val")
    if not isinstance(promised, list | tuple):
        results, promised = [results], [promised]
    elif not isinstance(results, list | tuple) or len(results) != len(promised):
        return False
    return all(_agree(ours, theirs) for ours, theirs in zip(results, promised))


def _agree(ours: Any, theirs: Any) -> bool:
    if ours is None or not isinstance(theirs, torch.Tensor):
        return True
    if not isinstance(ours, torch.Tensor) or ours.dtype != theirs.dtype or ours.dim() != theirs.dim():
        return False
    return all(
        one == two if type(one) is int and type(two) is int else _same_size(one, two)
        for one, two in zip(ours.shape, theirs.shape)
    )


def _same_size(one: Any, two: Any) -> bool:
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return graphs.sizes((one,)) == graphs.sizes((two,)) or statically_known_true(one == two)


def _is_size(node: fx.Node) -> bool:
    return not graphs.tensors(node.meta.get("val"))


def _computes(node: fx.Node) -> bool:
    """Whether a call does arithmetic, rather than moving or making elements."""
    schema = node.target._schema  # type: ignore[union-attr]  # an OpOverload
    is_view = any(item.alias_info is not None for item in schema.returns)
    return (
        not is_view
        and schema.name not in _MOVERS
        and any(graphs.tensors(a.meta.get("val")) for a in node.all_input_nodes)
    )
