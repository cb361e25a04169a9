"""The convert stage: one block's graph into a real TensorRT network."""

from __future__ import annotations

import dataclasses
import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch.fx import GraphModule, Node

from trtplug.errors import ConversionError
from trtplug.network.builder import NetworkBuilder
from trtplug.network.context import Context
from trtplug.network.finished import Binding, Network
from trtplug.network.sizes import SizeBook
from trtplug.profiles import profiles_in
from trtplug.ranges import Range, size_range
from trtplug_registry import Converter, TensorFacts, describe_value, tensors_in
from trtplug_registry.conversion import formals, parameter_name
from trtplug_registry.errors import raised

# Symbolic size arithmetic, by the ElementWiseOperation that computes it on int64 tensors
_SIZE_MATH: Mapping[Any, str] = {
    operator.add: "SUM",
    operator.sub: "SUB",
    operator.mul: "PROD",
    operator.floordiv: "FLOOR_DIV",
    operator.pow: "POW",
    torch.sym_max: "MAX",
    torch.sym_min: "MIN",
}


def convert(
    graph_module: GraphModule,
    converter_of: Callable[[Node], Converter],
    *,
    ranges: Mapping[sympy.Symbol, Range] | None = None,
    name: str = "engine",
) -> Network:
    """Converts a block's graph.

    Args:
        graph_module: placeholders (tensors, then sizes), ``get_attr`` nodes, calls, and an output tuple; every node
            with ``meta["val"]``.
        converter_of: who converts a node.
        ranges: min, opt and max of every symbol in the inputs' shapes; one that is missing is taken from the graph's
            own constraints.
        name: of the network, for messages.

    Raises:
        ConversionError: a converter fails, returns something else than the node's metadata promises, or TensorRT
            refuses a layer. It carries the node and TensorRT's words.
    """
    return _Conversion(graph_module, converter_of, ranges or {}, name).run()


