"""Writes the support matrix: ``python docs/support_matrix.py > docs/support-matrix.md``."""

from __future__ import annotations

from collections.abc import Sequence

import torch.ao.quantization.fx._decomposed  # noqa: F401  # its ops, whether or not somebody has loaded them before

import trtplug
import trtplug_registry
from trtplug.covering.markdown import LEGEND, matrix
from trtplug.covering.memory import remembered
from trtplug.covering.ops import judge
from trtplug.covering.opsets import overload, overloads_in
from trtplug.covering.report import CoverageReport
from trtplug_registry import qualified_name

SPACES = ("aten::", "quantized_decomposed::")
"""What Torch itself brings: the page does not depend on what else is installed."""


def made_with() -> str:
    """The versions that decide what the page says."""
    versions = trtplug.coverage("aten::relu").versions
    return f"torch {versions['torch'].partition('+')[0]}, tensorrt-rtx {versions.get('tensorrt-rtx')}"


def registry() -> trtplug_registry.Registry:
    """Of the built-in plugins, whatever else is installed."""
    return trtplug.registry(block=[plugin.name for plugin in trtplug.registry().plugins if not plugin.built_in])


def names() -> dict[str, list[str]]:
    """The ops of each table."""
    built_in = registry()
    core = [qualified_name(op) for op in overloads_in("core_aten", built_in)]
    claimed = [name for op in built_in.targets if (name := qualified_name(op)).startswith(SPACES) and name not in core]
    return {"Core ATen": core, "Other ops that a converter claims": claimed}


def decomposed() -> list[str]:
    """The other ops that a built-in decomposition writes with others."""
    seen = {name for table in names().values() for name in table}
    return sorted({qualified_name(op) for op in registry().decompositions} - seen)


def report(ops: Sequence[str]) -> CoverageReport:
    """On these ops, by name."""
    built_in = registry()
    with remembered(built_in) as known:
        judged = tuple(judge(built_in, found, known) for name in ops if (found := overload(name)) is not None)
    return CoverageReport("ops", "opset", judged, {}, {})


def text() -> str:
    """The whole page."""
    parts = [f"## {title}\n\n{matrix(report(ops), registry())}" for title, ops in names().items()]
    return f"""# Support matrix

Made with {made_with()}, by `python docs/support_matrix.py`; a test compares it with what the registry says.

Status: *converted* by a converter, *decomposed* into ops that are, *folded* (gone in lowering), or *unsupported*.
{LEGEND}
Whether a call is decomposed into ops that are taken is found out by lowering one in each dtype.
`trtplug coverage aten::softmax` shows everything about one op.

{chr(10).join(parts)}
## Other ops that a built-in decomposition writes with others

Of these, the calls that the decomposition does not refuse; composite ops, which Torch itself writes with others, are
not listed. `trtplug coverage aten::atan2` follows one call.

{", ".join(f"`{name}`" for name in decomposed())}
"""


if __name__ == "__main__":
    print(text(), end="")
