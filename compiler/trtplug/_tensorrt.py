"""The one module that knows which TensorRT there is, and how its versions differ.

`library()` imports it on first use: `tensorrt_rtx` by default, standard `tensorrt` where the environment variable
``TRTPLUG_TENSORRT=tensorrt`` asks for it.
"""

from __future__ import annotations

import functools
import importlib
import os
from types import ModuleType

import torch

from trtplug_registry import TrtplugError

FLAVOURS = {"tensorrt_rtx": "tensorrt-rtx", "tensorrt": "tensorrt"}  # module: distribution on PyPI

# TensorRT's name for each dtype that both sides know
_DTYPE_NAMES = {
    torch.float32: "FLOAT",
    torch.float16: "HALF",
    torch.bfloat16: "BF16",
    torch.int64: "INT64",
    torch.int32: "INT32",
    torch.int8: "INT8",
    torch.uint8: "UINT8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "FP8",
}


class TensorRTUnavailable(TrtplugError):
    """TensorRT cannot be imported, or the environment names one that does not exist."""


@functools.cache
def library() -> ModuleType:
    """The TensorRT module, imported on first use."""
    name = os.environ.get("TRTPLUG_TENSORRT", "tensorrt_rtx").replace("-", "_")
    if name not in FLAVOURS:
        raise TensorRTUnavailable(f"TRTPLUG_TENSORRT={name!r}: choose one of {sorted(FLAVOURS)}")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TensorRTUnavailable(
            f"cannot import {name} ({error}); install it with: pip install {FLAVOURS[name]}"
        ) from error


@functools.cache
def _dtype_tables() -> tuple[dict[torch.dtype, object], dict[object, torch.dtype]]:
    enum = library().DataType
    there = {ours: getattr(enum, name) for ours, name in _DTYPE_NAMES.items() if hasattr(enum, name)}
    return there, {theirs: ours for ours, theirs in there.items()}


def trt_dtype(dtype: torch.dtype) -> object:
    """TensorRT's `DataType` for a Torch dtype; KeyError where TensorRT has none."""
    return _dtype_tables()[0][dtype]


def torch_dtype(dtype: object) -> torch.dtype:
    """The Torch dtype for TensorRT's `DataType`; KeyError where Torch has none."""
    return _dtype_tables()[1][dtype]
