"""From a finished network to a graph module that computes what it means."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.fx import Node

from trtplug.reference.errors import UnsupportedLayer
from trtplug.reference.module import LiftedModule
from trtplug.reference.semantics import checks, control
from trtplug.reference.site import Scope, Site, WeightReader, identifier, value_dims, value_dtype
from trtplug.reference.topology import BRANCH_KINDS, LOOP_KINDS, Layer, Region, Topology

Unit = Layer | Region


def lift(network: Any, weights: Mapping[str, Tensor], *, check: bool = True) -> LiftedModule:
    """Lift a finished network to Torch code.

    The result takes the network's inputs in their order (placeholders bear their names) and returns the tuple of its
    outputs in their order. It computes on the inputs' device; weights are its buffers. Half types are computed in
    float32 and rounded after each layer. It keeps nothing of the network.

    Args:
        network: an `INetworkDefinition`.
        weights: layer name to the tensor of that constant. A layer that is missing here is read from the network, which
            cannot hand out bfloat16, fp8 and int4 weights. Weights that are a layer's attributes are found under
            ``<layer>.kernel``, ``<layer>.bias``, ``<layer>.scale``, ….
        check: assert at every layer the dtype and shape that TensorRT inferred.

    Raises:
        UnsupportedLayer: a kind of layer, a mode or a dtype is not modelled.
        MissingWeights: weights that cannot be read are not in the table either.
        LayerError: raised by the result when it runs and a layer's inputs or result are not what TensorRT asks for.
    """
    return _Lifter(Topology(network), WeightReader(weights), check).network(network)


class _Lifter:
    def __init__(self, topology: Topology, reader: WeightReader, check: bool) -> None:
        from trtplug.reference.rules import RULES  # a plugin's door stands here, and most who ask lift nothing

        self.topology, self.reader, self.check, self.rules = topology, reader, check, RULES
        for layer in topology.layers:
            if layer.kind not in self.rules and layer.kind not in LOOP_KINDS | BRANCH_KINDS:
                raise UnsupportedLayer(layer.name, layer.kind, "this kind of layer is not modelled")

    def network(self, network: Any) -> LiftedModule:
        scope = Scope()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            scope.values[tensor] = scope.placeholder(tensor.name)
        for tensor in list(scope.values):
            self._bind(scope, tensor, scope.values[tensor], tensor.name, "INPUT")
        results = [network.get_output(index) for index in range(network.num_outputs)]
        self._block(scope, results, self.topology.assertions(None))
        return _module(scope, results, "Network")

    def _block(self, scope: Scope, results: Iterable[Any], effects: list[Layer]) -> None:
        """Lift what the results and the effects depend on and the scope does not know yet, in order of dependence."""
        done: set[Unit] = set()
        roots = [self._unit(t) for t in results if t not in scope.values] + effects
        for root in roots:
            stack: list[Unit] = [root]
            while stack:
                unit = stack[-1]
                missing = [t for t in self._needs(unit) if t not in scope.values]
                if unit in done or not missing:
                    stack.pop()
                    if unit not in done:
                        done.add(unit)
                        self._lift(scope, unit)
                else:
                    stack += [self._unit(t) for t in missing]

    def _unit(self, tensor: Any) -> Unit:
        """The layer that makes a tensor, or the whole region where it leaves one."""
        layer = self.topology.producer.get(tensor)
        if layer is None:
            raise UnsupportedLayer("?", "?", f"no layer makes tensor {tensor.name!r}, and it is not an input")
        if layer.kind == "RECURRENCE":  # inside its loop it is known already
            raise UnsupportedLayer(layer.name, layer.kind, "its value is used outside its loop")
        region = self.topology.region_at.get(layer)
        return region if region is not None and layer in region.exits else layer

    def _needs(self, unit: Unit) -> list[Any]:
        if isinstance(unit, Layer):
            return unit.present
        return list(self.topology.external(unit, [*unit.boundary, *unit.members]))

    def _lift(self, scope: Scope, unit: Unit) -> None:
        if isinstance(unit, Region):
            lift_region = self._loop if unit.of_kind("LOOP_OUTPUT") else self._conditional
            return lift_region(scope, unit)
        if unit.kind == "ITERATOR":
            if scope.step is None:
                raise UnsupportedLayer(unit.name, unit.kind, "its value is used outside its loop")
            args = scope.values[unit.inputs[0]], unit.handle.axis, bool(unit.handle.reverse), scope.step, scope.count
            return self._results(scope, unit, _call(scope, unit, control.element, *args))
        if unit.kind == "CONDITIONAL_INPUT":
            return self._results(scope, unit, scope.values[unit.inputs[0]])
        self._results(scope, unit, self.rules[unit.kind](Site(unit, scope, self.topology, self.reader)))

    def _results(self, scope: Scope, layer: Layer, value: Node) -> None:
        if len(layer.outputs) == 1:
            return self._bind(scope, layer.outputs[0], value, layer.name, layer.kind)
        for index, tensor in enumerate(layer.outputs):
            part = _call(scope, layer, operator.getitem, value, index)
            self._bind(scope, tensor, part, layer.name, layer.kind)

    def _bind(self, scope: Scope, tensor: Any, node: Node, name: str, kind: str) -> None:
        """Make a node the value of a network tensor, asserted where it is not a constant."""
        dtype, dims = value_dtype(tensor, name, kind), value_dims(tensor, name, kind)
        if self.check and node.op != "get_attr":
            node = scope.graph.create_node("call_function", checks.expect, (node, dtype, dims), {}, name=node.name)
            node.meta.update(layer=name, kind=kind)
        node.meta["dtype"] = dtype
        scope.values[tensor] = node

    def _loop(self, scope: Scope, loop: Region) -> None:
        recurrences, exits = loop.of_kind("RECURRENCE"), loop.exits
        count, during = _trip_limits(loop)
        asked = [] if during is None else [during]
        states = [layer.outputs[0] for layer in recurrences]
        kept = [layer for layer in exits if layer.handle.kind.name != "LAST_VALUE" or layer.inputs[0] not in states]
        wanted = [layer.inputs[1] for layer in recurrences] + [layer.inputs[0] for layer in kept]
        captured = self._captured(loop, asked + wanted)
        condition = self._nested(scope, loop, states, captured, asked, "condition", []) if asked else None
        effects = self.topology.assertions(loop)
        call = _call(
            scope,
            loop.boundary[0],
            control.loop,
            condition,
            self._nested(scope, loop, states, captured, wanted, "body", effects),
            None if count is None else scope.values[count],
            [scope.values[layer.inputs[0]] for layer in recurrences],
            [scope.values[tensor] for tensor in captured],
            [_loop_output(scope, layer, states) for layer in exits],
        )
        self._leave(scope, exits, call)

    def _conditional(self, scope: Scope, branch: Region) -> None:
        if self.topology.assertions(branch):
            raise UnsupportedLayer(branch.name, "CONDITIONAL", "an assertion inside a branch")
        exits = branch.exits
        captured = self._captured(branch, [t for layer in exits for t in layer.inputs])
        then, otherwise = (
            self._nested(scope, branch, [], captured, [layer.inputs[side] for layer in exits], title, [])
            for side, title in enumerate(("then", "else"))
        )
        (condition,) = branch.of_kind("CONDITION")
        operands = [scope.values[tensor] for tensor in captured]
        call = _call(scope, condition, control.choose, scope.values[condition.inputs[0]], then, otherwise, operands)
        self._leave(scope, exits, call)

    def _captured(self, region: Region, results: list[Any]) -> list[Any]:
        """The outside tensors that a region's inner graphs read or return."""
        entries = region.of_kind("ITERATOR") + region.of_kind("CONDITIONAL_INPUT")
        inside = [layer for layer in self.topology.layers if layer in region.members]
        used = list(self.topology.external(region, [*entries, *inside]))
        own = {*region.members, *region.boundary}
        used += [tensor for tensor in results if self.topology.producer.get(tensor) not in own]
        return list(dict.fromkeys(used))

    def _nested(
        self,
        outer: Scope,
        region: Region,
        states: list[Any],
        captured: list[Any],
        results: list[Any],
        title: str,
        effects: list[Layer],
    ) -> Node:
        """A graph module inside the scope, read as an attribute; placeholders: (step and count,) states, captured."""
        scope = Scope()
        if region.of_kind("LOOP_OUTPUT"):
            scope.step, scope.count = scope.placeholder("step"), scope.placeholder("count")
        for tensor in states + captured:
            scope.values[tensor] = scope.placeholder(tensor.name)
            scope.values[tensor].meta["dtype"] = value_dtype(tensor, region.name, "REGION")
        for layer in region.of_kind("RECURRENCE"):
            self._bind(scope, layer.outputs[0], scope.values[layer.outputs[0]], layer.name, layer.kind)
        self._block(scope, results, effects)
        return outer.attribute(f"{region.boundary[0].name}_{title}", _module(scope, results, title.capitalize()))

    def _leave(self, scope: Scope, exits: list[Layer], call: Node) -> None:
        for index, layer in enumerate(exits):
            self._results(scope, layer, _call(scope, layer, operator.getitem, call, index))


