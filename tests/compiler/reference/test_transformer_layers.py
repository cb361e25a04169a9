"""Attention, rotary embedding, key-value caches and quantization, against the arithmetic written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from handmade import Handmade, trt

from trtplug._tensorrt import trt_dtype

F32, F16, BF16, I32, I64 = torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64
FP8 = torch.float8_e4m3fn

pytestmark = pytest.mark.usefixtures("executor")
needs_attention = pytest.mark.skipif(
    not hasattr(trt.INetworkDefinition, "add_attention"), reason="this TensorRT has no attention"
)


def attention(made: Handmade, q: torch.Tensor, k: torch.Tensor, causal: bool = False) -> Any:
    tensors = [made.input(name, t.dtype, *t.shape) for name, t in (("q", q), ("k", k), ("v", k))]
    layer = made.network.add_attention(*tensors, trt.AttentionNormalizationOp.SOFTMAX, causal)
    layer.decomposable = True  # for engines: no fused kernel has these sizes
    return layer


@needs_attention
def test_attention_is_not_scaled_and_shares_heads() -> None:
    made = Handmade()
    q, k = torch.randn(2, 4, 3, 8), torch.randn(2, 2, 5, 8)
    have = made.run(attention(made, q, k).get_output(0), q, k, k)
    keys = k[:, [0, 0, 1, 1]]
    torch.testing.assert_close(have, torch.softmax(q @ keys.mT, -1) @ keys, rtol=5e-2, atol=5e-3)  # TF32 on a GPU


@needs_attention
@pytest.mark.parametrize("kind", ["UPPER_LEFT", "LOWER_RIGHT"])
def test_attention_causal(kind: str) -> None:
    if not hasattr(trt, "CausalMaskKind"):
        pytest.skip("this TensorRT has one causal alignment only")
    made = Handmade()
    q, k = torch.randn(1, 1, 2, 4), torch.randn(1, 1, 4, 4)
    layer = attention(made, q, k)
    layer.causal_kind = getattr(trt.CausalMaskKind, kind)
    have = made.run(layer.get_output(0), q, k, k)
    seen = [1, 2] if kind == "UPPER_LEFT" else [3, 4]  # keys that each query sees
    want = torch.stack([torch.softmax(q[0, 0, i] @ k[0, 0, :n].T, -1) @ k[0, 0, :n] for i, n in enumerate(seen)])
    torch.testing.assert_close(have, want[None, None])


@needs_attention
@pytest.mark.parametrize("dtype", [torch.bool, F16], ids=str)
def test_attention_masked_in_half(dtype: torch.dtype) -> None:
    made = Handmade()
    q, k = torch.randn(1, 2, 3, 4).half(), torch.randn(1, 2, 3, 4).half()
    layer = attention(made, q, k)
    layer.mask = made.input("mask", dtype, 1, 2, 3, 3)
    keep = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 1, 1]], dtype=torch.bool).expand(1, 2, 3, 3)
    added = torch.zeros(keep.shape).masked_fill(~keep, -torch.inf)
    have = made.run(layer.get_output(0), q, k, k, keep if dtype is torch.bool else added.half())
    want = torch.softmax(q.float() @ k.float().mT + added, -1) @ k.float()
    assert have.dtype is F16
    torch.testing.assert_close(have, want.half(), rtol=5e-3, atol=1e-3)  # a fused kernel rounds on the way


@pytest.mark.skipif(not hasattr(trt.INetworkDefinition, "add_rotary_embedding"), reason="this TensorRT has none")
@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_embedding(interleaved: bool) -> None:
    made = Handmade()
    x, angle = torch.randn(1, 2, 3, 6), torch.randn(10, 2)
    positions = torch.tensor([[4, 0, 9]])
    tensors = made.input("x", F32, *x.shape), made.constant(angle.cos()), made.constant(angle.sin())
    layer = made.network.add_rotary_embedding(*tensors, interleaved, 4)
    layer.set_input(3, made.input("p", I64, 1, 3))
    have = made.run(layer.get_output(0), x, positions)
    pairs = [(0, 1), (2, 3)] if interleaved else [(0, 2), (1, 3)]
    want = x.clone()
    for place, (i, j) in enumerate(pairs):
        turned = torch.complex(x[..., i], x[..., j]) * torch.exp(1j * angle[positions[0], place])
        want[..., i], want[..., j] = turned.real, turned.imag
    torch.testing.assert_close(have, want)


@pytest.mark.skipif(not hasattr(trt.INetworkDefinition, "add_kv_cache_update"), reason="this TensorRT has none")
def test_kv_cache_update(executor: str) -> None:
    if executor == "tensorrt":
        pytest.skip("an engine wants the cache and the result in the same memory")
    made = Handmade()
    cache, update = torch.zeros(2, 1, 4, 1), torch.arange(1.0, 5.0).reshape(2, 1, 2, 1)
    tensors = made.input("cache", F32, *cache.shape), made.input("update", F32, *update.shape), made.input("i", I32, 2)
    layer = made.network.add_kv_cache_update(*tensors, trt.KVCacheMode.LINEAR)
    have = made.run(layer.get_output(0), cache, update, torch.tensor([0, 2], dtype=I32))
    assert have.flatten().tolist() == [1, 2, 0, 0, 0, 0, 3, 4]


def quantized(made: Handmade, x: torch.Tensor, scale: torch.Tensor, to: torch.dtype, axis: int = 0) -> Any:
    layer = made.network.add_quantize(made.input("x", x.dtype, *x.shape), made.constant(scale), trt_dtype(to))
    layer.axis = axis
    return layer.get_output(0)


def test_quantize_rounds_halves_to_even_and_saturates() -> None:
    made = Handmade()
    x = torch.tensor([0.25, 0.75, -0.75, 100.0, -100.0])
    have = made.run(quantized(made, x, torch.tensor(0.5), torch.int8), x)
    assert have.dtype is torch.int8
    assert have.tolist() == [0, 2, -2, 127, -128]


def test_quantize_to_fp8_saturates() -> None:
    made = Handmade()
    x = torch.tensor([1e4, -1e4, 1.0])
    assert made.run(quantized(made, x, torch.tensor(1.0), FP8), x).float().tolist() == [448.0, -448.0, 1.0]


def test_quantize_and_dequantize_along_an_axis() -> None:
    made = Handmade()
    x, scale = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0.5, 4.0])
    layer = made.network.add_dequantize(quantized(made, x, scale, torch.int8, 1), made.constant(scale), trt.float32)
    layer.axis = 1
    assert made.run(layer.get_output(0), x).tolist() == [[1.0, 0.0], [3.0, 4.0]]


def test_dequantize_in_blocks() -> None:
    made = Handmade()
    weight = made.constant(torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8]], dtype=torch.int8))
    scale = made.constant(torch.tensor([[1.0, 10.0], [100.0, 1000.0]]))  # blocks of two rows
    layer = made.network.add_dequantize(weight, scale, trt.float32)
    layer.axis = 0
    try:
        list(layer.get_output(0).shape)
    except (RuntimeError, ValueError):
        pytest.skip("this TensorRT has no int8 blocks")
    assert made.run(layer.get_output(0)).tolist() == [[1, 20], [3, 40], [500, 6000], [700, 8000]]


def test_a_product_of_quantized_matrices_is_a_product_of_integers() -> None:
    """As int8 kernels compute it: sums of integers, scaled once per output channel."""
    made = Handmade()
    x, weight = torch.randn(3, 8), torch.randint(-127, 128, (5, 8), dtype=torch.int8)
    scale, scales = torch.tensor(0.03125), torch.tensor([0.5, 0.25, 1.0, 2.0, 0.125])  # powers of 2: nothing is rounded
    steps = quantized(made, x, scale, torch.int8)
    left = made.network.add_dequantize(steps, made.constant(scale), trt.float32).get_output(0)
    right = made.network.add_dequantize(made.constant(weight), made.constant(scales), trt.float32)
    right.axis = 0
    operation = trt.MatrixOperation
    product = made.network.add_matrix_multiply(left, operation.NONE, right.get_output(0), operation.TRANSPOSE)
    integers = (x / scale).round().clamp(-128, 127).long() @ weight.long().T
    assert torch.equal(made.run(product.get_output(0), x), integers * scale * scales)


@pytest.mark.parametrize("value", [-128, -1, 0, 127])
def test_int8_casts_keep_integers(value: int) -> None:
    made = Handmade()
    x = torch.full((2,), float(value))
    narrow = made.network.add_cast(made.input("x", F32, 2), trt.int8).get_output(0)
    wide = made.network.add_cast(narrow, trt.float32).get_output(0)
    assert torch.equal(made.run(wide, x), x)
