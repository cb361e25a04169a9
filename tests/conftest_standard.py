"""TensorRT with the layer NON_ZERO, as far as converters and the reference executor go."""

from __future__ import annotations

from typing import Any

import torch

import trtplug
from trtplug._tensorrt import capabilities
from trtplug.testing import run_op
from trtplug_registry import DATA_DEPENDENT_SHAPES


class Standard:
    """What standard TensorRT would say of itself."""

    version = "standard"

    def has(self, name: str) -> bool:
        return name == DATA_DEPENDENT_SHAPES or capabilities().has(name)


def check(op: Any, *args: Any) -> None:
    """A call of an op gives what eager gives, in dtype, shape and values."""
    results = run_op(trtplug.registry().having(capabilities=Standard()), op, args)
    expected = op(*args)
    torch.testing.assert_close(results, expected if isinstance(expected, tuple) else (expected,), equal_nan=True)