def _trip_limits(loop: Region) -> tuple[Any, Any]:
    """The tensors that hold a loop's trip count and its condition, None where it has none of that kind."""
    limits = {layer.handle.kind.name: layer.inputs[0] for layer in loop.of_kind("TRIP_LIMIT")}
    if not limits or set(limits) - {"COUNT", "WHILE"}:
        raise UnsupportedLayer(loop.name, "LOOP", f"trip limits {sorted(limits)}")
    return limits.get("COUNT"), limits.get("WHILE")


def _loop_output(scope: Scope, layer: Layer, states: list[Any]) -> list[Any]:
    kind = layer.handle.kind.name
    if kind == "LAST_VALUE" and layer.inputs[0] in states:
        return ["STATE", states.index(layer.inputs[0]), None]
    length = scope.values[layer.inputs[1]] if len(layer.inputs) > 1 else None
    return [kind, layer.handle.axis, length]


def _call(scope: Scope, layer: Layer, target: Any, *args: Any) -> Node:
    node = scope.graph.create_node("call_function", target, args, {}, name=identifier(layer.name))
    node.meta.update(layer=layer.name, kind=layer.kind)
    return node


def _module(scope: Scope, results: list[Any], title: str) -> LiftedModule:
    scope.graph.output(tuple(scope.values[tensor] for tensor in results))
    for node in reversed(scope.graph.nodes):  # constants written into the code need no buffer
        if node.op == "get_attr" and not node.users:
            scope.graph.erase_node(node)
    scope.graph.lint()
    return LiftedModule(scope.attributes, scope.graph, title)
