"""Implicit type promotion becomes casts, so that converters see operands of one dtype."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND as KIND  # an enum with a long name
from torch._prims_common import elementwise_dtypes

from trtplug_lowering_passes._nodes import argument, call_before, calls, positions, tensor_of, with_arguments
from trtplug_registry import lowering_pass

aten = torch.ops.aten

_CAST = aten._to_copy.default

# Not DEFAULT, which is about the dtype that kernels accumulate in (float32 for float16): operands meet in the result's.
_SAME = KIND.NO_OPMATH
_FLOAT = KIND.INT_TO_FLOAT

_PAIR = ("self", "other")
_PACKETS: Mapping[Any, tuple[tuple[str, ...], KIND]] = {
    **dict.fromkeys((aten.add, aten.sub, aten.mul, aten.rsub, aten.remainder, aten.fmod), (_PAIR, _SAME)),
    **dict.fromkeys((aten.maximum, aten.minimum, aten.fmax, aten.fmin), (_PAIR, _SAME)),
    **dict.fromkeys((aten.floor_divide, aten.bitwise_and, aten.bitwise_or, aten.bitwise_xor), (_PAIR, _SAME)),
    **dict.fromkeys((aten.__and__, aten.__or__, aten.__xor__), (_PAIR, _SAME)),
    **dict.fromkeys((aten.eq, aten.ne, aten.lt, aten.le, aten.gt, aten.ge), (_PAIR, _SAME)),
    **dict.fromkeys((aten.greater, aten.greater_equal, aten.less, aten.less_equal, aten.not_equal), (_PAIR, _SAME)),
    **dict.fromkeys((aten.true_divide, aten.atan2, aten.arctan2, aten.copysign, aten.xlogy), (_PAIR, _FLOAT)),
    aten.where: (_PAIR, _SAME),
    aten.pow: (("self", "exponent"), _SAME),
    aten.clamp: (("self", "min", "max"), _SAME),
    aten.clamp_min: (("self", "min"), _SAME),
    aten.clamp_max: (("self", "max"), _SAME),
    aten.addcmul: (("self", "tensor1", "tensor2"), _SAME),
    aten.addcdiv: (("self", "tensor1", "tensor2"), _FLOAT),
    aten.cat: (("tensors",), _SAME),
    aten.concat: (("tensors",), _SAME),
    aten.stack: (("tensors",), _SAME),
    **dict.fromkeys(
        (
            *(aten.sqrt, aten.rsqrt, aten.exp, aten.exp2, aten.expm1, aten.log, aten.log2, aten.log10, aten.log1p),
            *(aten.sin, aten.cos, aten.tan, aten.asin, aten.acos, aten.atan, aten.sinh, aten.cosh, aten.tanh),
            *(aten.asinh, aten.acosh, aten.atanh, aten.sigmoid, aten.erf, aten.reciprocal),
        ),
        (("self",), _FLOAT),
    ),
}
"""Which arguments meet in one dtype, and how that dtype is found. Any overload whose schema has these arguments."""

_REDUCTIONS = frozenset({aten.sum, aten.prod, aten.cumsum, aten.cumprod})
"""Sums of integers and booleans are int64: they cast before they add."""


@lowering_pass("type-promotion", after=["no-ops"], expansions=True)
def promote_types(graph_module: fx.GraphModule) -> bool:
    """Casts each tensor operand to the dtype that Torch computes in. Python numbers stay, results keep their dtype.

        i: int64[4] ─┐                   i ─ _to_copy(float32) ─┐
        f: float32[] ─ mul: float32[4] → f ───────────────────── mul

    By Torch's rules: dimensions before 0-d tensors before Python numbers; true division, ``exp`` and the like of
    integers are float; comparisons compare in the common dtype.
    """
    casts: dict[tuple[fx.Node, torch.dtype], fx.Node] = {}
    known: dict[Any, Any] = {}
    changed = False
    for node in calls(graph_module.graph):
        common = _common_dtype(node, known)
        if common is None:
            continue
        names, dtype = common

        def cast(value: Any, node: fx.Node = node, dtype: torch.dtype = dtype) -> Any:
            if isinstance(value, list | tuple):
                return [cast(item, node, dtype) for item in value]
            tensor = tensor_of(value)
            if tensor is None or tensor.dtype == dtype:
                return value
            key = (value, dtype)
            if key not in casts:
                text = str(dtype).removeprefix("torch.")
                casts[key] = call_before(node, _CAST, value, name=f"{value.name}_{text}", dtype=dtype)
            return casts[key]

        with_arguments(node, lambda name, value: cast(value) if name in names else value)  # noqa: B023
        changed = True
    return changed


def _common_dtype(node: fx.Node, known: dict[Any, Any]) -> tuple[tuple[str, ...], torch.dtype] | None:
    """The arguments to cast and their dtype; None where there is nothing to promote, or where it is not certain.

    `known` holds what was found for operands of the same dtypes, and is added to.
    """
    target, result = node.target, tensor_of(node)
    assert isinstance(target, OpOverload)
    rule = _rule(target)
    if result is None or rule is None:
        return None
    names, kind = rule
    operands = [operand for name in names for operand in _operands(argument(node, name))]
    alike = result.dtype != torch.bool
    for operand in operands:
        if operand is None:
            return None  # an operand without metadata
        alike = alike and not (isinstance(operand, torch.Tensor) and operand.dtype != result.dtype)
    if alike:  # as nearly always
        return None
    packet = target.overloadpacket
    if packet is aten.div and "rounding_mode" in positions(target):
        kind = _FLOAT if argument(node, "rounding_mode") is None else _SAME
    if packet in _REDUCTIONS:
        # an explicit dtype is an argument of its own, which converters read
        dtype = result.dtype if argument(node, "dtype") is None else operands[0].dtype
    else:
        dtype = _promoted(operands, kind, known)
        # where Torch's result is something else than this rule says, the rule does not describe the op
        if result.dtype not in (dtype, torch.bool):
            return None
    return (names, dtype) if any(isinstance(x, torch.Tensor) and x.dtype != dtype for x in operands) else None


def _promoted(operands: list[Any], kind: KIND, known: dict[Any, Any]) -> torch.dtype:
    """The dtype that operands meet in, which follows from their dtypes, from which are 0-d, and from numbers' types."""
    key = (kind, *((x.dtype, x.dim() == 0) if isinstance(x, torch.Tensor) else type(x) for x in operands))
    if key not in known:
        known[key] = elementwise_dtypes(*operands, type_promotion_kind=kind)[1]
    dtype: torch.dtype = known[key]
    return dtype


@functools.cache
def _rule(target: OpOverload) -> tuple[tuple[str, ...], KIND] | None:
    packet = target.overloadpacket
    if packet in _REDUCTIONS:
        return ("self",), _SAME
    rule = (_PAIR, _FLOAT) if packet is aten.div else _PACKETS.get(packet)
    if rule is None or any(name not in positions(target) for name in rule[0]):
        return None
    return rule


def _operands(value: Any) -> list[Any]:
    """What takes part in promotion: tensors, and numbers for their kind. An absent bound takes no part."""
    if isinstance(value, list | tuple):
        return [operand for item in value for operand in _operands(item)]
    if isinstance(value, fx.Node):
        return [value.meta.get("val")]
    return [] if value is None else [value]
