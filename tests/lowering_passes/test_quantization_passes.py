"""Quantization becomes what TensorRT has, by arithmetic that is the same to the last bit."""

from __future__ import annotations

import pytest
import torch
import torch.ao.quantization.fx._decomposed
from conftest_passes import apply, graph_of, targets
from torch import nn

from trtplug_lowering_passes import canonical_quantization, fold_constants, remove_no_ops_early, spell_out_torchao

q = torch.ops.quantized_decomposed
X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * 4


def arguments(graph, op):
    (node,) = (n for n in graph.graph.nodes if op in str(n.target))
    return [item for item in node.args if not isinstance(item, torch.fx.Node)]


@pytest.mark.parametrize("zero", [0, 3, 127, 255])
def test_unsigned_bytes_become_signed(zero):
    parameters = (0.05, zero, 0, 255, torch.uint8)
    graph = graph_of(lambda x: (q.dequantize_per_tensor(q.quantize_per_tensor(x, *parameters), *parameters),), X)
    assert apply(canonical_quantization, graph, X), "apply() compares the results bit by bit"
    lowered = [0.05, zero - 128, -128, 127, torch.int8]
    assert arguments(graph, "decomposed.quantize_per_tensor") == lowered
    assert arguments(graph, "decomposed.dequantize_per_tensor") == lowered


def test_bytes_that_others_read_are_left():
    def function(x):
        steps = q.quantize_per_tensor(x, 0.05, 3, 0, 255, torch.uint8)
        return steps, q.dequantize_per_tensor(steps, 0.05, 3, 0, 255, torch.uint8)

    assert not apply(canonical_quantization, graph_of(function, X), X)


class Tensors(nn.Module):
    def __init__(self, written: bool):
        super().__init__()
        self.written = written
        self.register_buffer("scale", torch.tensor([0.04]))
        self.register_buffer("zero", torch.tensor(2))

    def forward(self, x):
        if self.written:
            self.scale.mul_(1.0)
        parameters = (self.scale, self.zero, -128, 127, torch.int8)
        return q.dequantize_per_tensor.tensor(q.quantize_per_tensor.tensor(x, *parameters), *parameters)


def test_constant_parameters_become_numbers():
    graph = graph_of(Tensors(False), X)
    assert apply(canonical_quantization, graph, X)
    scale = torch.tensor(0.04).item()
    assert targets(graph) == ["quantize_per_tensor.default", "dequantize_per_tensor.default"]
    assert arguments(graph, "decomposed.quantize_per_tensor") == [scale, 2, -128, 127, torch.int8]


def test_parameters_that_the_model_writes_are_left():
    assert canonical_quantization.function(graph_of(Tensors(True), X)) is False


def test_a_dequantized_weight_is_never_folded():
    class Weight(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("values", torch.randint(-127, 128, (3, 6), dtype=torch.int8))
            self.register_buffer("scales", torch.rand(3))
            self.register_buffer("zeros", torch.zeros(3, dtype=torch.int64))

        def forward(self, x):
            weight = q.dequantize_per_channel(self.values, self.scales, self.zeros, 0, -128, 127, torch.int8)
            return x @ weight.t() + q.dequantize_per_tensor(self.values, 0.5, 0, -128, 127, torch.int8).sum()

    graph = graph_of(Weight(), X)
    apply(fold_constants, graph, X)
    assert {"dequantize_per_channel.default", "dequantize_per_tensor.default"} <= set(targets(graph))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_casts_of_int8_are_dequantized_by_one(dtype):
    x = torch.arange(-128, 128).to(torch.int8)
    graph = graph_of(lambda x: (x.to(dtype) * 2.0, x.to(torch.int32)), x)
    remove_no_ops_early.function(graph)
    assert apply(spell_out_torchao, graph, x)
    assert sorted(targets(graph)) == ["dequantize_per_tensor.default", "mul.Tensor", "to.dtype"]


@pytest.mark.parametrize(
    ("blocks", "axis"), [([1, 6], 0), ([4, 1], 1), ([4, 6], None)], ids=["rows", "columns", "whole"]
)
def test_affine_ops_of_torchao(blocks, axis):
    pytest.importorskip("torchao", reason="torchao is not installed: pip install torchao")
    count = 1 if axis is None else (4, 6)[axis]

    class Affine(nn.Module):
        def __init__(self):
            super().__init__()
            shape = [size // block for size, block in zip((4, 6), blocks)]
            self.register_buffer("scale", torch.rand(shape) + 0.01)
            self.register_buffer("zero", torch.randint(-5, 5, shape, dtype=torch.int8))

        def forward(self, x):
            steps = torch.ops.torchao.quantize_affine(x, blocks, self.scale, self.zero, torch.int8, -128, 127)
            return torch.ops.torchao.dequantize_affine(steps, blocks, self.scale, self.zero, torch.int8, -128, 127)

    graph = graph_of(Affine(), X)
    assert apply(spell_out_torchao, graph, X)
    kind = "tensor" if count == 1 else "channel"
    assert targets(graph) == [f"quantize_per_{kind}.default", f"dequantize_per_{kind}.default"]
