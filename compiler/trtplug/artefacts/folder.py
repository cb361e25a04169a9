"""A folder of bare engines and a manifest, for any program that speaks to TensorRT itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from trtplug.artefacts.engines import binding_to_json
from trtplug.artefacts.files import replaced_folder
from trtplug.compiled import CompiledModule
from trtplug.errors import ArtefactError

FORMAT = 1
_MANIFEST = "manifest.json"


def save_folder(compiled: CompiledModule, target: Path) -> None:
    """Writes one ``.engine`` file per TensorRT block, and ``manifest.json``. See ``docs/artefacts.md``.

    Raises:
        ArtefactError: the path exists and is not a folder that this function wrote.
    """
    if target.exists() and not _ours(target):
        what = "it exists and is not a folder of engines that trtplug wrote; choose another path"
        raise ArtefactError(target, what)
    with replaced_folder(target) as work:
        engines = []
        for engine in compiled.engines:
            file = f"{engine.name}.engine"
            (work / file).write_bytes(engine.plan)
            engines.append(
                {
                    "file": file,
                    "sha256": hashlib.sha256(engine.plan).hexdigest(),
                    "inputs": [binding_to_json(binding) for binding in engine.input_bindings],
                    "outputs": [binding_to_json(binding) for binding in engine.output_bindings],
                }
            )
        manifest = {
            "format": FORMAT,
            "versions": dict(compiled.report.versions),
            "engines": engines,
            "torch_ops": [{"name": node.name, "op": node.op} for node in compiled.report.torch_ops],
        }
        (work / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _ours(folder: Path) -> bool:
    """Whether a folder holds what its manifest names, and nothing else: only then may it be replaced."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        named = {engine["file"] for engine in manifest["engines"]} | {_MANIFEST}
        return "torch_ops" in manifest and {item.name for item in folder.iterdir()} <= named
    except (OSError, ValueError, KeyError, TypeError):
        return False
