"""What is here, what is wrong with it, and what to do: ``trtplug doctor``."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from trtplug.cli.listing import assembled, encounters, plugin_rows
from trtplug_registry import Registry, TrtplugError


def examine() -> dict[str, Any]:
    """The environment, the choices made outside of programs, and every problem with its remedy."""
    report: dict[str, Any] = {
        "environment": _environment(),
        "tensorrt": _flavours(),
        "gpu": _gpu(),
        "executors": [],
        "settings": [],
        "plugins": [],
        "problems": [],
    }
    try:
        report["settings"] = _choices()
        manager, registry = assembled()
    except TrtplugError as error:
        report["problems"].append(_problem("error", str(error), "correct the setting"))
        return report | {"problems": report["problems"] + _tensorrt_problems(report)}
    report["plugins"] = plugin_rows(manager, registry)
    report["executors"] = _executors(registry)
    report["problems"] = [
        *_tensorrt_problems(report),
        *_executor_problems(report),
        *_plugin_problems(report["plugins"]),
        *_meetings(registry),
    ]
    return report


def _problem(severity: str, what: str, remedy: str) -> dict[str, str]:
    return {"severity": severity, "what": what, "remedy": remedy}


# --- what is here -----------------------------------------------------------------------------------------------------


def _environment() -> dict[str, str]:
    import torch

    needed = next((r for r in importlib.metadata.requires("trtplug") or () if re.match(r"torch\b", r)), "")
    return {
        "trtplug": importlib.metadata.version("trtplug"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "torch needed": needed.removeprefix("torch"),
        "torch built for CUDA": torch.version.cuda or "no",
    }


def _flavours() -> list[dict[str, Any]]:
    """Every TensorRT that trtplug knows: whether it is here, which version, and which one is chosen."""
    from trtplug._tensorrt import FLAVOURS, TensorRTUnavailable, library

    chosen = os.environ.get("TRTPLUG_TENSORRT", "tensorrt_rtx").replace("-", "_")
    found = []
    for module, distribution in FLAVOURS.items():
        here = importlib.util.find_spec(module) is not None
        row: dict[str, Any] = {
            "name": distribution,
            "installed": here,
            "chosen": module == chosen,
            "version": "",
            "error": "",
        }
        if here:
            try:
                row["version"] = str((library() if module == chosen else importlib.import_module(module)).__version__)
            except (ImportError, TensorRTUnavailable, AttributeError) as error:
                row["error"] = str(error)
        found.append(row)
    if chosen not in FLAVOURS:
        words = f"TRTPLUG_TENSORRT={chosen!r}: choose one of {', '.join(sorted(FLAVOURS))}"
        found.append({"name": chosen, "installed": False, "chosen": True, "version": "", "error": words})
    return found


def _gpu() -> dict[str, Any]:
    import torch

    there = torch.cuda.is_available()
    names = []
    for number in range(torch.cuda.device_count() if there else 0):
        major, minor = torch.cuda.get_device_capability(number)
        names.append(f"{torch.cuda.get_device_name(number)} (compute capability {major}.{minor})")
    return {"driver": _driver(), "usable by torch": there, "devices": names}


def _driver() -> str:
    """The NVIDIA driver's version, or ""."""
    file = Path("/proc/driver/nvidia/version")
    found = re.search(r"Kernel Module\s+(?:for \S+\s+)?([\d.]+)", file.read_text()) if file.is_file() else None
    return found[1] if found else ""


def _executors(registry: Registry) -> list[dict[str, str]]:
    found = []
    for executor in registry.executors:
        try:
            why = executor.unavailable() or ""
        except Exception as error:  # a plugin's executor may raise anything
            why = f"it raised {type(error).__name__}: {error}"
        found.append({"name": executor.name, "plugin": executor.plugin, "device": executor.device, "unavailable": why})
    return found


def _choices() -> list[dict[str, Any]]:
    from trtplug.control import choices

    return [
        {"name": name, "value": list(c.value) if isinstance(c.value, tuple) else c.value, "source": c.source}
        for name, c in choices().items()
    ]


