"""An exported program as one graph module: parameters are attributes, outputs are flat, nothing is written."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils._pytree import TreeSpec

from trtplug.errors import LoweringError
from trtplug.lowering import graphs
from trtplug.lowering.functionalize import dissolve_regions, drop_detaches, hidden_writers, remove_writes, writes
from trtplug.lowering.value import Mutation


@dataclasses.dataclass(frozen=True)
class Lifted:
    """As `Lowered`, before any pass. `retraced` tells whether `run_decompositions` was needed."""

    graph_module: fx.GraphModule
    in_spec: TreeSpec
    out_spec: TreeSpec
    input_names: tuple[str, ...]
    mutations: tuple[Mutation, ...]
    constants: Mapping[int, Any]
    retraced: bool


def lift(exported: ExportedProgram) -> Lifted:
    """Copies the program's graph (never its tensors) into the form that the rest of the compiler works on.

    Raises:
        LoweringError: the program has effects that are neither values nor writes (effect tokens).
    """
    lifted = _lift(exported, retraced=False)
    return lifted if lifted is not None else _retraced(exported)


def _retraced(exported: ExportedProgram) -> Lifted:
    with warnings.catch_warnings():
        # torch's own pytree, while it copies the program
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        functional = exported.run_decompositions(hidden_writers(exported.graph_module))
    lifted = _lift(functional, retraced=True)
    assert lifted is not None
    return lifted


def _lift(exported: ExportedProgram, *, retraced: bool) -> Lifted | None:
    signature = exported.graph_signature
    graph, root = fx.Graph(), torch.nn.Module()
    specs = {spec.arg.name: spec for spec in signature.input_specs}
    attributes = _Attributes(exported, root, graph)
    image: dict[fx.Node, fx.Node] = {}
    names: list[str] = []
    constants: dict[int, Any] = {}
    for node in exported.graph_module.graph.nodes:
        if node.op == "placeholder":
            spec = specs[node.name]
            if spec.kind is InputKind.TOKEN:
                raise LoweringError(f"the program orders effects by a token ({node.name}), which is not supported")
            if spec.kind is not InputKind.USER_INPUT:
                image[node] = attributes.get(spec, node)
                continue
            if isinstance(spec.arg, ConstantArgument):
                constants[len(names)] = spec.arg.value
            names.append(node.name)
        if node.op == "output":
            break
        if node.op in ("get_attr", "call_module"):
            graphs.assign(root, str(node.target), graphs.attribute(exported.graph_module, node.target))
        image[node] = _copied(node, graph, image)
    results = graphs.output_node(exported.graph_module.graph).args[0]
    user, written, mutations = _outputs(exported, results, names, attributes.places)
    old = fx.node.map_arg((user, written), lambda source: image[source])
    graph.output((*old[0], *old[1]))
    graph_module = graphs.module_of(root, graph, "Lowered")
    if not retraced:
        if not dissolve_regions(graph_module):
            return None
        drop_detaches(graph_module)
        if writes(graph_module):
            final = remove_writes(graph_module)
            if final is None:
                return None
            mutations += append_writes(graph_module, final, names)
    elif writes(graph_module):
        raise LoweringError("the program still writes in place after torch.export made it functional")
    _mark_written(graph_module, mutations)
    assert exported.call_spec.in_spec is not None
    assert exported.call_spec.out_spec is not None
    return Lifted(
        graph_module,
        exported.call_spec.in_spec,
        exported.call_spec.out_spec,
        tuple(names),
        mutations,
        constants,
        retraced,
    )


def _copied(node: fx.Node, graph: fx.Graph, image: Mapping[fx.Node, fx.Node]) -> fx.Node:
    """What ``Graph.node_copy`` makes, at a third of its cost: that checks arguments again."""
    new = graph.create_node(node.op, node.target, name=node.name, type_expr=node.type)
    new.args = fx.node.map_arg(node.args, image.__getitem__)
    if node.kwargs:
        new.kwargs = fx.node.map_arg(node.kwargs, image.__getitem__)
    if new.name != node.name:
        new.name = node.name  # a copy of "input" would be called "input_1", after the builtin
    new.meta.update(node.meta)
    return new


class _Attributes:
    """Lifted inputs as ``get_attr`` nodes, one for each tensor, however many names it has."""

    def __init__(self, exported: ExportedProgram, root: torch.nn.Module, graph: fx.Graph) -> None:
        self._exported, self._root, self._graph = exported, root, graph
        self._nodes: dict[int, fx.Node] = {}
        self.places: dict[str, str] = {}
        """Each name of a tensor, and the one that it is kept under."""

    def get(self, spec: Any, node: fx.Node) -> fx.Node:
        value = self._value(spec)
        known = self._nodes.get(id(value))
        if known is not None:
            self.places[spec.target] = str(known.target)
            return known
        self.places[spec.target] = spec.target
        graphs.assign(self._root, spec.target, value)
        new = self._graph.create_node("get_attr", spec.target, name=node.name)
        new.meta = dict(node.meta)
        self._nodes[id(value)] = new
        return new

    def _value(self, spec: Any) -> Any:
        exported = self._exported
        if spec.kind is InputKind.PARAMETER or (spec.kind is InputKind.BUFFER and spec.persistent):
            return exported.state_dict[spec.target]
        return exported.constants[spec.target]


def _outputs(
    exported: ExportedProgram, results: Any, names: list[str], places: Mapping[str, str]
) -> tuple[list[Any], list[Any], tuple[Mutation, ...]]:
    user, written, mutations = [], [], []
    for spec, result in zip(exported.graph_signature.output_specs, results, strict=True):
        if spec.kind is OutputKind.USER_OUTPUT:
            user.append(spec.arg.value if isinstance(spec.arg, ConstantArgument) else result)
        elif spec.kind is OutputKind.USER_INPUT_MUTATION:
            written.append(result)
            mutations.append(Mutation("input", names.index(str(spec.target))))
        elif spec.kind in (OutputKind.BUFFER_MUTATION, getattr(OutputKind, "PARAMETER_MUTATION", None)):
            written.append(result)
            mutations.append(Mutation("buffer", places[str(spec.target)]))
        else:
            raise LoweringError(f"the program has an output of the kind {spec.kind.name}, which is for training")
    return user, written, tuple(mutations)


def append_writes(
    graph_module: fx.GraphModule, final: Mapping[fx.Node, fx.Node], names: list[str]
) -> tuple[Mutation, ...]:
    output = graphs.output_node(graph_module.graph)
    results: Any = output.args[0]
    output.args = ((*results, *final.values()),)
    return tuple(
        Mutation("input", names.index(node.name)) if node.op == "placeholder" else Mutation("buffer", str(node.target))
        for node in final
    )


def _mark_written(graph_module: fx.GraphModule, mutations: tuple[Mutation, ...]) -> None:
    """Sets ``meta["written"]`` on what calls write to, views of it too, so that nobody takes it for a constant."""
    targets = [mutation.target for mutation in mutations if mutation.kind == "buffer"]
    memory = {_memory(graphs.attribute(graph_module, target)) for target in targets}
    for node in graph_module.graph.nodes if memory else ():
        if node.op == "get_attr" and _memory(graphs.attribute(graph_module, node.target)) in memory:
            node.meta["written"] = True


def _memory(value: Any) -> Any:
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else id(value)
