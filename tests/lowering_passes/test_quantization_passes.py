"""Quantization becomes what TensorRT has, by arithmetic that is the same to the last bit."""

from __future__ import annotations

import pytest
import torch
import torch.ao.quantization.fx._decomposed
from conftest_passes import apply, graph_of, targets
from torch import nn

from trtplug_lowering_passes import (
    canonical_quantization,
    fold_constants,
    remove_no_ops_early,
    spell_out_dynamic_quantization,
    spell_out_fake_quantization,
    spell_out_torchao,
)
from trtplug_registry import take_notes

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


# --- fake quantization ------------------------------------------------------------------------------------------------

SCALES = torch.rand(6, generator=torch.Generator().manual_seed(1)) * 0.1 + 0.01
ZEROS = torch.arange(6, dtype=torch.int32) // 3


class Faked(nn.Module):
    """Fake quantization of what comes in, or of a weight."""

    def __init__(self, function, weight=False):
        super().__init__()
        self.function = function
        self.register_buffer("scales", SCALES)
        self.register_buffer("zeros", ZEROS)
        self.register_buffer("one", torch.tensor(0.03))
        self.register_buffer("none", torch.tensor(2, dtype=torch.int32))
        self.register_buffer("on", torch.tensor([1]))
        self.register_buffer("off", torch.tensor([0]))
        self.weight = nn.Parameter(X.clone() * 3) if weight else None

    def forward(self, x):
        fake = self.function(self, x if self.weight is None else self.weight)
        return fake if self.weight is None else x + fake


aten = torch.ops.aten
GRIDS = [(-128, 127), (-127, 127), (-8, 7), (0, 255), (0, 127)]
FAKES = {
    "numbers": lambda self, x, *grid: torch.fake_quantize_per_tensor_affine(x, 0.03, 2, *grid),
    "tensors": lambda self, x, *grid: torch.fake_quantize_per_tensor_affine(x, self.one, self.none, *grid),
    "channels": lambda self, x, *grid: torch.fake_quantize_per_channel_affine(x, self.scales, self.zeros, 1, *grid),
    "decomposed": lambda self, x, *grid: aten.fake_quantize_per_tensor_affine_cachemask(x, 0.03, 2, *grid)[0],
    "decomposed channels": lambda self, x, *grid: aten.fake_quantize_per_channel_affine_cachemask(
        x, self.scales, self.zeros, 1, *grid
    )[0],
    "switched on": lambda self, x, *grid: aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams(
        x, self.one, self.none, self.on, *grid
    )[0],
}


@pytest.mark.parametrize("weight", [False, True], ids=["input", "weight"])
@pytest.mark.parametrize("name", FAKES)
def test_fake_quantization_is_a_pair_of_ops(name, weight):
    for grid in GRIDS if name in ("numbers", "channels") else GRIDS[:1]:
        graph = graph_of(Faked(lambda self, x, grid=grid: FAKES[name](self, x, *grid), weight), X)
        assert apply(spell_out_fake_quantization, graph, X), "to the last bit"
        kind = "channel" if "channels" in name else "tensor"
        pair = [f"quantize_per_{kind}.default", f"dequantize_per_{kind}.default"]
        assert targets(graph) == ([pair[1], "add.Tensor"] if weight else pair)
        held = {node.target: node.meta["val"].dtype for node in graph.graph.find_nodes(op="get_attr")}
        assert "weight" not in held, "in its place"
        assert held.get("folded_weight_int8") == (torch.int8 if weight else None)
        assert take_notes(graph).applied["fake-quantization"] == 1


def test_fake_quantization_of_halves():
    for dtype in (torch.float16, torch.bfloat16):
        x = X.to(dtype)
        graph = graph_of(lambda x: (torch.fake_quantize_per_tensor_affine(x, 0.03, 0, -128, 127),), x)
        assert apply(spell_out_fake_quantization, graph, x)


DECLINED = {
    "the grid has more than 8 bits": lambda self, x: torch.fake_quantize_per_tensor_affine(x, 0.03, 0, -128, 128),
    "its parameters are computed": lambda self, x: torch.fake_quantize_per_tensor_affine(
        x, x.max() / 127, self.none, -128, 127
    ),
    "its zero point is no integer": lambda self, x: torch.fake_quantize_per_channel_affine(
        x, self.scales, self.scales, 1, -128, 127
    ),
    "its mask is read": lambda self, x: aten.fake_quantize_per_tensor_affine_cachemask(x, 0.03, 2, 0, 255),
    "it is switched off": lambda self, x: aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams(
        x, self.one, self.none, self.off, 0, 255
    )[0],
    "TensorRT has no float64": lambda self, x: torch.fake_quantize_per_tensor_affine(x.double(), 0.03, 0, -128, 127),
}


@pytest.mark.parametrize("reason", DECLINED)
def test_fake_quantization_that_stays(reason):
    graph = graph_of(Faked(DECLINED[reason]), X)
    assert not apply(spell_out_fake_quantization, graph, X)
    assert f"fake-quantization: {reason}" in take_notes(graph).declined


# --- dynamic quantization ---------------------------------------------------------------------------------------------

DYNAMIC = {
    "affine": (q.choose_qparams.tensor, (0, 255), torch.uint8),
    "affine, signed": (q.choose_qparams.tensor, (-128, 127), torch.int8),
    "symmetric": (q.choose_qparams_symmetric.tensor, (-127, 127), torch.int8),
    "symmetric bytes": (q.choose_qparams_symmetric.tensor, (0, 255), torch.uint8),
}
RANGES = {"both signs": X, "above 0": X.abs() + 1, "below 0": -X.abs() - 1, "nothing": X * 0, "tiny": X * 1e-6}


def dynamic(choose, limits, dtype, out=None):
    def function(x):
        scale, zero = choose(x, *limits, 2.0**-12, dtype)
        steps = q.quantize_per_tensor.tensor(x, scale, zero, *limits, dtype)
        return (q.dequantize_per_tensor.tensor(steps, scale, zero, *limits, dtype, out_dtype=out) + 0.0,)

    return function


@pytest.mark.parametrize("name", DYNAMIC)
def test_dynamic_quantization_is_arithmetic(name):
    for x in RANGES.values():
        graph = graph_of(dynamic(*DYNAMIC[name]), x)
        assert apply(spell_out_dynamic_quantization, graph, x), "to the last bit"
        assert not any("quant" in target or "qparams" in target for target in targets(graph))
        assert take_notes(graph).applied["dynamic-quantization"] == 1


KEPT = {
    "it is not of float32": lambda x: dynamic(*DYNAMIC["affine"])(x.half()),
    "scale or zero point are read elsewhere": lambda x: (q.choose_qparams.tensor(x, 0, 255, 0.1, torch.uint8)[0],),
    "the steps are read elsewhere": lambda x: (
        (c := q.choose_qparams.tensor(x, 0, 255, 0.1, torch.uint8)),
        (s := q.quantize_per_tensor.tensor(x, *c, 0, 255, torch.uint8)),
        q.dequantize_per_tensor.tensor(s, *c, 0, 255, torch.uint8),
    )[1:],
}


@pytest.mark.parametrize("reason", KEPT)
def test_dynamic_quantization_that_stays(reason):
    graph = graph_of(KEPT[reason], X)
    assert not apply(spell_out_dynamic_quantization, graph, X)
    assert f"dynamic-quantization: {reason}" in take_notes(graph).declined


# --- torchao ----------------------------------------------------------------------------------------------------------


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
