"""Real architectures, small: what is written out in them is found, and TensorRT gets less to do.

Each is lowered twice, with all passes and with only those that had been enough to convert it.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import trtplug
from trtplug.convert import convert
from trtplug.lowering import run_lowered
from trtplug.partition import extract, partition
from trtplug.settings import Settings
from trtplug.tracing import as_program

transformers = pytest.importorskip("transformers", reason="the models are transformers'")

aten = torch.ops.aten
ADDED = (
    *("attention", "gelu", "rms-norm", "views-early", "views", "common-subexpressions", "constant-folding-early"),
    *("batch-norm-folding", "pad-folding", "linear-bias", "scale-folding"),
)
SMALL = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "attn_implementation": "eager"}
IDS = torch.arange(16).view(2, 8) % 50
MASK = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])


def bert() -> nn.Module:
    return transformers.BertModel(transformers.BertConfig(hidden_size=32, vocab_size=50, **SMALL))


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=16, attn_implementation="eager", use_cache=False
    )
    config.bos_token_id = config.eos_token_id = 0
    return transformers.GPT2Model(config)


def llama() -> nn.Module:
    return transformers.LlamaModel(
        transformers.LlamaConfig(hidden_size=32, num_key_value_heads=2, vocab_size=50, use_cache=False, **SMALL)
    )


def t5() -> nn.Module:
    config = transformers.T5Config(
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=1,
        num_heads=4,
        vocab_size=50,
        attn_implementation="eager",
        use_cache=False,
    )
    return transformers.T5Model(config)


def vit() -> nn.Module:
    return transformers.ViTModel(transformers.ViTConfig(hidden_size=32, image_size=16, patch_size=8, **SMALL))


def resnet() -> nn.Module:
    return transformers.ResNetModel(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    )


@dataclasses.dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    inputs: dict[str, Any]
    counts: dict[Any, int]
    """How often each op stands in the lowered graph."""
    rotary: int = 0
    """How many queries and keys are turned."""


ATTENTION, RMS, GELU = aten.scaled_dot_product_attention.default, aten.rms_norm.default, aten.gelu.default
CASES = {
    "bert": Case(bert, {"input_ids": IDS, "attention_mask": MASK}, {ATTENTION: 2, GELU: 2, aten.softmax.int: 0}),
    "gpt2": Case(
        gpt2,
        {"input_ids": IDS, "attention_mask": MASK},
        {ATTENTION: 2, GELU: 2, aten.addmm.default: 0, aten.tanh.default: 0},
    ),
    "llama": Case(
        llama,
        {"input_ids": IDS, "attention_mask": MASK},
        {ATTENTION: 2, RMS: 5, aten.rsqrt.default: 0, aten.neg.default: 0},
        4,
    ),
    "t5": Case(t5, {"input_ids": IDS, "decoder_input_ids": IDS[:, :6]}, {ATTENTION: 3, RMS: 7, aten.rsqrt.default: 0}),
    "vit": Case(vit, {"pixel_values": torch.randn(2, 3, 16, 16)}, {ATTENTION: 2, GELU: 2}),
    "resnet": Case(resnet, {"pixel_values": torch.randn(2, 3, 16, 16)}, {aten.batch_norm.default: 0}),
}


def converted(lowered: Any, registry: Any) -> tuple[int, int]:
    """How many engines there are, and how many layers in them."""
    parts = partition(lowered.graph_module, lambda node: bool(registry.lookup(node)), min_block_size=1)
    layers = 0
    for block in parts.blocks:
        verdicts = {node.name: registry.lookup(node) for node in (*block.nodes, *block.copies)}
        graph = extract(lowered.graph_module, block)
        network = convert(graph, lambda node, v=verdicts: v[node.name].converter, ranges=lowered.ranges)
        layers += network.num_layers
    return len(parts.blocks), layers


def applied(lowered: Any, name: str) -> int:
    return sum(item.applied.get(name, 0) for item in lowered.passes)


@pytest.mark.parametrize("name", CASES)
def test_model(name):
    case = CASES[name]
    torch.manual_seed(0)
    model = case.make().eval()
    program = trtplug.trace(model, (), case.inputs)
    every = trtplug.registry()
    few = trtplug.registry(disable_passes=[f"trtplug-passes:{item}" for item in ADDED])
    ours = trtplug.lowering.lower(program, every, Settings(verify=True), strict=True)
    before = trtplug.lowering.lower(program, few, strict=True)
    found = [node.target for node in ours.graph_module.graph.nodes]
    assert {op: found.count(op) for op in case.counts} == case.counts
    assert applied(ours, "rotary") == case.rotary
    assert len(found) < len(before.graph_module.graph.nodes)
    (engines, layers), (engines_before, layers_before) = converted(ours, every), converted(before, few)
    assert engines <= engines_before == 1
    assert layers < layers_before
    with torch.no_grad():
        wanted, found = model(**case.inputs), run_lowered(ours, **case.inputs)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "vit"])
def test_model_that_was_decomposed(name):
    """Torch's own decomposition hides nothing: what is written out is found again, as often."""
    case = CASES[name]
    torch.manual_seed(0)
    program = trtplug.trace(case.make().eval(), (), case.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Torch's own pytree
        decomposed = as_program(program.exported.run_decompositions())
    lowered = trtplug.lowering.lower(decomposed, trtplug.registry(), Settings(verify=True), strict=True)
    found = [node.target for node in lowered.graph_module.graph.nodes]
    counts = {op: count for op, count in case.counts.items() if op in (ATTENTION, RMS, GELU)}
    assert {op: found.count(op) for op in counts} == counts
    assert applied(lowered, "rotary") == case.rotary


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_model_of_any_length(name):
    """Positions, masks and rotary angles are computed in each call then: found all the same, and in int32."""
    if name == "llama" and torch.__version__ < (2, 12):
        pytest.skip("torch.export of 2.11 finds that the model bounds its length")
    case = CASES[name]
    torch.manual_seed(0)
    model = case.make().eval()
    length = torch.export.Dim("length", min=2, max=16)
    exported = torch.export.export(model, (), case.inputs, dynamic_shapes={key: {1: length} for key in case.inputs})
    lowered = trtplug.lowering.lower(as_program(exported), trtplug.registry(), Settings(verify=True), strict=True)
    found = [node.target for node in lowered.graph_module.graph.nodes]
    assert (found.count(ATTENTION), applied(lowered, "rotary")) == (2, case.rotary)
    assert applied(lowered, "narrow-integers") >= 4
    values = [node.meta["val"] for node in lowered.graph_module.graph.nodes if node.op == "call_function"]
    assert not any(isinstance(value, torch.Tensor) and value.dtype == torch.int64 for value in values)
