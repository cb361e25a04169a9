"""What the package of the contract exports, each name loaded when it is first used."""

from __future__ import annotations

import trtplug_registry


def test_every_name_is_found_and_no_other():
    assert sorted(trtplug_registry._MODULE_OF) == sorted(trtplug_registry.__all__) == dir(trtplug_registry)
    assert not [name for name in trtplug_registry.__all__ if getattr(trtplug_registry, name) is None]


def test_no_module_takes_the_place_of_what_is_exported():
    """Importing a module sets an attribute of its name, which must be none of ours."""
    assert not {*trtplug_registry._MODULE_OF.values()} & {
        f"trtplug_registry.{name}" for name in trtplug_registry.__all__
    }
