"""``trtplug new-plugin``: writes a distribution that works at once."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from pathlib import Path

import jinja2

from trtplug_registry import TrtplugError

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_OURS = re.compile(r"(?i)trtplug($|[-_])")

FILES = {
    "pyproject.toml.jinja": "pyproject.toml",
    "README.md.jinja": "README.md",
    "package__init__.py.jinja": "{module}/__init__.py",
    "ops.py.jinja": "{module}/ops.py",
    "converters.py.jinja": "{module}/converters.py",
    "passes.py.jinja": "{module}/passes.py",
    "plugin.py.jinja": "{module}/plugin.py",
    "test_laws.py.jinja": "tests/test_laws.py",
    "test_model.py.jinja": "tests/test_model.py",
}
"""Where each template goes."""


def new_plugin(name: str, parent: Path) -> Path:
    """Writes the distribution ``name`` into a new folder of that name.

    Args:
        name: of the distribution and of the plugin; the package has underscores for dashes.
        parent: the folder that gets the new one.

    Returns:
        The new folder.

    Raises:
        TrtplugError: the name cannot be one, is taken by Python or by us, or the folder is there.
    """
    module = name.replace("-", "_")
    _check(name, module)
    folder = parent / name
    if folder.exists():
        raise TrtplugError(f"{folder} is there already; choose another name, or another folder: --into FOLDER")
    if not parent.is_dir():
        raise TrtplugError(f"there is no folder {str(parent)!r} to write into")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trtplug", "templates/new_plugin"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    for template, target in FILES.items():
        file = folder / target.format(module=module)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(environment.get_template(template).render(name=name, module=module), encoding="utf-8")
    return folder


def _check(name: str, module: str) -> None:
    if not _NAME.fullmatch(name):
        raise TrtplugError(
            f"{name!r} cannot be the name of a plugin: write lower-case letters and digits, starting with a letter,"
            " with single dashes between words, such as my-ops"
        )
    if _OURS.match(name):
        raise TrtplugError(f"{name!r} cannot be the name of a plugin: names in trtplug are trtplug's own")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names:
        raise TrtplugError(f"{name!r} cannot be the name of a plugin: {module!r} is Python's own")
    if importlib.util.find_spec(module) is not None:
        raise TrtplugError(f"{name!r} cannot be the name of a plugin: a package {module!r} is installed here")
