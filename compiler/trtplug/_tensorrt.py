"""The one module that knows which TensorRT there is, and how its versions differ.

`library()` imports it on first use: `tensorrt_rtx` by default, standard `tensorrt` where the environment variable
``TRTPLUG_TENSORRT=tensorrt`` asks for it.
"""

from __future__ import annotations

import functools
import importlib
import os
from types import ModuleType
from typing import Any

import torch

from trtplug.errors import SettingsError
from trtplug_registry import DATA_DEPENDENT_SHAPES, TrtplugError

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
def version() -> tuple[int, ...]:
    """The version of the TensorRT at hand, as numbers."""
    return tuple(int(part) for part in str(library().__version__).split(".") if part.isdigit())


@functools.cache
def heeds_override() -> bool:
    """Whether ``NVIDIA_TF32_OVERRIDE`` keeps float32 products from TF32. Not in TensorRT-RTX 1.4: `trtplug.tf32`."""
    return library().__name__ != "tensorrt_rtx" or version() >= (1, 5)


@functools.cache
def configured_contexts_have_profiles() -> bool:
    """Whether a context that was made with a runtime config can be given another optimization profile.

    TensorRT-RTX 1.4 ends the process then (without a config it can), 1.6 does not.
    """
    return library().__name__ != "tensorrt_rtx" or version() >= (1, 5)


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


# The class of each kind of layer. `get_layer` hands out a plain ILayer; assigning the wrong class is unchecked memory
# misuse, so the only way to a class is this table, keyed by the layer's own kind.
_LAYER_CLASSES = {
    "ACTIVATION": "IActivationLayer",
    "ASSERTION": "IAssertionLayer",
    "ATTENTION_INPUT": "IAttentionInputLayer",
    "ATTENTION_OUTPUT": "IAttentionOutputLayer",
    "CAST": "ICastLayer",
    "CONCATENATION": "IConcatenationLayer",
    "CONDITION": "IConditionLayer",
    "CONDITIONAL_INPUT": "IIfConditionalInputLayer",
    "CONDITIONAL_OUTPUT": "IIfConditionalOutputLayer",
    "CONSTANT": "IConstantLayer",
    "CONVOLUTION": "IConvolutionLayer",
    "CUMULATIVE": "ICumulativeLayer",
    "DECONVOLUTION": "IDeconvolutionLayer",
    "DEQUANTIZE": "IDequantizeLayer",
    "DYNAMIC_QUANTIZE": "IDynamicQuantizeLayer",
    "EINSUM": "IEinsumLayer",
    "ELEMENTWISE": "IElementWiseLayer",
    "FILL": "IFillLayer",
    "GATHER": "IGatherLayer",
    "GRID_SAMPLE": "IGridSampleLayer",
    "IDENTITY": "IIdentityLayer",
    "ITERATOR": "IIteratorLayer",
    "KV_CACHE_UPDATE": "IKVCacheUpdateLayer",
    "LOOP_OUTPUT": "ILoopOutputLayer",
    "LRN": "ILRNLayer",
    "MATRIX_MULTIPLY": "IMatrixMultiplyLayer",
    "NMS": "INMSLayer",
    "NON_ZERO": "INonZeroLayer",
    "NORMALIZATION": "INormalizationLayer",
    "ONE_HOT": "IOneHotLayer",
    "PADDING": "IPaddingLayer",
    "PARAMETRIC_RELU": "IParametricReLULayer",
    "POOLING": "IPoolingLayer",
    "QUANTIZE": "IQuantizeLayer",
    "RAGGED_SOFTMAX": "IRaggedSoftMaxLayer",
    "RECURRENCE": "IRecurrenceLayer",
    "REDUCE": "IReduceLayer",
    "RESIZE": "IResizeLayer",
    "REVERSE_SEQUENCE": "IReverseSequenceLayer",
    "ROTARY_EMBEDDING": "IRotaryEmbeddingLayer",
    "SCALE": "IScaleLayer",
    "SCATTER": "IScatterLayer",
    "SELECT": "ISelectLayer",
    "SHAPE": "IShapeLayer",
    "SHUFFLE": "IShuffleLayer",
    "SLICE": "ISliceLayer",
    "SOFTMAX": "ISoftMaxLayer",
    "SQUEEZE": "ISqueezeLayer",
    "TOPK": "ITopKLayer",
    "TRIP_LIMIT": "ITripLimitLayer",
    "UNARY": "IUnaryLayer",
    "UNSQUEEZE": "IUnsqueezeLayer",
}


