"""What `benchmarks/gpu.py pack` writes is importable where nothing is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def gpu_pack() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_pack", ROOT / "benchmarks" / "gpu_pack.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel(folder: Path, name: str) -> Path:
    path = folder / f"{name}-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "WORD = 'packed'\n")
        archive.writestr(f"{name}-1.2.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        archive.writestr(f"{name}-1.2.dist-info/entry_points.txt", f"[trtplug_test]\nword = {name}:WORD\n")
    return path


USES = """
import importlib.metadata, pathlib
(found,) = importlib.metadata.entry_points(group="trtplug_test")
print(found.load(), pathlib.Path("benchmarks/gpu.py").exists(), pathlib.Path("tests/conftest.py").exists())
"""


def test_a_pack_is_used_from_anywhere(gpu_pack: Any, tmp_path: Path) -> None:
    pack = tmp_path / "a pack"
    packed = gpu_pack.fill(pack, [wheel(tmp_path, "packed_thing")])
    assert [(name, version) for name, version, _ in packed] == [("packed_thing", "1.2")]
    assert not list(pack.rglob("__pycache__"))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = f'. "{pack}/activate.sh" && "{sys.executable}" -I -c "import sys" && "{sys.executable}" -c \'{USES}\''
    ran = subprocess.run(["bash", "-c", command], cwd="/", env=environment, capture_output=True, text=True)
    assert (ran.stdout.split(), ran.stderr) == (["packed", "True", "True"], "")


def test_a_folder_that_holds_something_is_refused(
    gpu_pack: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(SystemExit):
        gpu_pack.main([str(tmp_path)])
    assert "is not empty" in capsys.readouterr().err


def test_what_pip_refuses_ends_it(gpu_pack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_pack.sys, "executable", "false")
    with pytest.raises(SystemExit, match="pip wheel failed"):
        gpu_pack.main([str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


def test_the_command_needs_no_torch(tmp_path: Path) -> None:
    """A machine that packs may have nothing but pip."""
    command = [sys.executable, "-S", str(ROOT / "benchmarks" / "gpu.py"), "pack", "--help"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "--tensorrt" in ran.stdout
