"""Writes the support matrix: ``python docs/support_matrix.py > docs/support-matrix.md``."""

from __future__ import annotations

import trtplug
from trtplug.covering.markdown import matrix

built_in = trtplug.registry(block=[plugin.name for plugin in trtplug.registry().plugins if not plugin.built_in])
core = trtplug.coverage("core_aten", registry=built_in)
made_with = f"torch {core.versions['torch'].partition('+')[0]}, tensorrt-rtx {core.versions['tensorrt-rtx']}"
print(
    f"""# Support matrix

Made with {made_with}, by `python docs/support_matrix.py`; a test compares it with what the registry says.

Status: *converted* by a converter, *decomposed* into ops that are, *folded* (gone in lowering), or *unsupported*. A
dtype's cell is ● where a converter takes symbolic sizes too, ○ where static ones only, empty where it refuses the dtype
(or eager has no such op).
`trtplug coverage aten::softmax` shows everything about one op.

## Core ATen

{matrix(core)}
## Every op that a built-in converter claims

{matrix(trtplug.coverage("claimed", registry=built_in))}""",
    end="",
)
