"""What Torch's own tags say of an op that keeps it out of a TensorRT engine, whoever might want to convert it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch._ops import HigherOrderOperator, OpOverload

_TAGS: Mapping[torch.Tag, str] = {
    torch.Tag.nondeterministic_seeded: "it draws from Torch's random generator, which an engine does not reach",
    torch.Tag.data_dependent_output: "it hands a value to Python, which cannot happen inside an engine",
    torch.Tag.dynamic_output_shape: "the shape of its result depends on values, not only on the inputs' shapes",
}

_COLLECTIVES = frozenset({"_c10d_functional", "_c10d_functional_autograd", "c10d", "c10d_functional", "_dtensor"})
"""Namespaces of ops in which processes wait for each other."""

_OWN = frozenset({"aten", "prims", "quantized_decomposed"})
"""Namespaces of Torch's own ops."""

_COMPLEX = (
    "_fft_",
    "fft_",
    "complex",
    "polar",
    "view_as_complex",
    "view_as_real",
    "real",
    "imag",
    "conj",
    "_conj",
    "stft",
    "istft",
)
"""How the names of ops on complex numbers begin."""


def is_collective(op: object) -> bool:
    """Whether an op exchanges data with other processes.

    All of them must call it, in one order; so it is never left out, merged with another, or put before one that it came
    after, whatever its result depends on.
    """
    return isinstance(op, OpOverload) and op.namespace in _COLLECTIVES


def has_data_dependent_shape(op: object) -> bool:
    """Whether the shape of an op's result depends on values."""
    return isinstance(op, OpOverload) and torch.Tag.dynamic_output_shape in op.tags


def nature(op: OpOverload | HigherOrderOperator) -> str:
    """Why an op is hard or impossible to convert by what it is, in words, or ""."""
    if isinstance(op, HigherOrderOperator):
        return ""
    if is_collective(op):
        return "processes exchange data by it, which happens between engines"
    for tag, words in _TAGS.items():
        if tag in op.tags:
            return words
    if not op._schema.returns:
        return "it checks and returns nothing, which no engine can do: it runs beside the engines"
    if op._schema.is_mutable:
        return "it writes to its arguments; lowering makes values of such writes where it can"
    if op._schema.name.endswith(("_backward", "_backward_data")):
        return "it computes a gradient; engines are for inference"
    if op._schema.name.partition("::")[2].startswith(_COMPLEX):
        return "its numbers are complex, and TensorRT has no type for them"
    if op.namespace not in _OWN:
        return f"it is an op of the library {op.namespace!r}, which a plugin may convert or decompose"
    return ""
