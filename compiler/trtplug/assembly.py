"""The registry of one compilation, from every plugin that is installed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trtplug._tensorrt import capabilities
from trtplug.collector import collector_paused
from trtplug.control import located
from trtplug.settings import Settings
from trtplug.turns import assembling_turn
from trtplug_registry import PluginManager, Registry, UnknownNameError


def registry(
    *,
    prefer: Sequence[str] | None = None,
    block: Sequence[str] | None = None,
    torch_ops: Sequence[str] | None = None,
    strict_plugins: bool | None = None,
    disable_passes: Sequence[str] = (),
    enable_passes: Sequence[str] = (),
    pass_order: Sequence[str] = (),
) -> Registry:
    """Assembles a registry from every installed plugin. What is None is taken from the environment, and then from
    ``pyproject.toml``: see `trtplug.control`.

    Args:
        prefer: names of plugins whose converters come first.
        block: names of plugins that are not even imported.
        torch_ops: ops and module paths that stay in Torch.
        strict_plugins: raise where a plugin would be disabled with a warning.
        disable_passes: ids (``"plugin:name"``) of lowering passes that do not run.
        enable_passes: ids of those that run although a plugin disables them.
        pass_order: ``"plugin:one < other:two"``: the first runs before the second, whatever anybody else says.

    Raises:
        UnknownNameError: a name does not exist.
        PassOrderError: the lowering passes cannot be ordered as the user says.
        PluginError: under ``strict_plugins``.
    """
    given = {"prefer": prefer, "block": block, "torch_ops": torch_ops, "strict_plugins": strict_plugins}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    passes = {"disable_passes": disable_passes, "enable_passes": enable_passes, "pass_order": pass_order}
    return registry_for(Settings.of({**options, **passes}))


@collector_paused()
def registry_for(settings: Settings) -> Registry:
    """The registry that a compilation with these settings uses; see `registry`."""
    manager = PluginManager(block=settings.block, strict=settings.strict_plugins)
    try:
        with assembling_turn():
            manager.load_entry_points()
            manager.settle_passes(
                disable=settings.disable_passes, enable=settings.enable_passes, order=settings.pass_order
            )
        return Registry(
            manager.plugins,
            prefer=settings.prefer,
            exclude=settings.torch_ops,
            capabilities=capabilities(),
            disable_passes=settings.disable_passes,
            enable_passes=settings.enable_passes,
            pass_order=settings.pass_order,
            blocked=manager.blocked,
        )
    except UnknownNameError as error:
        raise located(error) from None
