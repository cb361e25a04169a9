"""Every law of trtplug's test kit, on everything that acme-ops brings."""

from __future__ import annotations

import pytest

from trtplug.testing import NotApplicableError, PluginCase, plugin_cases


@pytest.mark.parametrize("case", plugin_cases("acme-ops"), ids=str)
def test_law(case: PluginCase) -> None:
    try:
        case.check()
    except NotApplicableError as error:
        pytest.skip(str(error))
