"""``trtplug new-plugin`` writes a distribution that works at once; a name that cannot be one says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trtplug.cli import app
from trtplug.cli.new_plugin import FILES, new_plugin
from trtplug_registry import TrtplugError


def test_what_is_written_is_green_unedited(tmp_path):
    result = CliRunner().invoke(app, ["new-plugin", "my-ops", "--into", str(tmp_path)])
    assert result.exit_code == 0, result.output
    folder = tmp_path / "my-ops"
    assert f"cd {folder} && pip install -e '.[test]' && pytest" in result.output
    assert len([file for file in folder.rglob("*") if file.is_file()]) == len(FILES)
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", site, folder], check=True, timeout=120)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tests = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "skipped" not in tests.stdout
    checks = [sys.executable, "-m", "ruff"]
    for arguments in (["check", "--select", "E,F,W,B,UP"], ["format", "--check"]):
        checked = subprocess.run([*checks, *arguments, "."], cwd=folder, capture_output=True, text=True, timeout=60)
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("My Ops", "lower-case letters and digits"),
        ("-ops", "lower-case letters and digits"),
        ("ops--x", "single dashes between words"),
        ("../ops", "lower-case letters and digits"),
        ("trtplug-ops", "names in trtplug are trtplug's own"),
        ("class", "'class' is Python's own"),
        ("json", "'json' is Python's own"),
        ("torch", "a package 'torch' is installed here"),
    ],
)
def test_a_name_that_cannot_be_one(tmp_path, name, words):
    with pytest.raises(TrtplugError, match=words):
        new_plugin(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "my-ops").mkdir()
    with pytest.raises(TrtplugError, match="is there already; choose another name"):
        new_plugin("my-ops", tmp_path)
    with pytest.raises(TrtplugError, match="there is no folder"):
        new_plugin("my-ops", tmp_path / "nowhere")
    assert not list(Path(tmp_path / "my-ops").iterdir())
