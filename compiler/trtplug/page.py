"""The one self-contained page that shows any report: data as JSON inside, nothing fetched, works by double click."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def render_page(title: str, document: Mapping[str, Any]) -> str:
    """The page of a document with ``summary``, ``versions``, ``shares``, ``ops`` and ``model`` (which may be None)."""
    from jinja2 import Environment, PackageLoader, select_autoescape
    from markupsafe import Markup

    text = json.dumps(document).replace("<", "\\u003c")  # nothing in the data can end the script element
    environment = Environment(loader=PackageLoader("trtplug", "templates"), autoescape=select_autoescape())
    return environment.get_template("page.html").render(title=title, data=Markup(text))


def share(name: str, parts: Mapping[str, float], words: str) -> dict[str, Any]:
    """One bar of the page: fractions of the whole by status, and the same in words."""
    return {
        "name": name,
        "parts": [{"status": status, "share": part} for status, part in parts.items()],
        "words": words,
    }
