"""Writes the support matrix: ``python docs/support_matrix.py > docs/support-matrix.md``."""

from __future__ import annotations

import dataclasses

import torch.ao.quantization.fx._decomposed  # noqa: F401  # its ops, whether or not somebody has loaded them before

import trtplug
from trtplug.covering.markdown import matrix

SPACES = ("aten::", "quantized_decomposed::")
"""What Torch itself brings: the page does not depend on what else is installed."""


def made_with() -> str:
    """The versions that decide what the page says."""
    versions = trtplug.coverage("aten::relu").versions
    return f"torch {versions['torch'].partition('+')[0]}, tensorrt-rtx {versions.get('tensorrt-rtx')}"


def text() -> str:
    """The whole page, of the built-in plugins."""
    built_in = trtplug.registry(block=[plugin.name for plugin in trtplug.registry().plugins if not plugin.built_in])
    claimed = trtplug.coverage("claimed", registry=built_in)
    claimed = dataclasses.replace(claimed, ops=tuple(op for op in claimed.ops if op.op.startswith(SPACES)))
    return f"""# Support matrix

Made with {made_with()}, by `python docs/support_matrix.py`; a test compares it with what the registry says.

Status: *converted* by a converter, *decomposed* into ops that are, *folded* (gone in lowering), or *unsupported*. A
dtype's cell is ● where a converter takes symbolic sizes too, ○ where static ones only, empty where it refuses the dtype
(or eager has no such op). `trtplug coverage aten::softmax` shows everything about one op.

## Core ATen

{matrix(trtplug.coverage("core_aten", registry=built_in))}
## Every op that a built-in converter claims

{matrix(claimed)}"""


if __name__ == "__main__":
    print(text(), end="")
