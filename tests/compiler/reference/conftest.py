"""Whose answers the expectations written by hand are held against."""

from __future__ import annotations

import pytest
import torch
from handmade import Handmade


@pytest.fixture(
    params=[
        "reference",
        pytest.param(
            "tensorrt",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
        ),
    ]
)
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test twice: on the reference executor and, where there is a GPU for it, on an engine of TensorRT's."""
    if request.param == "tensorrt":
        monkeypatch.setattr(Handmade, "run", Handmade.run_on_engine)
    return str(request.param)
