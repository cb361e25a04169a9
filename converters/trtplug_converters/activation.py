"""Activations, clamps, and dropout, which does nothing at inference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from trtplug_converters.pointwise import (
    elementwise,
    in_dtype,
    is_number,
    keeps_dtype,
    rounding_once,
)
from trtplug_registry import (
    FLOATS,
    INTS,
    NUMBERS,
    Choose,
    Converter,
    Domain,
    Only,
    Optional,
    Relation,
    Static,
    Tensor,
    broadcastable,
    converter,
    converter_table,
    same_dtype,
)

aten = torch.ops.aten

HARD_SIGMOID = {"alpha": 1 / 6, "beta": 0.5}
SOFTPLUS = {"alpha": 1.0, "beta": 1.0}
SELU = {"alpha": 1.6732632423543772848170429916717, "beta": 1.0507009873554804934193349852946}

FINITE = Static(
    -torch.finfo(torch.float32).max,
    torch.finfo(torch.float32).max,
    because="TensorRT's activations take finite parameters alone",
)

# --- one layer ----------------------------------------------------------------------------------------------------


@converter(aten.relu.default, Domain(self=Tensor(NUMBERS)))
def relu(ctx: Any, self: Any) -> Any:
    """relu(Tensor self) -> Tensor

    One activation layer, for integers too.
    """
    return ctx.activation("RELU", self)


# eager's kernels disagree on what becomes of infinities, by dtype and size
LARGEST = (FINITE.lo, FINITE.hi)


@converter(aten.gelu.default, Domain(self=Tensor(FLOATS, values=LARGEST), approximate=Only("none", "tanh")))
def gelu(ctx: Any, self: Any, *, approximate: str = "none") -> Any:
    """gelu(Tensor self, *, str approximate='none') -> Tensor

    One activation layer, GELU_ERF or GELU_TANH. Halves are written out and rounded once, as in eager: the layer
    computes parts of it in halves, and takes longer after a product (ViT-B/16 in all 3.69 instead of 3.56 ms, with tanh
    GPT-2 0.564 instead of 0.536).
    """
    sigmoid, kind = (_gelu_erf, "GELU_ERF") if approximate == "none" else (_gelu_tanh, "GELU_TANH")
    if ctx.dtype(self) == torch.float32:
        return ctx.activation(kind, self)
    return rounding_once(ctx, lambda x: _gelu(ctx, x, sigmoid(ctx, x)), self)


def _gelu(ctx: Any, x: Any, sigmoid: Any) -> Any:
    """x / 2 (1 + sigmoid)."""
    return ctx.elementwise("PROD", ctx.elementwise("PROD", x, 0.5), ctx.elementwise("SUM", sigmoid, 1.0))


def _gelu_erf(ctx: Any, x: Any) -> Any:
    """erf(x / √2)."""
    return ctx.unary("ERF", ctx.elementwise("PROD", x, math.sqrt(0.5)))


def _gelu_tanh(ctx: Any, x: Any) -> Any:
    """tanh(√(2/π) (x + 0.044715 x³))."""
    factor = math.sqrt(2 / math.pi)
    slope = ctx.elementwise("SUM", ctx.elementwise("PROD", ctx.elementwise("PROD", x, x), 0.044715 * factor), factor)
    return ctx.activation("TANH", ctx.elementwise("PROD", x, slope))


@converter(aten.leaky_relu.default, Domain(self=Tensor(FLOATS), negative_slope=FINITE))
def leaky_relu(ctx: Any, self: Any, negative_slope: Any = 0.01) -> Any:
    """leaky_relu(Tensor self, Scalar negative_slope=0.01) -> Tensor

    One activation layer.
    """
    return ctx.activation("LEAKY_RELU", self, alpha=float(negative_slope))


@converter(aten.selu.default, Domain(self=Tensor(FLOATS)))
def selu(ctx: Any, self: Any) -> Any:
    """selu(Tensor self) -> Tensor

    One activation layer.
    """
    return ctx.activation("SELU", self, **SELU)


@converter(aten.hardsigmoid.default, Domain(self=Tensor(FLOATS)), keeps_nan=False)
def hardsigmoid(ctx: Any, self: Any) -> Any:
    """hardsigmoid(Tensor self) -> Tensor

    One activation layer: x / 6 + 1 / 2, clipped to 0 … 1.
    """
    return ctx.activation("HARD_SIGMOID", self, **HARD_SIGMOID)


# --- several layers -----------------------------------------------------------------------------------------------


def silu(ctx: Any, x: Any) -> Any:
    """x sigmoid(x)."""
    return ctx.elementwise("PROD", x, ctx.activation("SIGMOID", x))


def hardswish(ctx: Any, x: Any) -> Any:
    """x clip(x + 3, 0, 6) / 6, in eager's order."""
    clipped = ctx.activation("CLIP", ctx.elementwise("SUM", x, 3.0), alpha=0.0, beta=6.0)
    return ctx.elementwise("DIV", ctx.elementwise("PROD", x, clipped), 6.0)


