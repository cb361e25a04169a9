"""Which trtplug, torch and TensorRT there are."""

from __future__ import annotations

import importlib.metadata

import torch

from trtplug._tensorrt import library


def versions() -> dict[str, str]:
    """Of trtplug, torch and TensorRT, as they are here."""
    trt = library()
    return {
        "trtplug": importlib.metadata.version("trtplug"),
        "torch": torch.__version__,
        trt.__name__.replace("_", "-"): trt.__version__,
    }
