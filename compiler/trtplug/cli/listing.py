"""The plugin list, as data and as a table."""

from __future__ import annotations

import warnings
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trtplug_registry import PluginManager, PluginWarning


def plugin_rows() -> list[dict[str, Any]]:
    """One row per installed plugin; disabled ones say why in ``error``."""
    manager = PluginManager()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # the table says it
        manager.load_entry_points()
    return [
        {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "converters": len(plugin.converters),
            "passes": [item.name for item in plugin.passes],
            "decompositions": len(plugin.decompositions),
            "executors": [item.name for item in plugin.executors],
            "seconds": round(plugin.seconds, 4),
            "error": plugin.error,
        }
        for plugin in manager.plugins
    ]


def print_plugins(rows: list[dict[str, Any]]) -> None:
    table = Table(title="Plugins", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("name", "distribution", "converters", "passes", "decomp.", "executors", "state"):
        numeric = name in ("converters", "passes", "decomp.")
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=name == "name")
    for row in rows:
        state = f"[red]disabled: {escape(row['error'])}[/red]" if row["error"] else "[green]loaded[/green]"
        table.add_row(
            row["name"],
            f"{row['distribution']} {row['version']}",
            str(row["converters"] or "–"),
            str(len(row["passes"]) or "–"),
            str(row["decompositions"] or "–"),
            ", ".join(row["executors"]) or "–",
            state,
        )
    Console().print(table)
