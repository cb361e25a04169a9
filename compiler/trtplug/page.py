"""The one self-contained page that shows any report: data as JSON inside, nothing fetched, works by double click."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

MOST_ROWS = 10_000
"""Nodes, and exported calls, that a page lists: a browser holds more, but does not search them as one types."""

MOST_BLOCKS = 1_000
"""Blocks that a page draws, and engines that it lists."""


def render_page(title: str, document: Mapping[str, Any]) -> str:
    """The page of a document with ``summary``, ``versions``, ``shares``, ``ops`` and ``model`` (which may be None).

    Of a large model it shows a part, and says at its head what it leaves out. A profile's document also has ``layers``.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape
    from markupsafe import Markup

    layers = sorted(document.get("layers", ()), key=lambda layer: -layer["ms"])[:MOST_ROWS]
    named = {name for layer in layers for name in layer["nodes"]}
    model, left_out = (None, []) if document["model"] is None else shortened(document["model"], named)
    shown = {**document, **({"layers": layers} if "layers" in document else {}), "model": model, "left_out": left_out}
    if len(layers) < len(document.get("layers", ())):
        left_out.append(f"layers, the costliest: {MOST_ROWS:,} of {len(document['layers']):,}")
    text = json.dumps(shown).replace("<", "\\u003c")  # nothing in the data can end the script element
    environment = Environment(loader=PackageLoader("trtplug", "templates"), autoescape=select_autoescape())
    return environment.get_template("page.html").render(title=title, data=Markup(text))


def shortened(model: Mapping[str, Any], named: Collection[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """A report as `CompilationReport.to_dict` has it, as far as a page shows it, and what that leaves out, in words.

    Args:
        model: the report.
        named: nodes that the page names elsewhere, too.
    """
    shown, left_out = dict(model), []

    def cut(what: str, most: int, first: Callable[[Any], bool], words: str) -> None:
        items = model[what]
        if len(items) <= most:
            return
        chosen = sorted(range(len(items)), key=lambda place: (not first(items[place]), place))[:most]
        shown[what] = [items[place] for place in sorted(chosen)]
        left_out.append(f"{words}: {most:,} of {len(items):,}")

    def first(node: Any) -> bool:
        return node["engine"] is None or node["name"] in named

    cut("nodes", MOST_ROWS, first, "nodes, those left to Torch first")
    cut("originals", MOST_ROWS, lambda call: call["became"] == "torch", "exported calls, those left to Torch first")
    cut("engines", MOST_BLOCKS, lambda engine: True, "engines, the first to run")
    cut("units", MOST_BLOCKS, lambda unit: True, "blocks of the partition, the first to run")
    drawn = {unit["name"] for unit in shown["units"]}
    shown["crossings"] = [way for way in model["crossings"] if {way["source"], way["target"]} <= drawn]
    return shown, left_out


def share(name: str, parts: Mapping[str, float], words: str) -> dict[str, Any]:
    """One bar of the page: fractions of the whole by status, and the same in words."""
    return {
        "name": name,
        "parts": [{"status": status, "share": part} for status, part in parts.items()],
        "words": words,
    }
