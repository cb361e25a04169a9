"""Reading a report's page: its data, and what a browser makes of it."""

from __future__ import annotations

import json
from typing import Any


def page_data(page: str) -> dict[str, Any]:
    """The document that a page shows."""
    _, _, rest = page.partition('<script type="application/json" id="data">')
    found: dict[str, Any] = json.loads(rest.partition("</script>")[0])
    return found
