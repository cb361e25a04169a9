"""The plugins that are installed here, as data and as a table: what each brings, and how they get on."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trtplug_registry import Converter, Plugin, PluginManager, PluginWarning, Registry, qualified_name


def assembled() -> tuple[PluginManager, Registry]:
    """The plugins and the registry of a compilation with no options, plugins that fail being disabled in silence.

    Raises:
        UnknownNameError, PassOrderError: what environment or ``pyproject.toml`` choose is not there, or has no order.
    """
    from trtplug._tensorrt import capabilities
    from trtplug.control import located
    from trtplug.settings import Settings
    from trtplug_registry import UnknownNameError

    settings = Settings.of({})
    manager = PluginManager(block=settings.block)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PluginWarning)  # the listing says it
            manager.load_entry_points()
            manager.settle_passes()
        registry = Registry(
            manager.plugins,
            prefer=settings.prefer,
            exclude=settings.torch_ops,
            capabilities=capabilities(),
            blocked=manager.blocked,
        )
    except UnknownNameError as error:
        raise located(error) from None
    return manager, registry


def plugin_rows(manager: PluginManager, registry: Registry) -> list[dict[str, Any]]:
    """One row per installed plugin; disabled ones say why in ``error``, and what to do in ``advice``."""
    rows = [_row(plugin, registry) for plugin in manager.plugins]
    rows += [{**_row(Plugin(name), registry), "state": "blocked"} for name in manager.blocked]
    return sorted(rows, key=lambda row: str(row["name"]))


def _row(plugin: Plugin, registry: Registry) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "built_in": plugin.built_in,
        "contract": plugin.contract,
        "state": "disabled" if plugin.error else "loaded",
        "converters": [{"id": c.id, "name": c.name, "priority": c.priority} for c in plugin.converters],
        "passes": [item.id for item in plugin.passes],
        "decompositions": sorted(qualified_name(op) for op in plugin.decompositions),
        "executors": [item.name for item in plugin.executors],
        **_relations(plugin, registry),
        "seconds": round(plugin.seconds, 4),
        "error": plugin.error,
        "advice": advice(plugin) if plugin.error else "",
    }


def _relations(plugin: Plugin, registry: Registry) -> dict[str, Any]:
    """Whom a plugin's converters are asked before and after, and with whom they conflict, by op."""
    overrides, overridden, conflicts = [], [], []
    for encounter in encounters(registry):
        row = {"op": encounter.op, "how": encounter.how}
        if encounter.how == "conflict":
            other = {encounter.first.plugin: encounter.second, encounter.second.plugin: encounter.first}
            if plugin.name in other:
                conflicts.append({"op": encounter.op, "with": other[plugin.name].id})
        elif encounter.first.plugin == plugin.name:
            overrides.append({**row, "converter": encounter.second.id})
        elif encounter.second.plugin == plugin.name:
            overridden.append({**row, "by": encounter.first.id})
    replaced = [{"pass": item.replaces, "by": item.id} for item in plugin.passes if item.replaces]
    rulings = [str(ruling) for ruling in registry.pass_rulings if ruling.by == plugin.name]
    return {
        "overrides": overrides,
        "overridden_by": overridden,
        "conflicts": conflicts,
        "replaces": replaced,
        "pass_rulings": rulings,
    }


@dataclasses.dataclass(frozen=True)
class Encounter:
    """Two plugins' converters that claim one op.

    Attributes:
        first, second: in the order in which they are asked.
        how: ``"conflict"``; ``"always"`` where the first takes whatever the second would; ``"in part"`` otherwise.
    """

    op: str
    first: Converter
    second: Converter
    how: str


def encounters(registry: Registry) -> list[Encounter]:
    """Every pair of plugins' converters that claim one op, by op."""
    found = []
    for op in registry.targets:
        claimed = registry.candidates(op)
        rivals = {frozenset(pair) for pair in registry.conflicts.get(op, ())}
        for place, second in enumerate(claimed):
            for first in claimed[:place]:
                if first.plugin == second.plugin or first.domain.disjoint(second.domain):
                    continue
                how = "always" if _covers(first, second) else "in part"
                if frozenset((first, second)) in rivals:
                    how = "conflict"
                found.append(Encounter(qualified_name(op), first, second, how))
    return found


def _covers(first: Converter, second: Converter) -> bool:
    """Whether the first provably takes every call that the second takes."""
    ours, theirs = first.domain, second.domain
    if any(relation.holds is not None for relation in ours.relations) or ours.outputs or first.needs:
        return False
    if not first.dynamic_shapes and second.dynamic_shapes:
        return False
    alike = all(
        name in theirs.arguments and str(spec) == str(theirs.arguments[name]) for name, spec in ours.arguments.items()
    )
    return alike and set(theirs.arguments) <= set(ours.arguments)


def advice(plugin: Plugin) -> str:
    """What to do about a plugin that is disabled."""
    error, package = plugin.error, plugin.distribution or plugin.name
    if error.startswith("ModuleNotFoundError: No module named"):
        module = error.split("'")[1].partition(".")[0]
        return f"install what it needs (pip install {module}?), or remove it: pip uninstall {package}"
    if error.startswith(("it does not state its contract", "it was written for version")):
        return f"install a release of {package} for this trtplug: pip install --upgrade {package}"
    if "its name is taken" in error:
        return f"uninstall one of the two: pip uninstall {package}"
    return f"tell the authors of {package}; meanwhile: TRTPLUG_BLOCK={plugin.name}, or pip uninstall {package}"


def print_plugins(rows: list[dict[str, Any]]) -> None:
    table = Table(title="Plugins", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("plugin", overflow="fold", min_width=18)
    table.add_column("package", overflow="fold")
    for name in ("ops", "passes", "dec.", "exec.", "API", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    notes = [note for row in rows for note in _notes(row)]
    Console().print(Group(table, *notes))


def _cells(row: dict[str, Any]) -> list[str]:
    color = {"loaded": "green", "blocked": "yellow"}.get(row["state"], "red")
    return [
        row["name"],
        f"{row['distribution']} {row['version']}".strip() or "–",
        *(str(len(row[kind]) or "–") for kind in ("converters", "passes", "decompositions", "executors")),
        "–" if row["contract"] is None else str(row["contract"]),
        f"{1000 * row['seconds']:.0f}" if row["state"] != "blocked" else "–",
        f"[{color}]{row['state']}[/{color}]",
    ]


def _notes(row: dict[str, Any]) -> list[Padding]:
    """What a row cannot say in a cell: errors with advice, and how its converters get on with others'."""
    lines = [(f"{row['error']}\n→ {row['advice']}", "red")] if row["error"] else []
    lines += [(f"{item['op']}: asked before {item['converter']} ({item['how']})", "") for item in row["overrides"]]
    lines += [(f"{item['op']}: asked after {item['by']} ({item['how']})", "") for item in row["overridden_by"]]
    for item in row["conflicts"]:
        remedy = f"→ prefer one: TRTPLUG_PREFER={row['name']}"
        lines.append((f"{item['op']}: conflict with {item['with']}, neither is used\n{remedy}", "red"))
    lines += [(f"the pass {item['by']} runs in the place of {item['pass']}", "") for item in row["replaces"]]
    lines += [(text, "") for text in row["pass_rulings"]]
    title = [Padding(Text(row["name"], style="bold"), 0)] if lines else []
    return title + [Padding(Text(text, style=style), (0, 0, 0, 2)) for text, style in lines]
