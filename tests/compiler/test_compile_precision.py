"""Precision as a user sees it: settings, engines in half types, the report, and how far the results are."""

from __future__ import annotations

import copy
import io
import json

import pytest
import torch
from conftest_real import sentence_encoder
from pages import page_data
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification
from typer.testing import CliRunner

import trtplug
from trtplug.cli import app
from trtplug.errors import SettingsError
from trtplug.lowering import lower, run_lowered
from trtplug.settings import Settings
from trtplug_registry import ReasonCode, UnknownNameError

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.first(x)))).softmax(-1)


@pytest.fixture(scope="module")
def head():
    torch.manual_seed(0)
    return Head().eval()


X = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "dtype", "near"), [("float16", F16, 2e-3), ("bfloat16", BF16, 2e-2)])
def test_one_engine_in_a_half_type(head, name, dtype, near):
    compiled = trtplug.compile(head, (X,), precision=name, verify=True)
    assert len(compiled.report.engines) == 1
    assert not compiled.report.torch_ops
    result = compiled(X)
    assert result.dtype == F32
    torch.testing.assert_close(result, head(X), rtol=0, atol=near)
    assert not torch.equal(result, head(X)), "it does compute in a half type"
    (engine,) = compiled.engines
    assert [facts.dtype for _, facts in (*engine.inputs, *engine.outputs)] == [F32, F32]
    by_op = {node.op: node.dtype for node in compiled.report.nodes}
    assert by_op["aten::linear"] == name
    assert by_op["aten::layer_norm"] == by_op["aten::softmax.int"] == "float32"


def test_engines_are_smaller():
    model = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512))
    x = torch.randn(1, 512)
    full, half = (trtplug.compile(model, (x,), precision=name).report.engines[0].bytes for name in ("keep", "float16"))
    assert half < 0.6 * full


def test_double_precision_is_left_to_torch_unless_asked(head):
    model = copy.deepcopy(head).double()
    x = X.double()
    report = trtplug.explain(model, (x,))
    assert not report.engines
    assert {reason.code for node in report.torch_ops for reason in node.reasons} == {ReasonCode.DTYPE}
    compiled = trtplug.compile(model, (x,), precision="float32")
    assert len(compiled.report.engines) == 1
    assert {node.op for node in compiled.report.torch_ops} == {"aten::_to_copy"}, "TensorRT has no float64 to cast"
    assert compiled(x).dtype == torch.float64
    torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=1e-6)


def test_the_report_tells_each_dtype_and_why(head):
    report = trtplug.explain(head, (X,), precision="float16", precision_exclude=["first"])
    by_name = {node.name: node for node in report.nodes}
    assert (by_name["linear"].dtype, by_name["linear"].precision) == ("float32", "precision_exclude names 'first'")
    assert (by_name["linear_1"].dtype, by_name["linear_1"].precision) == ("float16", "")
    assert "statistics" in by_name["layer_norm"].precision
    assert {item["dtype"] for item in json.loads(report.to_json())["nodes"]} == {"float16", "float32"}
    assert {item["dtype"] for item in page_data(report.to_html())["model"]["nodes"]} == {"float16", "float32"}
    assert "float32 ×" in str(report)
    text = io.StringIO()
    report.print(text, nodes=True)
    assert "why this dtype" in text.getvalue()


def test_just_in_time(head):
    torch.compiler.reset()
    fast = torch.compile(head, backend="trtplug", options={"precision": "float16", "precision_exclude": ["aten::relu"]})
    with torch.no_grad():
        result = fast(X)
    assert result.dtype == F32
    torch.testing.assert_close(result, head(X), rtol=0, atol=2e-3)
    assert not torch.equal(result, head(X))


def test_on_the_command_line(tmp_path):
    (tmp_path / "model_of_precision.py").write_text(
        "import torch\n\n\ndef make():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Softmax(-1)).eval(), (torch.randn(2, 4),)\n"
    )
    model = f"{tmp_path / 'model_of_precision.py'}:make"
    arguments = ["explain", model, "--precision", "bfloat16", "--min-block-size", "1"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    by_op = {node["op"]: node["dtype"] for node in json.loads(result.stdout)["nodes"]}
    assert (by_op["aten::linear"], by_op["aten::softmax.int"]) == ("bfloat16", "float32")
    result = CliRunner().invoke(app, [*arguments, "--precision-exclude", "re:^0$", "--nodes"])
    assert "re:^0$" in result.stdout.replace("\n", "")


@pytest.mark.parametrize("value", ["float16", F16, "torch.float16"])
def test_dtypes_by_name_and_themselves(value):
    assert Settings.of({"precision": value}).precision == "float16"


def test_none_keeps():
    assert Settings.of({"precision": None}) == Settings()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"precision": "fp16"}, SettingsError, "precision='fp16': must be one of keep, float16, bfloat16, float32"),
        ({"precision_exclude": ["aten::softmax"]}, SettingsError, "has no effect without precision"),
        (
            {"precision": "float16", "precision_include": ["aten::softmx"]},
            UnknownNameError,
            "did you mean 'aten::softmax'",
        ),
        ({"precision": "float16", "precision_exclude": ["re:("]}, SettingsError, "is no regular expression"),
        ({"precision": "float16", "precision_exclude": "norm"}, SettingsError, "must be a list of names"),
    ],
)
def test_wrong_options(options, error, words):
    with pytest.raises(error, match=words.replace("(", r"\(")):
        Settings.of(options)


# --- accuracy on models -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentences():
    return sentence_encoder()


@pytest.mark.parametrize(("name", "cosine"), [("float16", 0.999998), ("bfloat16", 0.9999)])
def test_a_sentence_encoder_with_its_real_weights(sentences, name, cosine):
    """As the lowered graph computes it in eager Torch: nearer than the model cast as a whole."""
    encoder, tokens = sentences
    lowered = lower(trtplug.trace(encoder, tokens), trtplug.registry(), Settings(precision=name))
    with torch.no_grad():
        ours, theirs = run_lowered(lowered, *tokens), encoder(*tokens)
        whole = copy.deepcopy(encoder).to(getattr(torch, name))(*tokens).float()
    assert nn.functional.cosine_similarity(ours, theirs).min() > cosine
    assert (ours - theirs).abs().max() < (whole - theirs).abs().max()


def resnet() -> nn.Module:
    """A small ResNet of transformers, its normalization with statistics as if trained."""
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[2, 2], layer_type="basic")
    model = ResNetForImageClassification(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize(("name", "near"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_a_residual_network(name, near):
    model, picture = resnet(), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    compiled = trtplug.compile(model, (picture,), precision=name)
    assert len(compiled.report.engines) == 1
    with torch.no_grad():
        ours, theirs = compiled(picture).logits, model(picture).logits
        whole = copy.deepcopy(model).to(getattr(torch, name))(picture.to(getattr(torch, name))).logits.float()
    assert ours.dtype == F32
    error, most = (ours - theirs).abs().max(), theirs.abs().max()
    print(
        f"{error / most:.1e} of the largest logit; the model cast as a whole: {(whole - theirs).abs().max() / most:.1e}"
    )
    assert error < near * most


def test_new_weights_are_cast_too(head):
    """Casting a weight at compile time hides it from nobody: new values reach the engine."""
    compiled = trtplug.compile(copy.deepcopy(head), (X,), precision="float16")
    other = copy.deepcopy(head)
    with torch.no_grad():
        other.first.weight.mul_(-1.5)
    compiled.update_weights(other.state_dict())
    torch.testing.assert_close(compiled(X), other(X), rtol=0, atol=2e-3)
