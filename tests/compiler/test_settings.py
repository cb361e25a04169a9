"""Settings: a misspelt option suggests the right one, a wrong value says what it may be."""

from __future__ import annotations

import pytest

from trtplug.errors import SettingsError
from trtplug.settings import Settings
from trtplug_registry import UnknownNameError


def test_defaults():
    assert Settings.of({}) == Settings()


def test_lists_become_tuples():
    assert Settings.of({"torch_ops": ["aten::add"]}).torch_ops == ("aten::add",)
    assert Settings.of({"torch_ops": (name for name in ["aten::add"])}).torch_ops == ("aten::add",)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"min_blok_size": 3}, UnknownNameError, "unknown option 'min_blok_size': did you mean 'min_block_size'"),
        ({"min_block_size": 0}, SettingsError, "must be at least 1"),
        ({"min_block_size": "3"}, SettingsError, "must be an int"),
        ({"min_block_size": True}, SettingsError, "must be an int"),
        ({"torch_ops": "aten::add"}, SettingsError, "must be a list of names"),
        ({"torch_ops": None}, SettingsError, "torch_ops=None: must be a list of names"),
        ({"disable_passes": 5}, SettingsError, "disable_passes=5: must be a list of names"),
        ({"prefer": {"a": 1}}, SettingsError, "must be a list of names"),
        ({"block": [1]}, SettingsError, r"block=\(1,\): must be a list of names"),
        ({"on_failure": "ignore"}, SettingsError, "must be one of fallback, raise"),
        ({"workspace_bytes": -1}, SettingsError, "must be positive"),
        ({"weight_budget_bytes": 5}, SettingsError, "has no effect without weight_streaming=True"),
        ({"weight_streaming": True, "weight_budget_bytes": -1}, SettingsError, "must be 0 or more"),
        ({"weight_check": "always"}, SettingsError, "must be one of auto, version, data"),
        ({"tf32": "yes"}, SettingsError, "must be a bool"),
    ],
)
def test_wrong_options(options, error, words):
    with pytest.raises(error, match=words):
        Settings.of(options)
