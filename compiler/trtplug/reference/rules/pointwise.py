"""Constants, casts, elementwise arithmetic, activations, fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node
from torch.nn import functional

from trtplug._tensorrt import read_dims
from trtplug.reference.semantics import checks, pointwise
from trtplug.reference.site import Rule, Site, value_dtype

ELEMENTWISE: Mapping[str, Callable[..., Any]] = {
    "SUM": torch.add,
    "SUB": torch.sub,
    "PROD": torch.mul,
    "DIV": pointwise.divide,
    "FLOOR_DIV": pointwise.floor_divide,
    "POW": pointwise.power,
    "MAX": torch.maximum,
    "MIN": torch.minimum,
    "AND": torch.logical_and,
    "OR": torch.logical_or,
    "XOR": torch.logical_xor,
    "EQUAL": torch.eq,
    "GREATER": torch.gt,
    "LESS": torch.lt,
}

UNARY: Mapping[str, Callable[..., Any]] = {
    "ABS": torch.abs,
    "ACOS": torch.acos,
    "ACOSH": torch.acosh,
    "ASIN": torch.asin,
    "ASINH": torch.asinh,
    "ATAN": torch.atan,
    "ATANH": torch.atanh,
    "CEIL": torch.ceil,
    "COS": torch.cos,
    "COSH": torch.cosh,
    "ERF": torch.erf,
    "EXP": torch.exp,
    "FLOOR": torch.floor,
    "ISINF": torch.isinf,
    "ISNAN": torch.isnan,
    "LOG": torch.log,
    "NEG": torch.neg,
    "NOT": torch.logical_not,
    "RECIP": torch.reciprocal,
    "ROUND": torch.round,
    "SIGN": pointwise.sign,
    "SIN": torch.sin,
    "SINH": torch.sinh,
    "SQRT": torch.sqrt,
    "TAN": torch.tan,
}

# the function, then which of the layer's two parameters it takes
ACTIVATION: Mapping[str, tuple[Callable[..., Any], str]] = {
    "RELU": (torch.relu, ""),
    "SIGMOID": (torch.sigmoid, ""),
    "TANH": (torch.tanh, ""),
    "LEAKY_RELU": (functional.leaky_relu, "alpha"),
    "ELU": (functional.elu, "alpha"),
    "SELU": (pointwise.selu, "alpha beta"),
    "SOFTSIGN": (functional.softsign, ""),
    "SOFTPLUS": (pointwise.softplus, "alpha beta"),
    "CLIP": (pointwise.clip, "alpha beta"),
    "HARD_SIGMOID": (pointwise.hard_sigmoid, "alpha beta"),
    "SCALED_TANH": (pointwise.scaled_tanh, "alpha beta"),
    "THRESHOLDED_RELU": (pointwise.thresholded_relu, "alpha"),
    "GELU_ERF": (pointwise.gelu_erf, ""),
    "GELU_TANH": (pointwise.gelu_tanh, ""),
}


def constant(site: Site) -> Node:
    shape = site.static("shape")
    tensor = site.reader.read(site.layer, "", site.handle.weights)
    tensor = torch.empty(0, dtype=site.out_dtype()) if tensor is None else tensor
    if tensor.dtype is not site.out_dtype() or tensor.numel() != torch.Size(shape).numel():
        raise site.refuse(
            f"the weight table holds {tensor.dtype} {list(tensor.shape)}, the network {site.out_dtype()} {shape}"
        )
    return site.buffer("", tensor.reshape(shape))


def identity(site: Site) -> Node:
    return site.node(0)


def cast(site: Site) -> Node:
    return site.move(pointwise.cast, site.node(0), site.out_dtype())


def select(site: Site) -> Node:
    return site.move(torch.where, *site.nodes())


def elementwise(site: Site) -> Node:
    return site.compute(ELEMENTWISE[site.handle.op.name], *site.nodes())


def unary(site: Site) -> Node:
    return site.compute(UNARY[site.handle.op.name], site.node(0))


def activation(site: Site) -> Node:
    function, parameters = ACTIVATION[site.handle.type.name]
    return site.compute(function, site.node(0), *(getattr(site.handle, name) for name in parameters.split()))


def parametric_relu(site: Site) -> Node:
    return site.compute(pointwise.parametric_relu, *site.nodes())


def scale(site: Site) -> Node:
    dims = site.dims(0)
    mode = site.handle.mode.name
    shape = [1] * len(dims) if mode == "UNIFORM" else dims
    if mode == "CHANNEL":
        shape = [-1 if axis == site.handle.channel_axis else 1 for axis in range(len(dims))]
    factor, shift, power = (site.weights(role, shape) for role in ("scale", "shift", "power"))
    return site.compute(pointwise.scale, site.node(0), factor, shift, power)


def fill(site: Site) -> Node:
    if site.handle.operation.name != "LINSPACE":
        raise site.refuse(f"{site.handle.operation.name} is random")
    dtype = value_dtype(site.layer.outputs[0], site.layer.name, site.layer.kind)
    given = site.has(1) and site.has(2)
    if site.has(0) or given:
        shape = site.ints(0) if site.has(0) else site.static("shape")
        start, delta = (site.node(1), site.node(2)) if given else (site.handle.alpha, [site.handle.beta])
        return site.move(pointwise.linspace, shape, start, delta, dtype)
    shape = read_dims(site.handle, "shape") or []
    return site.buffer("", pointwise.linspace(shape, site.handle.alpha, [site.handle.beta], dtype))


def assertion(site: Site) -> Node:
    return site.move(checks.assert_all, site.node(0), site.handle.message)


RULES: Mapping[str, Rule] = {
    "ACTIVATION": activation,
    "ASSERTION": assertion,
    "CAST": cast,
    "CONSTANT": constant,
    "ELEMENTWISE": elementwise,
    "FILL": fill,
    "IDENTITY": identity,
    "PARAMETRIC_RELU": parametric_relu,
    "SCALE": scale,
    "SELECT": select,
    "UNARY": unary,
}
