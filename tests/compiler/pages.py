"""Reading a report's page: its data, and what a browser makes of it."""

from __future__ import annotations

import dataclasses
import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=4000",
    "--dump-dom",
]


def page_data(page: str) -> dict[str, Any]:
    """The document that a page shows."""
    _, _, rest = page.partition('<script type="application/json" id="data">')
    found: dict[str, Any] = json.loads(rest.partition("</script>")[0])
    return found


@dataclasses.dataclass(frozen=True)
class Visit:
    """What a script that acts on a page returned, and what the browser's console said meanwhile."""

    result: Any
    console: tuple[str, ...]


def visit(page: str, script: str, folder: Path, dark: bool = False) -> Visit:
    """Opens a page from a file in headless Chromium and runs a script in it, whose value JSON can say."""
    end = f"""<script>(async () => {{
      let result;
      try {{ result = await (async () => {{ {script} }})(); }} catch (error) {{ console.error(String(error)); }}
      const box = document.createElement("pre"); box.id = "visit-result"; box.textContent = JSON.stringify(result);
      document.body.append(box);
    }})();</script></body>"""
    file = folder / "page.html"
    file.write_text(page.replace("</body>", end))
    assert BROWSER is not None
    flags = [*_FLAGS, f"--user-data-dir={folder / 'profile'}", *(["--force-dark-mode"] if dark else [])]
    done = subprocess.run([BROWSER, *flags, file.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    _, _, rest = done.stdout.partition('<pre id="visit-result">')
    text = html.unescape(rest.partition("</pre>")[0])
    return Visit(json.loads(text), tuple(line for line in done.stderr.splitlines() if "CONSOLE" in line))
