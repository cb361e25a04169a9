"""What can go wrong in the reference executor."""

from __future__ import annotations

from trtplug_registry import TrtplugError


class UnsupportedLayer(TrtplugError):
    """The network holds something that the reference executor does not model, met while lifting."""

    def __init__(self, layer: str, kind: str, why: str) -> None:
        self.layer, self.kind, self.why = layer, kind, why
        super().__init__(f"layer {layer!r} ({kind}): {why}")


class MissingWeights(TrtplugError):
    """Weights that the bindings cannot hand out (bfloat16, fp8, int4) are not in the weight table."""

    def __init__(self, layer: str, key: str, dtype: str) -> None:
        self.layer, self.key, self.dtype = layer, key, dtype
        super().__init__(
            f"layer {layer!r}: TensorRT does not hand {dtype} weights back, and the weight table has no {key!r}; "
            f"pass them to lift() under that name"
        )


class LayerError(TrtplugError):
    """A layer could not be run: its inputs break a rule of TensorRT's, or its result is not what TensorRT inferred."""

    def __init__(self, layer: str, kind: str, why: str) -> None:
        self.layer, self.kind, self.why = layer, kind, why
        super().__init__(f"layer {layer!r} ({kind}): {why}")
