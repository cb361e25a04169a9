"""Quantized models: what PT2E and torchao export becomes engines with int8 inside, equal to eager's simulation."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest
import torch
import torch.ao.quantization.fx._decomposed
from torch import nn

import trtplug
from trtplug._tensorrt import library
from trtplug_registry import ReasonCode

q = torch.ops.quantized_decomposed
INT8 = (-128, 127, torch.int8)


class Activation(nn.Module):
    """Quantized and dequantized, as PT2E writes it."""

    def __init__(self, scale: float, zero: int = 0, limits: tuple = INT8) -> None:
        super().__init__()
        self.parameters_ = (scale, zero, *limits)

    def forward(self, x):
        return q.dequantize_per_tensor(q.quantize_per_tensor(x, *self.parameters_), *self.parameters_)


class Weight(nn.Module):
    """An int8 weight with a scale for each output channel."""

    def __init__(self, *shape: int, zero: int = 0) -> None:
        super().__init__()
        self.register_buffer("values", torch.randint(-127, 128, shape, dtype=torch.int8))
        self.register_buffer("scales", torch.rand(shape[0]) * 0.01 + 0.001)
        self.register_buffer("zeros", torch.full((shape[0],), zero))

    def forward(self):
        return q.dequantize_per_channel(self.values, self.scales, self.zeros, 0, *INT8)


class Convolutions(nn.Module):
    def __init__(self, activation=Activation):
        super().__init__()
        self.q1, self.q2, self.q3 = activation(0.03), activation(0.05), activation(0.02)
        self.w1, self.w2, self.w3 = Weight(8, 3, 3, 3), Weight(8, 8, 3, 3), Weight(4, 8)

    def forward(self, x):
        x = torch.relu(torch.conv2d(self.q1(x), self.w1(), padding=1))
        x = torch.relu(torch.conv2d(self.q2(x), self.w2()))
        return nn.functional.linear(self.q3(x.mean((2, 3))), self.w3())


class Mlp(nn.Module):
    """The second half of a transformer's block."""

    def __init__(self, activation=Activation, zero=0):
        super().__init__()
        self.norm, self.q1, self.q2 = nn.LayerNorm(16), activation(0.03), activation(0.04)
        self.up, self.down = Weight(32, 16, zero=zero), Weight(16, 32, zero=zero)

    def forward(self, x):
        hidden = nn.functional.gelu(nn.functional.linear(self.q1(self.norm(x)), self.up()))
        return x + nn.functional.linear(self.q2(hidden), self.down())


def layers(compiled) -> Counter[str]:
    """How many layers of each kind there are in the networks, read back by the reference executor."""
    found: Counter[str] = Counter()
    for engine in compiled.engines:
        found.update(getattr(node.target, "__name__", "") for node in engine.reference.graph.nodes)
    return found


PICTURE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
OLD = tuple(map(int, library().__version__.split(".")[:2])) < (1, 7)
without_int8_convolution = pytest.mark.skipif(OLD, reason="TensorRT-RTX builds no int8 convolution before 1.7")


def near(ours: torch.Tensor, theirs: torch.Tensor, steps: float = 0.02) -> None:
    """Equal but for quantization steps: an activation next to a tie may be rounded to either neighbour."""
    assert ours.dtype == theirs.dtype
    assert (ours - theirs).abs().max() <= steps * theirs.abs().max()


@pytest.mark.parametrize(
    ("model", "x", "pairs"),
    [pytest.param(Convolutions, PICTURE, 3, marks=without_int8_convolution, id="cnn"), (Mlp, ROWS, 2)],
)
def test_one_engine_with_int8_inside(model, x, pairs):
    torch.manual_seed(0)
    module = model().eval()
    compiled = trtplug.compile(module, (x,))
    assert len(compiled.report.engines) == 1
    assert not compiled.report.torch_ops
    found = layers(compiled)
    assert (found["quantize"], found["dequantize"]) == (pairs, 2 * pairs), "weights are dequantized in the network"
    near(compiled(x), module(x))


