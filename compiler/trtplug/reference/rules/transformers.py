"""Attention, rotary embedding, key-value caches, quantization."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import Node

from trtplug._tensorrt import read_dims
from trtplug.reference.semantics import attention, quantization
from trtplug.reference.site import Rule, Site


def _causal(handle: object) -> str:
    kind = getattr(handle, "causal_kind", None)
    if kind is not None and kind.name != "NONE":
        return str(kind.name)
    return "UPPER_LEFT" if getattr(handle, "causal", False) else "NONE"


def attention_input(site: Site) -> Node:
    scope = site.handle.attention
    for form in ("query_form", "key_value_form"):
        if getattr(scope, form, None) is not None and getattr(scope, form).name != "PADDED_BHND":
            raise site.refuse(f"{form} {getattr(scope, form).name}")
    if getattr(scope, "normalization_quantize_scale", None) is not None:
        raise site.refuse("the softmax is quantized")
    tensors = {name: getattr(scope, name, None) for name in ("mask", "key_value_lengths")}
    mask, lengths = (None if t is None else site.scope.values[t] for t in tensors.values())
    softmax = scope.norm_op.name == "SOFTMAX"
    query, key, value = (site.node(index) for index in range(3))
    return site.compute(attention.attention, query, key, value, mask, lengths, softmax, _causal(scope))


def attention_output(site: Site) -> Node:
    return site.node(0)


def rotary_embedding(site: Site) -> Node:
    layer = site.handle
    operands = site.node(0), site.node(1), site.node(2), site.maybe(3)
    return site.compute(attention.rotary_embedding, *operands, bool(layer.interleaved), layer.rotary_embedding_dim)


def kv_cache_update(site: Site) -> Node:
    form = getattr(site.handle, "update_form", None)
    if site.handle.cache_mode.name != "LINEAR" or (form is not None and form.name != "PADDED_BHND"):
        raise site.refuse(f"mode {site.handle.cache_mode.name}, form {form}")
    return site.move(attention.kv_cache_update, *(site.node(index) for index in range(3)))


def quantize(site: Site) -> Node:
    to = site.layer.outputs[0].dtype.name
    if to not in ("INT8", "UINT8", "INT4", "FP8"):
        raise site.refuse(f"to {to}")
    operands = site.node(0), site.node(1), site.maybe(2)
    return site.move(quantization.quantize, *operands, site.handle.axis, _block(site), to)


def dequantize(site: Site) -> Node:
    operands = site.node(0), site.node(1), site.maybe(2)
    return site.move(quantization.dequantize, *operands, site.handle.axis, _block(site), site.out_dtype())


def _block(site: Site) -> list[int] | None:
    return read_dims(site.handle, "block_shape") or None


RULES: Mapping[str, Rule] = {
    "ATTENTION_INPUT": attention_input,
    "ATTENTION_OUTPUT": attention_output,
    "DEQUANTIZE": dequantize,
    "KV_CACHE_UPDATE": kv_cache_update,
    "QUANTIZE": quantize,
    "ROTARY_EMBEDDING": rotary_embedding,
}
