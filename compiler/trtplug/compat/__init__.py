"""Converters that were written for Torch-TensorRT, as objects that a trtplug plugin returns.

    from trtplug.compat import dynamo_tensorrt_converter          # was: torch_tensorrt.dynamo.conversion

    @dynamo_tensorrt_converter(torch.ops.aten.erf.default, supports_dynamic_shapes=True)
    def erf(ctx, target, args, kwargs, name):
        return ctx.net.add_unary(args[0], trt.UnaryOperation.ERF).get_output(0)

    def trtplug_converters():
        return [erf]

Nothing is registered by importing. What such a converter takes is what its validator says, of which nothing else is
known: no calls can be drawn, so ``trtplug certify`` calls it unproven unless ``trtplug_examples()`` shows it at work.
"""

from __future__ import annotations

import enum
from typing import Any

from trtplug.compat.converters import dynamo_tensorrt_converter

__all__ = ["ConverterPriority", "dynamo_tensorrt_converter", "trt"]


class ConverterPriority(enum.IntEnum):
    """Torch-TensorRT's two priorities."""

    STANDARD = 0
    HIGH = 1


def __getattr__(name: str) -> Any:
    """``trt``: the TensorRT module that trtplug has chosen, imported when it is first asked for."""
    if name == "trt":
        from trtplug._tensorrt import library

        return library()
    raise AttributeError(f"module 'trtplug.compat' has no attribute {name!r}")
