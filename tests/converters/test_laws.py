"""Every law, over every converter of every installed plugin.

``-k relu`` picks by op; ``TRTPLUG_LAWS=nightly`` tries more, and ``TRTPLUG_LAWS_SECONDS=2`` at most so long each.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch.ao.quantization.fx._decomposed  # noqa: F401  # registers the ops of quantized_decomposed

import trtplug
from trtplug.pytest_plugin import EXAMPLES
from trtplug.testing import LawCase, NotApplicableError, check_registry, law_cases


@pytest.mark.parametrize("case", law_cases(trtplug.registry()), ids=str)
def test_law(case: LawCase, record_property: Callable[[str, object], None]) -> None:
    try:
        record_property(EXAMPLES, case.check())
    except NotApplicableError as error:
        pytest.skip(str(error))


def test_registration_order_does_not_matter() -> None:
    check_registry(trtplug.registry())