class _Conversion:
    def __init__(
        self,
        graph_module: GraphModule,
        converter_of: Callable[[Node], Converter],
        ranges: Mapping[sympy.Symbol, Range],
        name: str,
    ) -> None:
        self.module, self.converter_of, self.ranges, self.name = graph_module, converter_of, ranges, name
        self.network = NetworkBuilder()
        self.book = SizeBook(self.network, ranges)
        self.context = Context(self.network, self.book, self._inline)
        self.values: dict[Node, Any] = {}
        self.inputs: list[Binding] = []
        self.outputs: list[Binding] = []
        self.spans: list[list[Range]] = []  # of each input's sizes

    def run(self) -> Network:
        for node in self.module.graph.nodes:
            self.network.enter(node)
            getattr(self, f"_{node.op}", self._refuse)(node)
        self.network.finish()
        return Network(self.name, self.network, self._with_profiles(), tuple(self.outputs))

    def _with_profiles(self) -> tuple[Binding, ...]:
        profiles = profiles_in(self.spans)
        if not profiles:
            return tuple(self.inputs)
        return tuple(
            dataclasses.replace(binding, profiles=tuple(profile[place] for profile in profiles))
            for place, binding in enumerate(self.inputs)
        )

    def _refuse(self, node: Node) -> None:
        raise ConversionError(f"a {node.op} node cannot be converted", node)

    def _placeholder(self, node: Node) -> None:
        value = node.meta["val"]
        if isinstance(value, torch.SymInt | int):
            tensor = self.network.add_input(node.name, torch.int64, ())
            self.book.define(value, tensor)
            span = self._span(value)
            self.spans.append([span])
            facts = TensorFacts((), torch.int64)
            extents = _extents([value])
            self.inputs.append(Binding(node.name, facts, (span.min,), (span.opt,), (span.max,), True, extents))
        else:
            shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
            tensor = self.network.add_input(node.name, value.dtype, shape, [str(size) for size in value.shape])
            spans = [self._span(size) for size in value.shape]
            self.spans.append(spans)
            smallest, typical, largest = (tuple(getattr(s, part) for s in spans) for part in ("min", "opt", "max"))
            facts, extents = TensorFacts(shape, value.dtype), _extents(value.shape)
            self.inputs.append(Binding(node.name, facts, smallest, typical, largest, extents=extents))
            self.book.note(tensor, value)
        self.values[node] = tensor

    def _span(self, size: Any) -> Range:
        try:
            return size_range(size, self.ranges)
        except ValueError as error:
            raise self.network.fail(str(error), error) from error

    def _get_attr(self, node: Node) -> None:
        assert isinstance(node.target, str)
        value: Any = self.module
        for part in node.target.split("."):
            value = getattr(value, part)
        if isinstance(value, GraphModule):
            self.values[node] = value
        elif isinstance(value, torch.Tensor):
            self.values[node] = _Lazy(self, node, value)
        else:
            raise ConversionError(f"the attribute {node.target!r} is a {type(value).__name__}, not a tensor", node)

    def _inline(self, body: GraphModule, operands: Sequence[Any]) -> tuple[Any, ...]:
        """Converts a body's nodes where the current node's layers are. See `ConverterContext.inline`."""
        results: Any = ()
        given = list(operands)
        caller, self.module = self.module, body
        with self.network.called(), self.book.scope():
            for node in body.graph.nodes:
                if node.op == "placeholder":
                    if not given:
                        raise self.network.fail(f"a body got {len(operands)} inputs, which are too few")
                    self._bind(node, given.pop(0))
                elif node.op == "output":
                    results = self._argument(node.args[0])
                else:
                    self.network.enter(node)
                    getattr(self, f"_{node.op}", self._refuse)(node)
            if given:
                raise self.network.fail(f"a body got {len(operands)} inputs, which are too many")
        self.module = caller
        return tuple(results) if isinstance(results, list) else (results,)

    def _bind(self, node: Node, operand: Any) -> None:
        """Lets an operand stand for a body's input."""
        value = node.meta["val"]
        self.values[node] = operand
        if isinstance(value, torch.SymInt):
            self.values[node] = operand if isinstance(operand, int) else self.book.known(value, operand)
            if not isinstance(operand, int):
                self.book.define(value, operand)
        elif isinstance(value, torch.Tensor):
            self.book.note(operand, value)

    def _call_function(self, node: Node) -> None:
        target = node.target
        if target is operator.getitem:
            source, place = node.args
            assert isinstance(source, Node)
            self.values[node] = self._value(source)[place]
        elif target is torch.ops.aten.sym_size.int:
            source, axis = node.args
            size = self.context.sizes(self._argument(source))[axis]  # type: ignore[index]  # an axis is an int
            self._note_size(node, size)
        elif isinstance(node.meta.get("val"), torch.SymInt | int):
            self._note_size(node, self._size_math(node))
        else:
            self._convert(node)

    def _note_size(self, node: Node, size: Any) -> None:
        value = node.meta["val"]
        if not isinstance(size, int):
            self.book.define(value, size)
            size = self.book.known(value, size)
        self.values[node] = size

    def _size_math(self, node: Node) -> Any:
        args = [self._argument(argument) for argument in node.args]
        if node.target is operator.neg:
            return self.context.size_math("SUB", 0, args[0])
        if node.target is operator.mod:
            quotient = self.context.size_math("FLOOR_DIV", *args)
            return self.context.size_math("SUB", args[0], self.context.size_math("PROD", quotient, args[1]))
        if node.target not in _SIZE_MATH:
            raise ConversionError("this arithmetic on sizes has no layer", node)
        return self.context.size_math(_SIZE_MATH[node.target], *args)

    def _convert(self, node: Node) -> None:
        converter = self.converter_of(node)
        args = [self._argument(argument) for argument in node.args]
        kwargs = {name: self._argument(argument) for name, argument in node.kwargs.items()}
        args, kwargs = _by_kind(node, args, kwargs)
        before = _state(node)
        try:
            result = converter.function(self.context, *args, **kwargs)
        except ConversionError as error:
            if error.node is node:
                raise
            raise self.network.fail(f"the converter {converter.id} failed: {error}", error) from error
        except (Exception, SystemExit) as error:  # a plugin's converter may raise anything
            what = f"the converter {converter.id} raised {raised(error)}"
            raise self.network.fail(what, error) from error
        if _state(node) != before:
            raise self.network.fail(f"the converter {converter.id} changed its node, which is read only")
        if self.network.logger.errors:
            raise self.network.fail(f"TensorRT reports an error in the converter {converter.id}")
        self.values[node] = self._checked(node, converter, result)

    def _checked(self, node: Node, converter: Converter, result: Any) -> Any:
        """The converter's result, compared with what the node's metadata promises."""
        value = node.meta["val"]
        several = isinstance(value, list | tuple)
        if several != isinstance(result, list | tuple) or (several and len(result) != len(value)):
            got = len(result) if isinstance(result, list | tuple) else 1
            wanted = len(value) if several else 1
            raise self.network.fail(f"the converter {converter.id} returned {got} results, the op has {wanted}")
        for place, (tensor, promised) in enumerate(zip(result, value) if several else ((result, value),)):
            if tensor is None and several:
                if _is_read(node, place):
                    raise self.network.fail(f"the converter {converter.id} makes no result {place}, which is read")
            else:
                self._check_result(converter, tensor, promised)
        return result

    def _check_result(self, converter: Converter, tensor: Any, promised: Any) -> None:
        if not isinstance(tensor, self.network.trt.ITensor):
            kind = type(tensor).__name__
            raise self.network.fail(f"the converter {converter.id} returned a {kind}, not a network tensor")
        if not self.network.owns(tensor):
            raise self.network.fail(f"the converter {converter.id} returned a tensor of another network, which it kept")
        shape, dtype = tuple(tensor.shape), self.network.dtype(tensor)
        agrees = len(shape) == promised.dim() and all(
            not isinstance(size, int) or made in (size, -1)  # a symbolic size is not asked: that leaves a guard
            for made, size in zip(shape, promised.shape)
        )
        if not agrees or dtype != promised.dtype:
            made = TensorFacts(shape, dtype)
            wanted = describe_value(promised)
            raise self.network.fail(f"the converter {converter.id} made {made}, the node promises {wanted}")
        self.book.note(tensor, promised)

    def _output(self, node: Node) -> None:
        results = node.args[0]
        assert isinstance(results, list | tuple)
        for number, source in enumerate(results):
            if not isinstance(source, Node) or not isinstance(source.meta["val"], torch.Tensor):
                raise ConversionError(f"output {number} of {self.name} is not a tensor", node)
            self.network.mark_output(self._argument(source), f"output_{number}")
            (facts,) = tensors_in(describe_value(source.meta["val"]))
            shape = tuple(size if isinstance(size, int) else -1 for size in facts.shape)
            extents = _extents(source.meta["val"].shape)
            self.outputs.append(Binding(f"output_{number}", TensorFacts(shape, facts.dtype), extents=extents))

    # --- arguments ------------------------------------------------------------------------------------------------

    def _value(self, node: Node) -> Any:
        value = self.values[node]
        if isinstance(value, _Lazy):
            value = self.values[node] = value.make()
        return value

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, Node):
            value = self._value(argument)
            if value is None:
                raise self.network.fail(f"uses a result of {argument.name} that its converter does not make")
            return value
        if isinstance(argument, list | tuple):
            return [self._argument(item) for item in argument]
        if isinstance(argument, torch.SymInt):
            return int(argument)
        return argument


