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
NIGHTLY = os.environ.get("TRTPLUG_LAWS") == "nightly"
DTYPES = (torch.float32, torch.int64, torch.bool, *((torch.float16, torch.bfloat16, torch.int32) if NIGHTLY else ()))
HEAVY = ("torch.pow(x, y)", "torch.pow(2, x)", "torch.gcd(x, y)", "torch.lcm(x, y)")
"""Hundreds of layers for each, of int64; what they compute is tried without an engine, too."""
MATHS = ("unary", "binary")
"""Their bools become numbers first."""

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
    if not NIGHTLY and dtype != torch.float32:
        texts = [text for text in texts if text not in HEAVY and not (dtype == torch.bool and family in MATHS)]
    if not texts:
        pytest.skip("eager takes none in this dtype, or they are for the nightly run")
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


WHOLE_SIZES = (
    *("n // 2", "n % 3", "-n", "n**2", "n * 3 - 1", "n >> 1", "n << 1", "n & 1", "abs(3 - n)", "round(n / 2)"),
    *("torch.sym_max(n, 4)", "torch.sym_min(n, 7)", "torch.sym_sum([n, n, 2])", "torch.sym_ite(n > 3, n, n + 1)"),
    *("math.floor(n / 2)", "math.ceil(n / 3)", "math.trunc(n / 2)", "torch.sym_int(n * 0.5)"),
)
BROKEN_SIZES = ("n / 2", "torch.sym_float(n) * 0.5", "torch.sym_sqrt(n)", "math.pow(n, 0.5)")


class Sizes(nn.Module):
    """Adds what is computed of a symbolic size to a tensor."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        super().__init__()
        self.texts = texts

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {text: x.sum() + evaluate(text, {"n": x.shape[0]}) for text in self.texts}


def test_arithmetic_on_sizes() -> None:
    dynamic = ({0: torch.export.Dim("n", min=2, max=64)},)
    compiled = trtplug.compile(Sizes(WHOLE_SIZES), (torch.ones(6, 2),), dynamic_shapes=dynamic, min_block_size=1)
    assert not compiled.report.torch_ops, str(compiled.report)
    for count in (2, 5, 9):
        x = torch.rand(count, 2)
        torch.testing.assert_close(compiled(x), Sizes(WHOLE_SIZES)(x))
    report = trtplug.explain(Sizes(BROKEN_SIZES), (torch.ones(6, 2),), dynamic_shapes=dynamic)
    assert len(report.torch_ops) >= len(BROKEN_SIZES)  # sums with numbers that are not whole
    assert all("SymFloat" in str(op.reasons) for op in report.torch_ops if op.op == "aten::add.Tensor")


def test_every_call_left_is_a_call() -> None:
    assert set(LEFT) <= {text for family in FAMILIES for text in calls(family)}
