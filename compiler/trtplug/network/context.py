"""`ConverterContext` over the checked builder: the vocabulary that converters are written in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from trtplug._tensorrt import trt_dtype
from trtplug.network.builder import NetworkBuilder
from trtplug.network.regions import Region
from trtplug.network.sizes import SizeBook
from trtplug_registry import MAX_RANK, TensorFacts, describe_value, tensors_in

_FEW = 8
"""TensorRT-RTX fuses reductions wrongly along axes of up to 6 elements, that is known; one more is left to spare."""


class Context:
    """Implements `trtplug_registry.ConverterContext`; see there for what each method promises."""

    def __init__(
        self, network: NetworkBuilder, sizes: SizeBook, inline: Callable[[Any, Sequence[Any]], tuple[Any, ...]]
    ) -> None:
        self._network = network
        self._sizes = sizes
        self.inline = inline
        self.trt = network.trt
        self.add = network.add
        self.frozen = network.frozen
        self.dtype = network.dtype

    @property
    def node(self) -> Node:
        assert self._network.node is not None
        return self._network.node

    @property
    def outputs(self) -> tuple[TensorFacts, ...]:
        return tuple(tensors_in(describe_value(self.node.meta["val"])))

    # --- looking --------------------------------------------------------------------------------------------------

    def facts(self, tensor: Any) -> TensorFacts:
        return TensorFacts(tuple(tensor.shape), self.dtype(tensor), self.frozen(tensor) is not None)

    def rank(self, tensor: Any) -> int:
        return len(tensor.shape)

    def constant(self, value: Any, dtype: torch.dtype | None = None) -> Any:
        return self._network.constant(value, dtype)

    def sizes(self, tensor: Any) -> tuple[Any, ...]:
        return self._sizes.of(tensor)

    def shape(self, tensor: Any) -> Any:
        return self._sizes.shape(tensor)

    def size_tensor(self, sizes: Sequence[Any]) -> Any:
        return self._sizes.tensor(sizes)

    def size_math(self, op: str, left: Any, right: Any) -> Any:
        return self._sizes.math(op, left, right)

    # --- pointwise ------------------------------------------------------------------------------------------------

    def cast(self, tensor: Any, dtype: torch.dtype) -> Any:
        if self.dtype(tensor) == dtype:
            return tensor
        value = self.frozen(tensor) if dtype is torch.bool else None
        if value is not None and value.numel() == 1:  # so that `_decided` sees it
            return self._network.constant(value != 0)
        return self.add("cast", tensor, trt_dtype(dtype)).get_output(0)

    def unary(self, op: str, tensor: Any) -> Any:
        return self.add("unary", tensor, getattr(self.trt.UnaryOperation, op)).get_output(0)

    def activation(self, op: str, tensor: Any, **attributes: Any) -> Any:
        return self.add("activation", tensor, getattr(self.trt.ActivationType, op), **attributes).get_output(0)

    def elementwise(self, op: str, left: Any, right: Any) -> Any:
        left, right = self._operands(left, right)
        decided = self._decided(op, left, right) if op in ("AND", "OR") else None
        if op in ("SUM", "SUB"):
            op, left, right = self._apart(op, left, right)
        return self._elementwise(op, left, right) if decided is None else decided

    def _apart(self, op: str, left: Any, right: Any) -> tuple[str, Any, Any]:
        """A sum with the least integer, as one with the greatest and with 1.

        TensorRT-RTX adds such a constant by setting the sign's bit, which leaves negative numbers as they are. That the
        greatest and 1 make the least, it does not see: the sum overflows.
        """
        if op == "SUM" and self._is_least(left):
            left, right = right, left
        if not self._is_least(right):
            return op, left, right
        dtype, rank = self.dtype(right), len(right.shape)
        most, one = (self._network.constant(n, dtype, rank) for n in (torch.iinfo(dtype).max, 1))
        return "SUM", self._elementwise("SUM", left, most), one

    def _is_least(self, tensor: Any) -> bool:
        value = self.frozen(tensor)
        if value is None or value.numel() != 1 or value.is_floating_point() or value.dtype is torch.bool:
            return False
        return bool(value.item() == torch.iinfo(value.dtype).min)

    def _decided(self, op: str, left: Any, right: Any) -> Any:
        """AND or OR with a constant of one element, without a layer; None where neither is one.

        TensorRT-RTX replaces a result that such a constant decides with the constant, and reads past its end.
        """
        for constant, other in ((left, right), (right, left)):
            value = self.frozen(constant)
            if value is not None and value.numel() == 1:
                truth = bool(value.item())
                neutral = truth == (op == "AND")
                return other if neutral else self.full(self.sizes(other), truth, torch.bool)
        return None

    def _elementwise(self, op: str, left: Any, right: Any) -> Any:
        return self.add("elementwise", left, right, getattr(self.trt.ElementWiseOperation, op)).get_output(0)

    def select(self, condition: Any, if_true: Any, if_false: Any) -> Any:
        if_true, if_false = self._operands(if_true, if_false)
        condition, if_true, if_false = self._align(condition, if_true, if_false)
        return self.add("select", condition, if_true, if_false).get_output(0)

    def _operands(self, *values: Any) -> list[Any]:
        """Numbers become constants of the tensors' dtype; ranks are made equal."""
        tensors = [value for value in values if not isinstance(value, int | float)]
        dtype = self.dtype(tensors[0]) if tensors else None
        rank = max((len(tensor.shape) for tensor in tensors), default=0)
        return [
            self._network.constant(value, dtype, rank) if isinstance(value, int | float) else self._lift(value, rank)
            for value in values
        ]

    def _align(self, *tensors: Any) -> list[Any]:
        """Leading axes of size 1, so that all tensors have the largest rank."""
        rank = max(len(tensor.shape) for tensor in tensors)
        return [self._lift(tensor, rank) for tensor in tensors]

    def _lift(self, tensor: Any, rank: int) -> Any:
        missing = rank - len(tensor.shape)
        if missing == 0:
            return tensor
        value = self.frozen(tensor)
        if value is not None and value.numel() == 1:
            return self._network.constant(value, rank=rank)
        return self.unsqueeze(tensor, range(missing))

    # --- reductions and products ------------------------------------------------------------------------------------

    def reduce(self, op: str, tensor: Any, axes: Sequence[int], keepdim: bool) -> Any:
        rank = len(tensor.shape)
        mask = 0
        for axis in axes:
            mask |= 1 << axis_of(axis, rank)
        if not mask:
            return tensor
        apart = self._is_fused_wrongly(tensor, mask)
        if apart:
            tensor, mask = self.add("unsqueeze", tensor, self.constant([0], torch.int64)).get_output(0), mask << 1 | 1
        result = self.add("reduce", tensor, getattr(self.trt.ReduceOperation, op), mask, keepdim).get_output(0)
        return self.squeeze(result, [0]) if apart and keepdim else result

    def _is_fused_wrongly(self, tensor: Any, mask: int) -> bool:
        """Whether a reduction needs another axis, of size 1, to be right on a GPU.

        TensorRT-RTX 1.4 and 1.6 fuse it with an earlier one along an axis of up to 6 elements, where all sizes are
        static. What was normalized along that axis, and is then reduced along others, too, or rounded to bfloat16 and
        reduced, comes out wrong. Where the rank is another one, they do not.
        """
        sizes = tuple(tensor.shape)
        if -1 in sizes or not 0 < min(sizes) < _FEW or len(sizes) == MAX_RANK or self.frozen(tensor) is not None:
            return False
        several = bool(mask & (mask - 1)) and self.dtype(tensor).is_floating_point
        return several or self.dtype(tensor) is torch.bfloat16

    def matmul(self, left: Any, right: Any, *, transpose: tuple[bool, bool] = (False, False)) -> Any:
        left, right = self._align(left, right)
        rows, columns = -1 - (not transpose[0]), -1 - transpose[1]
        if self.dtype(left) is torch.bfloat16 and 0 < left.shape[-3 - rows] < _FEW:
            # one row or column is a reduction to TensorRT-RTX, and wrong as `_is_fused_wrongly` says; two are not
            if left.shape[rows] == 1:
                return self._first(self._matmul(self.concat([left, left], rows), right, transpose), -2)
            if right.shape[columns] == 1:
                return self._first(self._matmul(left, self.concat([right, right], columns), transpose), -1)
        return self._matmul(left, right, transpose)

    def _first(self, tensor: Any, axis: int) -> Any:
        sizes = list(self.sizes(tensor))
        sizes[axis] = 1
        return self.slice(tensor, [0] * len(sizes), sizes, [1] * len(sizes))

    def _matmul(self, left: Any, right: Any, transpose: tuple[bool, bool]) -> Any:
        how = [self.trt.MatrixOperation.TRANSPOSE if t else self.trt.MatrixOperation.NONE for t in transpose]
        return self.add("matrix_multiply", left, how[0], right, how[1]).get_output(0)

    # --- shapes -----------------------------------------------------------------------------------------------------

    def reshape(self, tensor: Any, sizes: Sequence[Any]) -> Any:
        sizes = list(sizes)
        if all(isinstance(size, int) for size in sizes):
            zeros = 0 in sizes  # a zero means an empty axis here, not "as in the input"
            attributes: dict[str, Any] = {"zero_is_placeholder": False} if zeros else {}
            return self.add("shuffle", tensor, reshape_dims=tuple(sizes), **attributes).get_output(0)
        own = self.sizes(tensor)
        if -1 in sizes or all(self._sizes.bounds(size)[0] >= 1 for size in sizes):
            dims = [self._placeholder(size, place, own) for place, size in enumerate(sizes)]
            if dims.count(-1) <= 1:  # one unknown can be inferred, unless another may be 0
                return self.add("shuffle", tensor, reshape_dims=tuple(dims)).get_output(0)
        asked = self.size_tensor(sizes)
        return self.add("shuffle", tensor, inputs={1: asked}, zero_is_placeholder=False).get_output(0)

    def _placeholder(self, size: Any, place: int, own: Sequence[Any]) -> int:
        """0 for the input's own size at this place, an int for a static size, else -1."""
        if isinstance(size, int):
            return size
        return 0 if place < len(own) and own[place] is size else -1

    def permute(self, tensor: Any, order: Sequence[int]) -> Any:
        rank = len(tensor.shape)
        order = [axis % rank for axis in order]
        if sorted(order) != list(range(rank)):
            raise ValueError(f"{order} is no order of {rank} axes")
        if order == list(range(rank)):
            return tensor
        return self.add("shuffle", tensor, first_transpose=tuple(order)).get_output(0)

    def unsqueeze(self, tensor: Any, axes: Sequence[int]) -> Any:
        axes = [axis_of(axis, len(tensor.shape) + len(axes)) for axis in axes]
        if not axes:
            return tensor
        value = self.frozen(tensor)
        if value is not None:  # another constant of the same memory: TensorRT takes long to fold the layer into one
            rank = len(value.shape) + len(axes)
            sizes, added = iter(value.shape), {axis % rank for axis in axes}
            return self._network.constant(value.reshape([1 if axis in added else next(sizes) for axis in range(rank)]))
        return self.add("unsqueeze", tensor, self.constant(axes, torch.int64)).get_output(0)

    def squeeze(self, tensor: Any, axes: Sequence[int]) -> Any:
        axes = sorted(axis_of(axis, len(tensor.shape)) for axis in axes)
        if not axes:
            return tensor
        return self.add("squeeze", tensor, self.constant(axes, torch.int64)).get_output(0)

    def expand(self, tensor: Any, sizes: Sequence[Any]) -> Any:
        tensor = self._lift(tensor, len(sizes))
        own = self.sizes(tensor)
        wanted = [mine if isinstance(size, int) and size == -1 else size for size, mine in zip(sizes, own)]
        if all(_same(size, mine) for size, mine in zip(wanted, own)):
            return tensor
        stride = [0 if isinstance(mine, int) and mine == 1 else 1 for mine in own]
        return self.slice(tensor, [0] * len(own), wanted, stride)

    def slice(
        self,
        tensor: Any,
        start: Sequence[Any],
        size: Sequence[Any],
        stride: Sequence[Any],
        *,
        axes: Sequence[int] | None = None,
        fill: Any = None,
        **attributes: Any,
    ) -> Any:
        given = (list(start), list(size), list(stride))
        inputs = {
            number: self.size_tensor(part)
            for number, part in enumerate(given, 1)
            if not all(isinstance(item, int) for item in part)
        }
        static = [(0,) * len(part) if number in inputs else tuple(part) for number, part in enumerate(given, 1)]
        if fill is not None:
            inputs[4] = fill
            attributes["mode"] = self.trt.SampleMode.FILL
        if axes is not None:
            attributes["axes"] = tuple(axis_of(axis, len(tensor.shape)) for axis in axes)
        return self.add("slice", tensor, *static, inputs=inputs, **attributes).get_output(0)

    def concat(self, tensors: Sequence[Any], axis: int) -> Any:
        if len(tensors) == 1:
            return tensors[0]
        rank = len(tensors[0].shape)
        return self.add("concatenation", list(tensors), axis=axis_of(axis, rank)).get_output(0)

    def gather(self, tensor: Any, index: Any, axis: int) -> Any:
        return self.add("gather", tensor, index, axis_of(axis, len(tensor.shape))).get_output(0)

    def full(self, sizes: Sequence[Any], value: Any, dtype: torch.dtype) -> Any:
        element = self.constant(value, dtype) if isinstance(value, int | float) else self.cast(value, dtype)
        return self.expand(element, sizes)

    # --- conditionals and loops -------------------------------------------------------------------------------------

    def conditional(
        self, condition: Any, then: Callable[[], Sequence[Any]], otherwise: Callable[[], Sequence[Any]]
    ) -> tuple[Any, ...]:
        network = self._network
        condition = network.here(condition)
        conditional = network.region("if_conditional")
        network.boundary("condition", conditional.set_condition, condition)
        entries: dict[Any, Any] = {}
        sides = []
        for branch in (then, otherwise):
            with network.within(Region(conditional, entries)), self._sizes.scope():
                sides.append([network.here(result, boundary=True) for result in branch()])
        layers = [network.boundary("conditional_output", conditional.add_output, *pair) for pair in zip(*sides)]
        return tuple(layer.get_output(0) for layer in layers)

    def loop(
        self,
        step: Callable[[Sequence[Any], Sequence[Any]], tuple[Sequence[Any], Sequence[Any]]],
        states: Sequence[Any],
        *,
        condition: Callable[[Sequence[Any]], Any] | None = None,
        count: Any = None,
        sequences: Sequence[Any] = (),
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        network, limit = self._network, self.trt.TripLimit
        length = None if count is None else self.constant(count, torch.int64) if isinstance(count, int) else count
        loop = network.region("loop")
        shown = [self._as_data(state) for state in states]
        recurrences = [network.boundary("recurrence", loop.add_recurrence, state) for state in shown]
        elements = [network.boundary("iterator", loop.add_iterator, x).get_output(0) for x in sequences]
        if length is not None:
            network.boundary("trip_limit", loop.add_trip_limit, length, limit.COUNT)
        carried = [layer.get_output(0) for layer in recurrences]
        inside = Region(loop=loop, inside={*carried, *elements})
        with network.within(inside), self._sizes.scope():
            current = [self._of_rank(tensor, state) for tensor, state in zip(carried, states)]
            if condition is not None:
                goes_on = network.varying(condition(current), inside)
                network.boundary("trip_limit", loop.add_trip_limit, goes_on, limit.WHILE)
            following, collected = step(current, elements)
            for layer, tensor in zip(recurrences, following, strict=True):
                made = self._as_data(tensor)
                made = self.add("identity", made).get_output(0) if made in carried else made
                layer.set_input(1, network.varying(made, inside))
            collected = [network.varying(tensor, inside) for tensor in collected]
        kinds = self.trt.LoopOutput
        last = [network.boundary("loop_output", loop.add_loop_output, x, kinds.LAST_VALUE, 0) for x in carried]
        every = [
            network.boundary("loop_output", loop.add_loop_output, x, kinds.CONCATENATE, 0, length=length)
            for x in collected
        ]
        ended = tuple(self._of_rank(x.get_output(0), state) for x, state in zip(last, states))
        return ended, tuple(x.get_output(0) for x in every)

    def _as_data(self, state: Any) -> Any:
        """A loop's state, integers and bools as matrices at least.

        Those of fewer axes TensorRT may take for the size of something, where a size is dynamic: it then counts on the
        host, and ends too early, never, or with the number that it began with.
        """
        missing = 2 - len(state.shape)
        return state if missing <= 0 or self.dtype(state).is_floating_point else self.unsqueeze(state, range(missing))

    def _of_rank(self, tensor: Any, state: Any) -> Any:
        """What `_as_data` has made of a state, as it was."""
        extra = len(tensor.shape) - len(state.shape)
        return self.squeeze(tensor, range(extra)) if extra else tensor


def _same(size: Any, own: Any) -> bool:
    """Whether two sizes are equal, as far as is known without running the network."""
    return size is own or (isinstance(size, int) and isinstance(own, int) and size == own)


def axis_of(axis: int, rank: int) -> int:
    """An axis, which counts from the end where it is negative, counted from the start.

    Raises:
        IndexError: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise IndexError(f"axis {axis} of a tensor of {rank} dimensions")
    return axis % rank
