"""What the pointwise families share: operands that are tensors or numbers, and one rounding for a chain of layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node

from trtplug_converters._shared import HALVES, widened
from trtplug_registry import (
    Choose,
    ConverterContext,
    Either,
    NetworkTensor,
    Operand,
    Relation,
    Size,
    Static,
    SymbolicSize,
    Tensor,
    TensorFacts,
)

NUMBER = Either(Static(nan=True), Size())
"""A Python number, or a symbolic size."""

# the layers that do not take bools, and what they mean for them
_LOGICAL: Mapping[str, str] = {"SUM": "OR", "PROD": "AND", "MAX": "OR", "MIN": "AND"}


def operand(dtypes: tuple[torch.dtype, ...], because: str = "") -> Either:
    """A tensor of these dtypes, or a number in its place: ``x + 2`` is ``aten.add.Tensor(x, 2)`` in a graph."""
    return Either(Tensor(dtypes, because=because), *NUMBER.options)


# --- relations ----------------------------------------------------------------------------------------------------


def some_tensor(dtypes: tuple[torch.dtype, ...], *names: str) -> Relation:
    """At least one of the operands is a tensor (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        if not any(isinstance(call[name], TensorFacts) for name in names):
            call[choose.one_of(names)] = TensorFacts((choose.integer(1, 3), 2), choose.one_of(dtypes))

    return Relation("a tensor among the operands", names, None, arrange)


def keeps_dtype(*names: str, beside: tuple[str, ...] = ("self",)) -> Relation:
    """The numbers do not promote the tensors: no float beside integers, and nothing but bools beside bools.

    Args:
        names: the arguments that are or may be numbers.
        beside: the arguments that are or may be tensors.
    """

    def promoting(call: Mapping[str, Any]) -> list[str]:
        dtype = next((call[name].dtype for name in beside if isinstance(call[name], TensorFacts)), torch.float32)
        return [name for name in names if _kind(call[name]) > _kind_of_dtype(dtype)]

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        is_bool = any(isinstance(call[name], TensorFacts) and call[name].dtype == torch.bool for name in beside)
        for name in promoting(call):
            call[name] = choose.boolean() if is_bool else choose.integer(-4, 4)

    return Relation(
        f"{' and '.join(names)} of a kind that leaves the tensor's dtype as it is",
        tuple(dict.fromkeys((*names, *beside))),
        lambda call: not promoting(call),
        arrange,
        "the lowering makes promotion explicit, and no layer promotes",
    )


def _kind(value: Any) -> int:
    """0 for bools, 1 for integers, 2 for floats; tensors and None promote nothing here."""
    if isinstance(value, bool | TensorFacts) or value is None:
        return 0
    return 1 if isinstance(value, int | SymbolicSize) else 2


def _kind_of_dtype(dtype: torch.dtype) -> int:
    return 2 if dtype.is_floating_point else 0 if dtype == torch.bool else 1


# --- operands -----------------------------------------------------------------------------------------------------


def is_number(value: Operand) -> bool:
    return isinstance(value, int | float)


def is_symbolic(ctx: ConverterContext, place: int) -> bool:
    """Whether the argument at this place of the call is a symbolic number, and no tensor."""
    argument = ctx.node.args[place] if place < len(ctx.node.args) else None
    return isinstance(argument, Node) and not isinstance(argument.meta["val"], torch.Tensor)


def tensor_dtype(ctx: ConverterContext, *values: Operand) -> torch.dtype:
    """The dtype of the first tensor among a call's leading arguments."""
    found = (
        ctx.dtype(value)
        for place, value in enumerate(values)
        if value is not None and not is_number(value) and not is_symbolic(ctx, place)
    )
    return next(found)


def in_dtype(ctx: ConverterContext, *values: Operand) -> list[Operand]:
    """A call's leading arguments, its numbers as they are in the tensors' dtype, as eager rounds and wraps them."""
    dtype = tensor_dtype(ctx, *values)
    return [
        number_in(value, dtype) if is_number(value) else ctx.cast(value, dtype) if is_symbolic(ctx, place) else value
        for place, value in enumerate(values)
    ]


def number_in(number: float, dtype: torch.dtype) -> float:
    """A number as an element of this dtype; a float beside integers stays one, for `ConverterContext` to refuse."""
    if dtype.is_floating_point:
        return torch.tensor(number, dtype=dtype).item()
    if dtype == torch.bool or isinstance(number, float):
        return number
    limits = torch.iinfo(dtype)
    return (int(number) - limits.min) % (1 << limits.bits) + limits.min


def precise(ctx: ConverterContext, *values: Operand) -> list[Operand]:
    """A call's leading arguments in float32, where a half type would lose digits of the numbers among them.

    Eager computes a half tensor and a number in float32, without rounding the number first.
    """
    dtype = tensor_dtype(ctx, *values)
    rounded = in_dtype(ctx, *values)
    if dtype not in HALVES or all(
        value == own if is_number(value) else not is_symbolic(ctx, place)
        for place, (value, own) in enumerate(zip(values, rounded, strict=True))
    ):
        return rounded
    return [value if is_number(value) else ctx.cast(value, torch.float32) for value in values]


# --- layers -------------------------------------------------------------------------------------------------------


def elementwise(ctx: ConverterContext, op: str, left: Operand, right: Operand) -> NetworkTensor:
    """An elementwise layer; a sum, product or extremum of bools is the logical one."""
    dtype = ctx.dtype(right if is_number(left) else left)
    return ctx.elementwise(_LOGICAL.get(op, op) if dtype == torch.bool else op, left, right)


def rounding_once(
    ctx: ConverterContext, compute: Callable[[Any], NetworkTensor], tensor: NetworkTensor
) -> NetworkTensor:
    """``compute(tensor)`` by several layers, in float32 where the tensor is of a half type, as eager does."""
    return ctx.cast(compute(widened(ctx, tensor)), ctx.dtype(tensor))


def truncated(ctx: ConverterContext, tensor: NetworkTensor) -> NetworkTensor:
    """Floats without their fractions; -0.5 becomes -0.0, and nan stays."""
    negative = ctx.elementwise("LESS", tensor, 0.0)
    return ctx.select(negative, ctx.unary("CEIL", tensor), ctx.unary("FLOOR", tensor))
