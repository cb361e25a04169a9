"""The built-in lowering passes and decompositions.

A plugin like any other: it imports only the contract, and arrives through the entry-point group ``trtplug``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch._ops import OpOverload

from trtplug_lowering_passes.affine import spell_out_torchao
from trtplug_lowering_passes.attention import recognise_attention
from trtplug_lowering_passes.batch_norm_folding import fold_batch_norm
from trtplug_lowering_passes.common_subexpressions import merge_common_subexpressions
from trtplug_lowering_passes.constant_folding import fold_constants, fold_constants_early
from trtplug_lowering_passes.dead_code import remove_dead_code, remove_dead_code_early
from trtplug_lowering_passes.dynamic_quantization import spell_out_dynamic_quantization
from trtplug_lowering_passes.expansions import canonical_expansions
from trtplug_lowering_passes.fake_quantization import spell_out_fake_quantization
from trtplug_lowering_passes.gelu import recognise_gelu
from trtplug_lowering_passes.linear_bias import fuse_bias
from trtplug_lowering_passes.narrow_integers import narrow_integers
from trtplug_lowering_passes.no_ops import remove_no_ops, remove_no_ops_early
from trtplug_lowering_passes.pad_folding import fold_pad
from trtplug_lowering_passes.picks import pick_by_tensor
from trtplug_lowering_passes.precision import set_precision
from trtplug_lowering_passes.products import canonical_products
from trtplug_lowering_passes.quantization import canonical_quantization
from trtplug_lowering_passes.rms_norm import recognise_rms_norm
from trtplug_lowering_passes.rotary import canonical_rotary
from trtplug_lowering_passes.rows import order_rows_outside
from trtplug_lowering_passes.scale_folding import fold_scale
from trtplug_lowering_passes.sizes import sizes_from_inputs
from trtplug_lowering_passes.slices import canonical_slices
from trtplug_lowering_passes.statistics import say_dtype_of_statistics
from trtplug_lowering_passes.type_promotion import promote_types
from trtplug_lowering_passes.views import canonical_views_early, canonical_views_late
from trtplug_lowering_passes.widen_bytes import widen_bytes
from trtplug_lowering_passes.writes import canonical_writes
from trtplug_registry import CONTRACT, LoweringPass

trtplug_contract = CONTRACT


def trtplug_lowering_passes() -> tuple[LoweringPass, ...]:
    return (
        remove_no_ops_early,
        canonical_views_early,
        spell_out_torchao,
        spell_out_fake_quantization,
        canonical_quantization,
        fold_constants_early,
        canonical_writes,
        pick_by_tensor,
        say_dtype_of_statistics,
        canonical_products,
        recognise_attention,
        recognise_gelu,
        recognise_rms_norm,
        canonical_rotary,
        fold_batch_norm,
        fold_pad,
        fuse_bias,
        order_rows_outside,
        fold_scale,
        set_precision,
        spell_out_dynamic_quantization,
        remove_dead_code_early,
        remove_no_ops,
        promote_types,
        canonical_views_late,
        canonical_expansions,
        merge_common_subexpressions,
        fold_constants,
        canonical_slices,
        narrow_integers,
        widen_bytes,
        sizes_from_inputs,
        remove_dead_code,
    )


def trtplug_decompositions() -> Mapping[OpOverload, Callable[..., Any]]:
    from trtplug_lowering_passes.decompositions import decompositions

    return decompositions()
