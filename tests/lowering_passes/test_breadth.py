"""What is beyond core ATen: each call runs whole in TensorRT and computes what eager does, or is left with a reason."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from breadth_calls import FAMILIES, LEFT, calls, evaluate, operands
from torch import nn

import trtplug

TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
OTHERS = (torch.float16, torch.bfloat16, torch.int32) if os.environ.get("TRTPLUG_LAWS") == "nightly" else ()
DTYPES = (torch.float32, torch.int64, torch.bool, *OTHERS)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # eager's about betas, defaults and deprecations


class Calls(nn.Module):
    """Some calls at once, so that one engine serves them all."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__()
        self.texts = texts

    def forward(self, given: dict[str, Any]) -> dict[str, Any]:
        return {text: evaluate(text, given) for text in self.texts}


def taken(family: str, dtype: torch.dtype) -> tuple[list[str], dict[str, Any]]:
    """What eager takes, and with what results."""
    results = {}
    for text in calls(family):
        try:
            results[text] = evaluate(text, operands(dtype))
        except (RuntimeError, IndexError, TypeError, ValueError):
            continue
    return list(results), results


def is_left(text: str, dtype: torch.dtype) -> bool:
    return text in LEFT and LEFT[text].holds(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_whole(family: str, dtype: torch.dtype) -> None:
    texts, expected = taken(family, dtype)
    texts = [text for text in texts if not is_left(text, dtype)]
    if not texts:
        pytest.skip("eager takes none in this dtype")
    given = operands(dtype)
    compiled = trtplug.compile(Calls(texts), (given,), min_block_size=1)
    assert not compiled.report.torch_ops, str(compiled.report)
    assert len(compiled.report.engines) <= 1
    tolerance = TOLERANCE.get(dtype, 2e-5)
    results = compiled(given)
    for text in texts:
        torch.testing.assert_close(
            results[text],
            expected[text],
            rtol=tolerance,
            atol=tolerance,
            equal_nan=True,
            msg=lambda words, text=text: f"{text}: {words}",
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_left_says_why(dtype: torch.dtype) -> None:
    for family in FAMILIES:
        for text in taken(family, dtype)[0]:
            if is_left(text, dtype):
                report = trtplug.explain(Calls([text]), (operands(dtype),))
                reasons = " ".join(str(reason) for op in report.torch_ops for reason in op.reasons)
                assert LEFT[text].because in reasons, f"{text}: {reasons or 'it is whole'}"


def test_every_call_left_is_a_call() -> None:
    assert set(LEFT) <= {text for family in FAMILIES for text in calls(family)}