def test_an_engine_holds_int8_weights():
    class Large(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.weight = Activation(0.05), Weight(1024, 1024)

        def forward(self, x):
            return nn.functional.linear(self.act(x), self.weight())

    compiled = trtplug.compile(Large(), (torch.randn(2, 1024),), min_block_size=1)
    assert compiled.report.engines[0].bytes < 2 * 1024 * 1024, "a quarter of float32"


@pytest.mark.parametrize(
    "activation",
    [
        lambda scale: Activation(scale, 3),
        lambda scale: Activation(scale, -128),
        lambda scale: Activation(scale, 0, (-127, 127, torch.int8)),
        lambda scale: Activation(scale, 127, (0, 255, torch.uint8)),
        lambda scale: Activation(scale, 0, (0, 255, torch.uint8)),
    ],
    ids=["zero point", "least zero point", "narrow", "unsigned", "unsigned from zero"],
)
def test_asymmetric_activations_are_exact(activation):
    """In float32, as eager computes them: in one engine, and equal to the last step."""
    torch.manual_seed(0)
    module = Mlp(activation, zero=1).eval()
    compiled = trtplug.compile(module, (ROWS,))
    assert len(compiled.report.engines) == 1
    assert not compiled.report.torch_ops
    found = layers(compiled)
    assert found["quantize"] == 0
    assert found["dequantize"] == 4, "int8 is dequantized by 1, which changes nothing"
    torch.testing.assert_close(compiled(ROWS), module(ROWS), rtol=1e-5, atol=1e-5)


def test_two_blocks_have_a_weight_each():
    """A dequantized weight depends on no activation: both engines dequantize it, and no float weight crosses."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.weight = Activation(0.05), Weight(16, 16)

        def forward(self, x):
            weight = self.weight()
            x = torch.relu(nn.functional.linear(self.act(x), weight))
            x = torch.sort(x).values
            return torch.relu(nn.functional.linear(self.act(x), weight))

    torch.manual_seed(0)
    module = Twice()
    compiled = trtplug.compile(module, (ROWS,), torch_ops=["aten::sort"])
    assert len(compiled.engines) == 2
    for engine in compiled.engines:
        names = Counter(getattr(node.target, "__name__", "") for node in engine.reference.graph.nodes)
        assert (names["quantize"], names["dequantize"]) == (1, 2)
        assert [facts.shape for _, facts in engine.inputs] == [(5, 16)]
    near(compiled(ROWS), module(ROWS))


def test_constant_parameters_are_read():
    class Tensors(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.tensor([0.04]))
            self.register_buffer("zero", torch.tensor([0]))
            self.register_buffer("low", torch.tensor(-128))
            self.register_buffer("high", torch.tensor(127))

        def forward(self, x):
            two = (self.scale, self.zero, self.low, self.high, torch.int8)
            x = q.dequantize_per_tensor.tensor2(q.quantize_per_tensor.tensor2(x, *two), *two)
            one = (self.scale, self.zero, *INT8)
            return q.dequantize_per_tensor.tensor(q.quantize_per_tensor.tensor(x.tanh(), *one), *one)

    module = Tensors()
    compiled = trtplug.compile(module, (ROWS,))
    assert not compiled.report.torch_ops
    assert (layers(compiled)["quantize"], layers(compiled)["dequantize"]) == (2, 2)
    torch.testing.assert_close(compiled(ROWS), module(ROWS), rtol=0, atol=0.0401)


def test_fake_quantization_becomes_layers():
    """As training for quantization leaves it: weights are rounded at compile time, and int8 in the engine."""

    class Faked(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
            self.register_buffer("scales", self.up.weight.detach().abs().amax(1) / 127)
            self.register_buffer("zeros", torch.zeros(32, dtype=torch.int32))

        def forward(self, x):
            fake = torch.fake_quantize_per_tensor_affine
            up = torch.fake_quantize_per_channel_affine(self.up.weight, self.scales, self.zeros, 0, -127, 127)
            hidden = torch.relu(nn.functional.linear(fake(x, 0.03, 0, -128, 127), up, self.up.bias))
            down = fake(self.down.weight, 0.002, 0, -128, 127)
            return nn.functional.linear(fake(hidden, 0.01, 3, 0, 255), down, self.down.bias)

    torch.manual_seed(0)
    module = Faked().eval()
    compiled = trtplug.compile(module, (ROWS,))
    assert len(compiled.report.engines) == 1
    assert not compiled.report.torch_ops
    found = layers(compiled)
    assert (found["quantize"], found["dequantize"]) == (1, 4), "an asymmetric grid is arithmetic"
    near(compiled(ROWS), module(ROWS))


def test_scales_that_each_call_finds():
    """Dynamic quantization, as PT2E writes it, is arithmetic in the one engine."""

    class Dynamic(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = Weight(8, 16)

        def forward(self, x):
            uint8 = (0, 255, torch.uint8)
            chosen = (*q.choose_qparams.tensor(x, 0, 255, 2.0**-12, torch.uint8), *uint8)
            steps = q.quantize_per_tensor.tensor(x, *chosen)
            return nn.functional.linear(q.dequantize_per_tensor.tensor(steps, *chosen), self.weight())

    torch.manual_seed(0)
    module = Dynamic().eval()
    compiled = trtplug.compile(module, (ROWS,))
    assert (len(compiled.report.engines), compiled.report.torch_ops) == (1, ())
    for scale in (1.0, 100.0, 1e-3):
        torch.testing.assert_close(compiled(ROWS * scale), module(ROWS * scale), rtol=1e-5, atol=1e-5)


def test_unsigned_bytes_that_others_read_stay_in_torch():
    class Bytes(nn.Module):
        def forward(self, x):
            return q.quantize_per_tensor(x * 2.0 + 1.0, 0.1, 3, 0, 255, torch.uint8)

    report = trtplug.explain(Bytes(), (ROWS,), min_block_size=1)
    (left,) = report.torch_ops
    assert left.op == "quantized_decomposed::quantize_per_tensor"
    assert left.reasons[0].code is ReasonCode.ARGUMENT
    assert "an engine takes unsigned bytes in but makes none" in str(left.reasons[0])


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_precision_goes_around_quantization(name):
    """No cast stands between a dequantize and its product: the layer itself makes halves."""
    torch.manual_seed(0)
    module = Mlp().eval()
    compiled = trtplug.compile(module, (ROWS,), precision=name)
    assert len(compiled.report.engines) == 1
    by_op = {node.op: node.dtype for node in compiled.report.nodes}
    assert by_op["aten::linear"] == name
    found = layers(compiled)
    assert (found["quantize"], found["dequantize"]) == (2, 4)
    near(compiled(ROWS), module(ROWS), {"float16": 0.02, "bfloat16": 0.05}[name])


def test_just_in_time():
    torch.manual_seed(0)
    torch.compiler.reset()
    module = Mlp().eval()
    fast = torch.compile(module, backend="trtplug")
    with torch.no_grad():
        near(fast(ROWS), module(ROWS))
    (report,) = trtplug.reports(fast)
    assert not report.torch_ops


# --- torchao ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pt2e():
    """PT2E by way of torchao, with int8 that is symmetric all through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao's own, while it is imported
        pytest.importorskip("torchao", reason="torchao is not installed: pip install torchao")
        from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import QuantizationSpec
        from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
            QuantizationConfig,
            X86InductorQuantizer,
            get_default_x86_inductor_quantization_config,
        )

    def quantize(model: nn.Module, x: torch.Tensor, symmetric: bool) -> nn.Module:
        config = get_default_x86_inductor_quantization_config()
        if symmetric:
            common = {"dtype": torch.int8, "quant_min": -128, "quant_max": 127}
            inputs = QuantizationSpec(
                **common,
                qscheme=torch.per_tensor_symmetric,
                observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=2**-12),
            )
            weights = QuantizationSpec(
                **common,
                qscheme=torch.per_channel_symmetric,
                ch_axis=0,
                observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=2**-12),
            )
            config = QuantizationConfig(inputs, None, weights, None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(model, (x,)).module()
            prepared = prepare_pt2e(exported, X86InductorQuantizer().set_global(config))
            prepared(x)
            return convert_pt2e(prepared)

    return quantize


class SmallNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.second(torch.relu(self.norm(self.first(x)))))
        return self.last(x.mean((2, 3)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "as quantized for x86"])