class _Lazy:
    """A constant that becomes a layer when it is first used, named after the attribute's node."""

    def __init__(self, conversion: _Conversion, node: Node, value: torch.Tensor) -> None:
        self.conversion, self.node, self.value = conversion, node, value

    def make(self) -> Any:
        network = self.conversion.network
        user = network.node
        network.enter(self.node)
        tensor = network.constant(self.value)
        if user is not None:
            network.enter(user)
        return tensor


def _extents(sizes: Iterable[Any]) -> tuple[int | sympy.Expr, ...]:
    return tuple(size.node.expr if isinstance(size, torch.SymInt) else int(size) for size in sizes)


def _is_read(node: Node, place: int) -> bool:
    """Whether anybody reads this one of the results of a call with several; a getitem alone does not count."""
    return any(
        user.target is not operator.getitem or (user.args[1] == place and len(user.users) > 0) for user in node.users
    )


def _state(node: Node) -> tuple[Any, ...]:
    """What a converter may not change of its node and of those that it reads."""
    facts = [(n.op, n.target, n.args, n.kwargs, list(map(id, n.meta.values()))) for n in (node, *node.all_input_nodes)]
    return len(node.graph.nodes), list(node.users), facts


def _by_kind(node: Node, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments as the converter's signature takes them: those that the schema makes keyword-only by name."""
    if not isinstance(node.target, OpOverload | HigherOrderOperator):
        return args, kwargs
    named = {}
    positional = list(args)
    for argument in itertools.islice(formals(node.target), len(args), None):
        if argument.name in kwargs:
            named[parameter_name(argument.name)] = kwargs[argument.name]
    return positional, named
