"""Packs what a run on a GPU needs, for a machine that has torch for CUDA and no network.

    python benchmarks/gpu.py pack FOLDER [--tensorrt 1.6.1.120] [--python 3.12] [--with hypothesis]…

On any machine with pip: FOLDER gets this source tree, and in FOLDER/site what pip would have installed. There:

    . FOLDER/activate.sh && python3 benchmarks/gpu.py
"""

from __future__ import annotations

import argparse
import email
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ("benchmarks", "examples", "tests", "docs", "pyproject.toml", "README.md")
"""Besides the packages, which are in our own wheel."""
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux_2_5", "manylinux1")
LIBRARIES = ("tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings")  # binaries, of the GPU machine's Python
FRONTS = ("tensorrt-rtx-cu13", "tensorrt-rtx")  # source distributions of a few lines, which pip makes wheels of

ACTIVATE = """\
# To be sourced: goes to the packed tree and makes importable what is packed with it, before what is installed.
cd "$(dirname "${BASH_SOURCE[0]:-$0}")" || return
export PYTHONPATH="$PWD/site${PYTHONPATH:+:$PYTHONPATH}"
"""


def main(arguments: Sequence[str]) -> None:
    """The command: packs, and prints what is packed."""
    parser = argparse.ArgumentParser(
        prog="gpu.py pack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="made anew")
    parser.add_argument("--tensorrt", default="1.6.1.120", help="version of TensorRT-RTX (default: %(default)s)")
    parser.add_argument("--python", default="3.12", help="of the GPU machine (default: %(default)s)")
    parser.add_argument("--machine", default="x86_64", help="its processor (default: %(default)s)")
    parser.add_argument(
        "--with", dest="more", action="append", default=[], metavar="NAME", help="packages that it lacks"
    )
    chosen = parser.parse_args(arguments)
    if chosen.folder.exists() and any(chosen.folder.iterdir()):
        parser.error(f"{chosen.folder} is not empty")
    with tempfile.TemporaryDirectory() as scratch:
        wheels = Path(scratch)
        pip("wheel", "--no-deps", "-w", wheels, ROOT, *[f"{name}=={chosen.tensorrt}" for name in FRONTS])
        target = ["--only-binary=:all:", "--python-version", chosen.python, "--implementation", "cp"]
        target += [part for name in PLATFORMS for part in ("--platform", f"{name}_{chosen.machine}")]
        binaries = [*[f"{name}=={chosen.tensorrt}" for name in LIBRARIES], *chosen.more]
        pip("download", "--no-deps", *target, "-d", wheels, *binaries)
        packed = fill(chosen.folder, sorted(wheels.glob("*.whl")))
    for name, version, size in packed:
        print(f"{name:30} {version:14} {size / 2**20:8.1f} MB")
    print(f"\nthere: . {chosen.folder.name}/activate.sh && python3 benchmarks/gpu.py")


def pip(*arguments: str | Path) -> None:
    """This Python's own pip, with whatever the user has configured; ends the program where it fails, in pip's words."""
    ran = subprocess.run([sys.executable, "-m", "pip", "-q", *map(str, arguments)], check=False)
    if ran.returncode:
        raise SystemExit(f"pip {arguments[0]} failed")


def fill(folder: Path, wheels: Iterable[Path], tree: Path = ROOT) -> list[tuple[str, str, int]]:
    """Writes a pack: wheels unpacked, the source tree beside them, `activate.sh`.

    Returns:
        Name, version and unpacked bytes of each distribution.
    """
    site = folder / "site"
    site.mkdir(parents=True, exist_ok=True)
    packed = []
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
            (described,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            metadata = email.message_from_bytes(archive.read(described))
            packed.append((metadata["Name"], metadata["Version"], sum(part.file_size for part in archive.infolist())))
    for name in TREE:
        if (tree / name).is_dir():
            shutil.copytree(tree / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(tree / name, folder / name)
    (folder / "activate.sh").write_text(ACTIVATE)
    return packed