@pytest.mark.parametrize(
    ("make", "x", "products"),
    [pytest.param(SmallNetwork, PICTURE, 3, marks=without_int8_convolution, id="cnn"), (Block, ROWS, 2)],
)
def test_a_model_that_torchao_has_quantized(pt2e, make, x, products, symmetric):
    torch.manual_seed(0)
    original = make().eval()
    module = pt2e(original, x, symmetric)
    compiled = trtplug.compile(torch.export.export(module, (x,)))
    assert len(compiled.report.engines) == 1
    assert not compiled.report.torch_ops
    found = layers(compiled)
    assert found["dequantize"] == 2 * products
    assert found["quantize"] == (products if symmetric else 0)
    near(compiled(x), module(x), 0.03 if symmetric else 1e-4)
    assert (compiled(x) - original(x)).abs().max() < 0.1 * original(x).abs().max(), "the float model, nearly"


CONFIGS = {
    "IntxWeightOnlyConfig": lambda ao: ao.IntxWeightOnlyConfig(),
    "Int8WeightOnlyConfig": lambda ao: ao.Int8WeightOnlyConfig(),
    "groups of int8": lambda ao: ao.IntxWeightOnlyConfig(torch.int8, granularity=ao.PerGroup(8)),
    "groups of int4": lambda ao: ao.IntxWeightOnlyConfig(torch.int4, granularity=ao.PerGroup(8)),
    "Float8WeightOnlyConfig": lambda ao: ao.Float8WeightOnlyConfig(),
    "dynamic, groups of int4": lambda ao: ao.Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4, weight_granularity=ao.PerGroup(8)
    ),
}