def typed_layer(layer: Any) -> tuple[str, Any]:
    """The name of a layer's kind (`LayerType` member) and the layer as the class of that kind.

    A kind this module does not know keeps its plain class, which has only the attributes common to all layers.
    The kind must be read first: activation and pooling layers have a ``type`` of their own.
    """
    if type(layer) is not library().ILayer:  # typed already: the layer is still referred to elsewhere
        return next(kind for kind, name in _LAYER_CLASSES.items() if name == type(layer).__name__), layer
    kind = layer.type.name
    class_name = _LAYER_CLASSES.get(kind, "")
    if hasattr(library(), class_name):
        layer.__class__ = getattr(library(), class_name)
    return kind, layer


def read_dims(layer: Any, attribute: str) -> list[int] | None:
    """A layer's Dims as a list; None where they are unset.

    Unset Dims read as None or raise RuntimeError (1.7), or read as a Dims whose length raises ValueError (1.4).
    """
    try:
        dims = getattr(layer, attribute, None)
        return None if dims is None else list(dims)
    except (RuntimeError, ValueError):
        return None


def times_kernels() -> bool:
    """Whether a build runs kernels on the GPU to choose among them. TensorRT-RTX chooses when an engine is loaded."""
    return library().__name__ != "tensorrt_rtx"


def check_streaming() -> None:
    """
    Raises:
        SettingsError: this TensorRT cannot stream weights.
    """
    names = ("BuilderFlag.WEIGHT_STREAMING", "ICudaEngine.weight_streaming_budget_v2")
    if not all(capabilities().has(name) for name in names):
        raise SettingsError(f"weight_streaming: TensorRT {library().__version__} has none; leave it out")


_ENGINE_FACTS = {
    "device_memory": ("device_memory_size_v2", "device_memory_size"),  # the second before TensorRT 10.1
    "streamable_weights": ("streamable_weights_size",),
    "aux_streams": ("num_aux_streams",),
}


def engine_facts(engine: Any) -> dict[str, int]:
    """What a loaded engine says of itself, by our names: bytes of device memory and so on; nothing of what it lacks."""
    found = {}
    for name, attributes in _ENGINE_FACTS.items():
        there = next((attribute for attribute in attributes if hasattr(engine, attribute)), None)
        if there is not None:
            found[name] = int(getattr(engine, there))
    return found


def serialized(builder: Any, definition: Any, config: Any) -> bytes | None:
    """The engine of a network as bytes, or None where TensorRT refuses it.

    Where TensorRT can write to a stream, it holds the engine once and not beside a copy of it.
    """
    if not hasattr(builder, "build_serialized_network_to_stream"):
        plan = builder.build_serialized_network(definition, config)
        return None if plan is None else bytes(plan)
    writer = _writer()
    done = builder.build_serialized_network_to_stream(definition, config, writer)
    return b"".join(writer.parts) if done and writer.parts else None  # of one part, which is usual, join makes no copy


def _writer() -> Any:
    trt = library()

    class Writer(trt.IStreamWriter):  # type: ignore[name-defined,misc]  # the class is known at run time only
        """Keeps what is written. Called from C++: never raises."""

        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)
            self.parts: list[bytes] = []

        def write(self, data: bytes) -> int:
            self.parts.append(bytes(data))  # no copy of bytes
            return len(data)

    return Writer()


class _Capabilities:
    """Which names the TensorRT at hand has; see `trtplug_registry.Capabilities`. Imports it when first asked."""

    @property
    def version(self) -> str:
        return str(library().__version__)

    @functools.cache  # noqa: B019  one object, few names
    def has(self, name: str) -> bool:
        if name == DATA_DEPENDENT_SHAPES:  # TensorRT-RTX declares the layer and has no implementation of it
            return library().__name__ != "tensorrt_rtx" and self.has("INetworkDefinition.add_non_zero")
        found: Any = library()
        for part in name.split("."):
            found = getattr(found, part, None)
            if found is None:
                return False
        return True


@functools.cache
def capabilities() -> _Capabilities:
    """What the TensorRT at hand can do."""
    return _Capabilities()
