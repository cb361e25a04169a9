"""What a converter may do: the protocol that the compiler's checked builder implements.

A backend other than TensorRT offers a context of its own; the registry, the domains and the partitioner never look
inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch.fx import Node

from trtplug_registry.facts import TensorFacts

NetworkTensor: TypeAlias = Any
"""A tensor of the network under construction (TensorRT's ``ITensor``)."""

NetworkSize: TypeAlias = Any
"""A size: an int where it is known, else a 0-d int64 `NetworkTensor`."""

NetworkBody: TypeAlias = Any
"""A graph that a converter is given for a `Body` argument: for `ConverterContext.inline`, and nothing else."""

Operand: TypeAlias = Any
"""A `NetworkTensor`, or a Python number that becomes a constant of the other operand's dtype."""


class ConverterContext(Protocol):
    """The route from a converter into the network. Every layer is checked as it is added.

    A converter receives each tensor argument as a `NetworkTensor`, each symbolic integer as a `NetworkSize`, and
    everything else as it stands in the graph. It returns one `NetworkTensor`, or a tuple of them in the order of the
    op's results, None standing for a result that the domain declares unused.

    Every method raises the compiler's `ConversionError`, which carries TensorRT's own message, the op, the node and the
    model's source line.
    """

    @property
    def trt(self) -> Any:
        """The TensorRT module, for its enums."""

    @property
    def node(self) -> Node:
        """The FX node being converted. Read only."""

    @property
    def outputs(self) -> tuple[TensorFacts, ...]:
        """What the node must compute: shape and dtype of each of its tensor results."""

    def add(
        self,
        kind: str,
        *args: Any,
        inputs: Mapping[int, Any] | None = None,
        keywords: Mapping[str, Any] | None = None,
        **attributes: Any,
    ) -> Any:
        """Adds a layer: ``network.add_<kind>(*args, **keywords)``, then sets inputs by number and attributes by name.

        Returns the layer; its results are ``layer.get_output(i)``.
        """

    def constant(self, value: Any, dtype: torch.dtype | None = None) -> NetworkTensor:
        """A constant from a number, a nested sequence or a ``torch.Tensor``; shape () for a number."""

    def frozen(self, tensor: NetworkTensor) -> torch.Tensor | None:
        """The value of a tensor that is known at compile time (on the CPU), else None."""

    def facts(self, tensor: NetworkTensor) -> TensorFacts:
        """Shape (an int, or -1 where dynamic) and dtype, as TensorRT infers them."""

    def dtype(self, tensor: NetworkTensor) -> torch.dtype: ...

    def rank(self, tensor: NetworkTensor) -> int: ...

    def sizes(self, tensor: NetworkTensor) -> tuple[NetworkSize, ...]:
        """Each dimension's size: int where static, else a 0-d int64 tensor."""

    def shape(self, tensor: NetworkTensor) -> NetworkTensor:
        """The shape as an int64 tensor of shape (rank,)."""

    def size_tensor(self, sizes: Sequence[NetworkSize]) -> NetworkTensor:
        """Sizes as one int64 tensor of shape (len(sizes),)."""

    def size_math(self, op: str, left: NetworkSize, right: NetworkSize) -> NetworkSize:
        """Arithmetic on sizes by the name of an ``ElementWiseOperation``.

        No layer is made where ints, or what values the sizes can have, decide the result.
        """

    def cast(self, tensor: NetworkTensor, dtype: torch.dtype) -> NetworkTensor:
        """The tensor in another dtype; itself where it has that dtype already."""

    def unary(self, op: str, tensor: NetworkTensor) -> NetworkTensor:
        """A ``UnaryOperation`` by name."""

    def activation(self, op: str, tensor: NetworkTensor, **attributes: float) -> NetworkTensor:
        """An ``ActivationType`` by name, with ``alpha=`` and ``beta=`` where it has them."""

    def elementwise(self, op: str, left: Operand, right: Operand) -> NetworkTensor:
        """An ``ElementWiseOperation`` by name, operands of one dtype; broadcasts as Torch does, across ranks too."""

    def select(self, condition: NetworkTensor, if_true: Operand, if_false: Operand) -> NetworkTensor:
        """Elementwise choice by a bool tensor; broadcasts as Torch does, across ranks too."""

    def reduce(self, op: str, tensor: NetworkTensor, axes: Sequence[int], keepdim: bool) -> NetworkTensor:
        """A ``ReduceOperation`` by name over non-negative or negative axes; over no axis, the tensor itself."""

    def matmul(
        self, left: NetworkTensor, right: NetworkTensor, *, transpose: tuple[bool, bool] = (False, False)
    ) -> NetworkTensor:
        """Matrix product of the last two axes, leading axes broadcast; optionally of the operands' transposes."""

    def reshape(self, tensor: NetworkTensor, sizes: Sequence[NetworkSize]) -> NetworkTensor:
        """Row-major reshape. At most one size may be -1."""

    def permute(self, tensor: NetworkTensor, order: Sequence[int]) -> NetworkTensor: ...

    def unsqueeze(self, tensor: NetworkTensor, axes: Sequence[int]) -> NetworkTensor:
        """Axes of size 1, at these places of the result, from its end where negative."""

    def squeeze(self, tensor: NetworkTensor, axes: Sequence[int]) -> NetworkTensor:
        """Without these axes, counted from the end where negative, each of size 1."""

    def expand(self, tensor: NetworkTensor, sizes: Sequence[NetworkSize]) -> NetworkTensor:
        """Broadcast to these sizes, -1 keeping a size; leading axes are added where there are more sizes than axes."""

    def slice(
        self,
        tensor: NetworkTensor,
        start: Sequence[NetworkSize],
        size: Sequence[NetworkSize],
        stride: Sequence[NetworkSize],
        *,
        axes: Sequence[int] | None = None,
        fill: NetworkTensor | None = None,
        **attributes: Any,
    ) -> NetworkTensor:
        """``size`` elements from ``start`` in steps of ``stride``, one entry per axis, or per one of ``axes``.

        What lies outside is an error, or ``fill`` (a 0-d tensor) where it is given, or as the attribute ``mode`` says.
        """

    def concat(self, tensors: Sequence[NetworkTensor], axis: int) -> NetworkTensor: ...

    def gather(self, tensor: NetworkTensor, index: NetworkTensor, axis: int) -> NetworkTensor:
        """``tensor.take(index)`` along an axis: the axis is replaced by the index's axes."""

    def full(self, sizes: Sequence[NetworkSize], value: Operand, dtype: torch.dtype) -> NetworkTensor:
        """A tensor of these sizes, every element the same."""

    def inline(self, body: NetworkBody, operands: Sequence[NetworkTensor | NetworkSize]) -> tuple[NetworkTensor, ...]:
        """Converts a body's nodes, in place of its inputs the operands. Returns its results."""

    def conditional(
        self,
        condition: NetworkTensor,
        then: Callable[[], Sequence[NetworkTensor]],
        otherwise: Callable[[], Sequence[NetworkTensor]],
    ) -> tuple[NetworkTensor, ...]:
        """The results of one of two branches, whose layers the functions add; the other branch is not run.

        The condition is bool of shape (). The branches' results are equal in number, dtypes and shapes.
        """

    def loop(
        self,
        step: Callable[
            [Sequence[NetworkTensor], Sequence[NetworkTensor]], tuple[Sequence[NetworkTensor], Sequence[NetworkTensor]]
        ],
        states: Sequence[NetworkTensor],
        *,
        condition: Callable[[Sequence[NetworkTensor]], NetworkTensor] | None = None,
        count: NetworkSize | None = None,
        sequences: Sequence[NetworkTensor] = (),
    ) -> tuple[tuple[NetworkTensor, ...], tuple[NetworkTensor, ...]]:
        """A loop, whose layers `step` adds: from the states, and one element of each sequence, to the next states.

        Args:
            step: also returns what is collected in each iteration.
            states: at the start; their dtypes and shapes stay.
            condition: bool of shape (), from the states before each iteration; the loop ends where it is false.
            count: of iterations, where there is no condition.
            sequences: tensors whose first axis is as long as `count`.

        Returns:
            The states at the end, and what was collected along a new first axis (only with a `count`).
        """
