"""The built-in lowering passes and decompositions.

A plugin like any other: it imports only the contract, and arrives through the entry-point group ``trtplug``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch._ops import OpOverload

from trtplug_lowering_passes.affine import spell_out_torchao
from trtplug_lowering_passes.common_subexpressions import merge_common_subexpressions
from trtplug_lowering_passes.constant_folding import fold_constants
from trtplug_lowering_passes.dead_code import remove_dead_code, remove_dead_code_early
from trtplug_lowering_passes.no_ops import remove_no_ops, remove_no_ops_early
from trtplug_lowering_passes.precision import set_precision
from trtplug_lowering_passes.quantization import canonical_quantization
from trtplug_lowering_passes.sizes import sizes_from_inputs
from trtplug_lowering_passes.type_promotion import promote_types
from trtplug_lowering_passes.views import canonical_views_early, canonical_views_late
from trtplug_registry import CONTRACT, LoweringPass

trtplug_contract = CONTRACT


def trtplug_lowering_passes() -> tuple[LoweringPass, ...]:
    return (
        remove_no_ops_early,
        canonical_views_early,
        spell_out_torchao,
        canonical_quantization,
        set_precision,
        remove_dead_code_early,
        remove_no_ops,
        promote_types,
        canonical_views_late,
        merge_common_subexpressions,
        fold_constants,
        sizes_from_inputs,
        remove_dead_code,
    )


def trtplug_decompositions() -> Mapping[OpOverload, Callable[..., Any]]:
    from trtplug_lowering_passes.decompositions import decompositions

    return decompositions()