def mish(ctx: Any, x: Any) -> Any:
    """x tanh(softplus(x))."""
    softened = ctx.activation("SOFTPLUS", x, **SOFTPLUS)
    return ctx.elementwise("PROD", x, ctx.activation("TANH", softened))


@converter_table(
    {aten.silu.default: silu, aten.hardswish.default: hardswish, aten.mish.default: mish}, Domain(self=Tensor(FLOATS))
)
def gated(compute: Callable[[Any, Any], Any], ctx: Any, self: Any) -> Any:
    """silu(Tensor self) -> Tensor

    The tensor times its gate, in float32 for half types.
    """
    return rounding_once(ctx, lambda x: compute(ctx, x), self)


def finite_slope() -> Relation:
    """The coefficient of an ELU's negative part, which is the layer's parameter."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        if not _is_finite(call["alpha"] * call["scale"]):
            call["alpha"], call["scale"] = 1.5, choose.one_of((1.0, 2.0, -0.5))

    return Relation(
        "alpha times scale finite in float32",
        ("alpha", "scale"),
        lambda call: _is_finite(call["alpha"] * call["scale"]),
        arrange,
        FINITE.reason("range"),
    )


def _is_finite(number: float) -> bool:
    return abs(number) <= FINITE.hi


@converter(
    aten.elu.default,
    Domain(
        finite_slope(),
        self=Tensor(FLOATS),
        alpha=Static(),
        scale=Static(),
        input_scale=Static(lo=0, because="TensorRT's ELU takes the exponential of negative inputs alone"),
    ),
)
def elu(ctx: Any, self: Any, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1) -> Any:
    """elu(Tensor self, Scalar alpha=1, Scalar scale=1, Scalar input_scale=1) -> Tensor

    One activation layer; with scales, a choice by sign between the input's multiple and the layer.
    """

    def compute(x: Any) -> Any:
        inner = x if input_scale == 1 else ctx.elementwise("PROD", x, input_scale)
        below = ctx.activation("ELU", inner, alpha=float(alpha * scale))
        if scale == 1 and input_scale == 1:
            return below
        above = x if scale == 1 else ctx.elementwise("PROD", x, scale)
        return ctx.select(ctx.elementwise("LESS", x, 0.0), below, above)  # 0 times an infinite input_scale is not seen

    return rounding_once(ctx, compute, self)


OVERFLOW = math.log(torch.finfo(torch.float32).max)


def _steep(call: dict[str, Any], choose: Choose) -> None:
    """At times a slope and a threshold between which eager's exponential overflows."""
    if choose.integer(0, 3) == 0:
        call["beta"], call["threshold"] = choose.one_of((30.0, 100.0, -100.0)), 1000.0


STEEP = Relation("thresholds beyond what overflows", ("beta", "threshold"), arrange=_steep)


@converter(aten.softplus.default, Domain(STEEP, self=Tensor(FLOATS), beta=Static(), threshold=Static()))
def softplus(ctx: Any, self: Any, beta: Any = 1, threshold: Any = 20) -> Any:
    """softplus(Tensor self, Scalar beta=1, Scalar threshold=20) -> Tensor

    log(1 + e^(beta x)) / beta, and x itself where beta x is above the threshold.
    """

    def compute(x: Any) -> Any:
        inner = x if beta == 1 else ctx.elementwise("PROD", x, beta)
        soft = ctx.activation("SOFTPLUS", inner, **SOFTPLUS)
        if threshold > OVERFLOW:  # eager's exponential overflows here, the layer's does not
            soft = ctx.select(ctx.elementwise("GREATER", inner, OVERFLOW), math.inf, soft)
        soft = soft if beta == 1 else ctx.elementwise("DIV", soft, beta)
        return ctx.select(ctx.elementwise("GREATER", inner, threshold), x, soft)

    return rounding_once(ctx, compute, self)


# --- clamps -------------------------------------------------------------------------------------------------------

BOUND = Static(because="versions of Torch answer a bound of NaN differently")


def clipped(ctx: Any, x: Any, low: Any, high: Any) -> Any:
    """Within [low, high], either of which may be None; the upper bound wins where they cross."""
    plain = all(is_number(bound) and math.isfinite(bound) for bound in (low, high))
    if plain and ctx.dtype(x) in FLOATS:
        return ctx.activation("CLIP", x, alpha=float(low), beta=float(high))
    x = x if low is None else elementwise(ctx, "MAX", x, low)
    return x if high is None else elementwise(ctx, "MIN", x, high)


def some_bound(otherwise: Callable[[dict[str, Any]], Any]) -> Relation:
    """min and max are not both None (eager demands it)."""

    def arrange(call: dict[str, Any], choose: Choose) -> None:
        if call["min"] is None and call["max"] is None:
            call[choose.one_of(("min", "max"))] = otherwise(call)

    return Relation("min or max", ("min", "max"), None, arrange)


