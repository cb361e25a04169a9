"""How each kind of layer is read and written as nodes, one family per module."""

from collections.abc import Mapping

from trtplug.reference.rules import indexing, layout, pointwise, reductions, transformers, windows
from trtplug.reference.site import Rule

RULES: Mapping[str, Rule] = {
    **pointwise.RULES,
    **layout.RULES,
    **indexing.RULES,
    **reductions.RULES,
    **windows.RULES,
    **transformers.RULES,
}
