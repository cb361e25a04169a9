"""The laws over the converters of torchao's own ops, which exist once it is imported."""

from __future__ import annotations

import contextlib
import warnings

import pytest

import trtplug
from trtplug.testing import NotApplicableError, law_cases

OPS = ("quantize_affine_float8_non_decomposed", "dequantize_affine_float8_non_decomposed")


@pytest.mark.parametrize("op", OPS)
def test_laws(op):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao's own
        pytest.importorskip("torchao.quantization.quant_primitives", reason="needs torchao: pip install torchao")
    cases = [case for case in law_cases(trtplug.registry()) if f"torchao::{op}-" in str(case)]
    assert len(cases) >= 7
    for case in cases:
        with contextlib.suppress(NotApplicableError):
            case.check()