@converter(
    aten.clamp.default,
    Domain(
        some_bound(lambda call: 1),
        keeps_dtype("min", "max"),
        self=Tensor(NUMBERS),
        min=Optional(BOUND),
        max=Optional(BOUND),
    ),
    keeps_nan=False,
)
def clamp(ctx: Any, self: Any, min: Any = None, max: Any = None) -> Any:
    """clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor

    CLIP of floats between numbers; else MAX, then MIN.
    """
    low, high = in_dtype(ctx, self, min, max)[1:]
    if low is not None and high is not None and low > high:
        low = high  # where they cross, eager's result is the upper one and that of TensorRT's CLIP the lower
    return clipped(ctx, self, low, high)


@converter(aten.clamp_min.default, Domain(keeps_dtype("min"), self=Tensor(NUMBERS), min=BOUND), keeps_nan=False)
def clamp_min(ctx: Any, self: Any, min: Any) -> Any:
    """clamp_min(Tensor self, Scalar min) -> Tensor

    MAX.
    """
    return elementwise(ctx, "MAX", *in_dtype(ctx, self, min))


@converter(aten.clamp_max.default, Domain(keeps_dtype("max"), self=Tensor(NUMBERS), max=BOUND), keeps_nan=False)
def clamp_max(ctx: Any, self: Any, max: Any) -> Any:
    """clamp_max(Tensor self, Scalar max) -> Tensor

    MIN.
    """
    return elementwise(ctx, "MIN", *in_dtype(ctx, self, max))


@converter(
    aten.clamp.Tensor,
    Domain(
        some_bound(lambda call: call["self"]),
        same_dtype("self", "min", "max"),
        broadcastable("self", "min", "max"),
        self=Tensor(),
        min=Optional(Tensor()),
        max=Optional(Tensor()),
    ),
    keeps_nan=False,
)
def clamp_between(ctx: Any, self: Any, min: Any = None, max: Any = None) -> Any:
    """clamp.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor

    MAX, then MIN; of bools OR, then AND.
    """
    return clipped(ctx, self, min, max)


@converter(
    aten.clamp_min.Tensor,
    Domain(same_dtype("self", "min"), broadcastable("self", "min"), self=Tensor(), min=Tensor()),
    keeps_nan=False,
)
def clamp_above(ctx: Any, self: Any, min: Any) -> Any:
    """clamp_min.Tensor(Tensor self, Tensor min) -> Tensor

    MAX.
    """
    return elementwise(ctx, "MAX", self, min)


@converter(
    aten.clamp_max.Tensor,
    Domain(same_dtype("self", "max"), broadcastable("self", "max"), self=Tensor(), max=Tensor()),
    keeps_nan=False,
)
def clamp_below(ctx: Any, self: Any, max: Any) -> Any:
    """clamp_max.Tensor(Tensor self, Tensor max) -> Tensor

    MIN.
    """
    return elementwise(ctx, "MIN", self, max)


@converter(aten.relu6.default, Domain(self=Tensor(NUMBERS)), keeps_nan=False)
def relu6(ctx: Any, self: Any) -> Any:
    """relu6(Tensor self) -> Tensor

    CLIP to 0 … 6.
    """
    return clipped(ctx, self, 0, 6)


@converter(aten.hardtanh.default, Domain(self=Tensor(NUMBERS), min_val=Static(), max_val=Static()), keeps_nan=False)
def hardtanh(ctx: Any, self: Any, min_val: Any = -1, max_val: Any = 1) -> Any:
    """hardtanh(Tensor self, Scalar min_val=-1, Scalar max_val=1) -> Tensor

    CLIP; of integers MAX, then MIN, with bounds truncated to integers as in eager.
    """
    if ctx.dtype(self) in INTS:
        min_val, max_val = int(min_val), int(max_val)
    return clipped(ctx, self, min_val, max_val)


# --- dropout ------------------------------------------------------------------------------------------------------


@converter_table(
    dict.fromkeys(
        (
            aten.dropout.default,
            aten.alpha_dropout.default,
            aten.feature_dropout.default,
            aten.feature_alpha_dropout.default,
        )
    ),
    Domain(
        input=Tensor(),
        p=Static(lo=0, hi=1),
        train=Only(False, because="dropout in training is random"),
    ),
)
def dropout(row: None, ctx: Any, input: Any, p: float, train: bool) -> Any:
    """dropout(Tensor input, float p, bool train) -> Tensor

    The tensor itself.
    """
    return input


CONVERTERS: tuple[Converter, ...] = (
    relu,
    gelu,
    leaky_relu,
    selu,
    hardsigmoid,
    *gated,
    elu,
    softplus,
    clamp,
    clamp_min,
    clamp_max,
    clamp_between,
    clamp_above,
    clamp_below,
    relu6,
    hardtanh,
    *dropout,
)
