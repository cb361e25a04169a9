"""Compiled models on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from trtplug.compiled import CompiledModule
from trtplug.errors import SettingsError
from trtplug.network import Binding

FORMAT = 1


def save(compiled: CompiledModule, path: str | os.PathLike[str]) -> Path:
    """Saves a compiled model as a folder: one ``.engine`` file per TensorRT block, and a manifest.

    ``manifest.json`` holds, per engine, the file's SHA-256, and name, dtype, shape and range of every input and output,
    in call order; what is left to Torch; and the versions that built it. The engines are TensorRT's own serialized
    plans, which any TensorRT runtime of that version loads. The Torch part is not in there: a model that is not whole
    in TensorRT has its remaining nodes listed in the manifest under ``torch_ops``.

    The folder is written beside its final place and moved there when complete.

    Args:
        path: of the folder; it must not exist, or be a folder that this function wrote.

    Returns:
        The folder.

    Raises:
        SettingsError: the path exists and is something else.
    """
    target = Path(path)
    if target.exists() and not (target / "manifest.json").is_file():
        raise SettingsError(f"{target} exists and is not a folder of engines; choose another path")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        engines = []
        for engine in compiled.engines:
            file = f"{engine.name}.engine"
            (work / file).write_bytes(engine.plan)
            engines.append(
                {
                    "file": file,
                    "sha256": hashlib.sha256(engine.plan).hexdigest(),
                    "inputs": [_binding(binding) for binding in engine.input_bindings],
                    "outputs": [_binding(binding) for binding in engine.output_bindings],
                }
            )
        report = compiled.report
        manifest = {
            "format": FORMAT,
            "versions": dict(report.versions),
            "engines": engines,
            "torch_ops": [{"name": node.name, "op": node.op} for node in report.torch_ops],
        }
        (work / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        work.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        work.rename(target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return target


def _binding(binding: Binding) -> dict[str, Any]:
    made = {
        "name": binding.name,
        "dtype": str(binding.facts.dtype).removeprefix("torch."),
        "shape": list(binding.facts.shape),
        "size": binding.size,
    }
    points = {name: list(getattr(binding, name)) for name in ("smallest", "typical", "largest")}
    return {**made, **{name: point for name, point in points.items() if point}}
