"""The built-in converters: ATen ops into TensorRT layers, one module per op family.

A plugin like any other: it imports only the contract, and arrives through the entry-point group ``trtplug``.
"""

from __future__ import annotations

import importlib

from trtplug_registry import CONTRACT, Converter

trtplug_contract = CONTRACT

FAMILIES = (
    "shape",
    "joining",
    "slicing",
    "indexing",
    "selecting",
    "unique",
    "scatter",
    "creation",
    "attention",
    "unary",
    "activation",
    "binary",
    "power",
    "compare",
    "cast",
    "linear",
    "reduction",
    "ranking",
    "softmax",
    "normalization",
    "batch_norm",
    "group_norm",
    "convolution",
    "pooling",
    "sampling",
    "quantization",
    "control",
)


def trtplug_converters() -> tuple[Converter, ...]:
    """Every family's converters."""
    modules = (importlib.import_module(f"{__name__}.{family}") for family in FAMILIES)
    return tuple(converter for module in modules for converter in module.CONVERTERS)