# --- what is wrong ----------------------------------------------------------------------------------------------------


def _tensorrt_problems(report: dict[str, Any]) -> list[dict[str, str]]:
    (chosen,) = (row for row in report["tensorrt"] if row["chosen"])
    if chosen["version"]:
        return []
    why = chosen["error"] or "it is not installed"
    others = [row["name"] for row in report["tensorrt"] if row["version"]]
    remedy = f"pip install {chosen['name']}" if "choose one of" not in why else "correct the variable"
    if others:
        remedy += f", or choose what is here: TRTPLUG_TENSORRT={others[0]}"
    return [_problem("error", f"no TensorRT: {chosen['name']}: {why}", remedy)]


def _executor_problems(report: dict[str, Any]) -> list[dict[str, str]]:
    """A GPU that Torch can use and TensorRT cannot is worth a word; no GPU at all is not."""
    found = []
    if report["gpu"]["usable by torch"]:
        for row in report["executors"]:
            if row["device"] == "cuda" and row["unavailable"]:
                what = f"engines cannot run on this GPU with the executor {row['name']!r}: {row['unavailable']}"
                found.append(
                    _problem("warning", what, "install a TensorRT that supports it; the reference executor works")
                )
    elif report["gpu"]["driver"]:
        what = f"there is a driver ({report['gpu']['driver']}), but Torch cannot use the GPU"
        found.append(_problem("warning", what, "install a Torch that is built for CUDA and for this driver"))
    return found


def _plugin_problems(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [
        _problem("error", f"plugin {row['name']!r} is disabled: {row['error']}", row["advice"])
        for row in rows
        if row["state"] == "disabled"
    ]


def _meetings(registry: Registry) -> list[dict[str, str]]:
    """Conflicts, and converters of third parties that are never reached."""
    found = []
    for meeting in encounters(registry):
        first, second = meeting.first, meeting.second
        if meeting.how == "conflict":
            what = f"{first.id} and {second.id} both claim {meeting.op} with equal priority: neither is used"
            remedy = f"prefer one of them, TRTPLUG_PREFER={first.plugin} or {second.plugin}"
            found.append(_problem("error", what, remedy))
        elif meeting.how == "always" and not second.built_in:
            what = f"{second.id} is never reached: {first.id} takes all of its calls"
            remedy = f"prefer it, TRTPLUG_PREFER={second.plugin}, or block {first.plugin}"
            found.append(_problem("warning", what, remedy))
    return found


# --- in words ---------------------------------------------------------------------------------------------------------


def print_doctor(report: dict[str, Any]) -> None:
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(report):
        table.add_row(escape(name), escape(value))
    console.print(table)
    console.print()
    if not report["problems"]:
        console.print("[green]No problems.[/green]")
        return
    console.print("[bold]Problems[/bold]")
    for item in report["problems"]:
        color = "red" if item["severity"] == "error" else "yellow"
        console.print(Padding(f"[{color}]{item['severity']}[/{color}]: {escape(item['what'])}", (0, 0, 0, 2)))
        console.print(Padding(f"→ {escape(item['remedy'])}", (0, 0, 0, 4)))


def _lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    environment, gpu = report["environment"], report["gpu"]
    lines = [
        ("trtplug", environment["trtplug"]),
        ("python", f"{environment['python']} on {environment['platform']}"),
        ("torch", f"{environment['torch']} (needed: {environment['torch needed']})"),
    ]
    for row in report["tensorrt"]:
        chosen = ", chosen" if row["chosen"] else ""
        lines.append((row["name"], (row["version"] or row["error"] or "not installed") + chosen))
    lines.append(("driver", gpu["driver"] or "none"))
    lines.append(("GPU", "; ".join(gpu["devices"]) or "none that Torch can use"))
    lines += [
        (f"executor {row['name']}", f"unavailable: {row['unavailable']}" if row["unavailable"] else "available")
        for row in report["executors"]
    ]
    lines += [(row["name"], f"{row['value']} (set by {row['source']})") for row in report["settings"]]
    states = [row["state"] for row in report["plugins"]]
    lines.append(("plugins", ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))) or "none"))
    return lines