@pytest.mark.parametrize("config", CONFIGS)
def test_weights_that_torchao_has_quantized(config):
    """By ``quantize_``, as it is exported: weights are int8 or float8 in the engine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao's own
        quantization = pytest.importorskip(
            "torchao.quantization", reason="torchao is not installed: pip install torchao"
        )
        torch.manual_seed(0)
        module = Block().eval()
        quantization.quantize_(module, CONFIGS[config](quantization))
        exported = torch.export.export(module, (ROWS,))
    compiled = trtplug.compile(exported)
    assert len(compiled.report.engines) == 1
    assert not compiled.report.torch_ops
    assert layers(compiled)["dequantize"] == 2
    if "dynamic" in config:
        near(compiled(ROWS), module(ROWS))  # an activation next to a tie may be rounded to either neighbour
    else:
        torch.testing.assert_close(compiled(ROWS), module(ROWS), rtol=1e-5, atol=1e-5)


def test_float8_weights_and_activations():
    """As PT2E writes float8 with torchao."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao's own
        pytest.importorskip("torchao.quantization.quant_primitives", reason="needs torchao: pip install torchao")
    float8 = torch.float8_e4m3fn
    ops = torch.ops.torchao

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.tensor(0.01))
            self.register_buffer("weight", torch.randn(8, 16).to(float8))

        def forward(self, x):
            x = ops.quantize_affine_float8_non_decomposed(x, self.scale, float8)
            x = ops.dequantize_affine_float8_non_decomposed(x, self.scale)
            weight = ops.dequantize_affine_float8_non_decomposed(self.weight, self.scale)
            return nn.functional.linear(x, weight)

    torch.manual_seed(0)
    module = Linear()
    compiled = trtplug.compile(module, (ROWS,))
    assert not compiled.report.torch_ops
    assert (layers(compiled)["quantize"], layers(compiled)["dequantize"]) == (1, 2)
    torch.testing.assert_close(compiled(ROWS), module(ROWS), rtol=1e-5, atol=1e-5)
