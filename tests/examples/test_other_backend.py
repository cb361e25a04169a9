"""The contract without TensorRT: the example backend runs, falls back and explains, and tensorrt is never imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).parents[2] / "examples" / "other_backend" / "onnx_backend.py"

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
sys.modules["tensorrt"] = sys.modules["tensorrt_rtx"] = None  # an import of either would raise
import torch
from torch import nn
import onnx_backend

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = torch.relu(self.one(x))
        y = y.sort(-1).values  # no converter: stays in Torch
        return torch.add(self.two(y).softmax(-1), 1.0, alpha=2), y.tanh() - y

torch.manual_seed(0)
model, x = Model().eval(), torch.randn(5, 4)
fast, parts = onnx_backend.compile(model, (x,))
for ours, theirs in zip(fast(x), model(x), strict=True):
    torch.testing.assert_close(ours, theirs)
assert len(parts.blocks) == 2, parts
registry = onnx_backend.registry()
(reason,) = {str(registry.lookup(n)) for n in parts.torch_nodes if n.target is torch.ops.aten.sort.default}
assert "no-converter" in reason, reason
assert "trtplug_converters" not in sys.modules
excluding, parts = onnx_backend.compile(model, (x,), exclude=["two"])
torch.testing.assert_close(excluding(x)[0], model(x)[0])
assert any("linear" in str(node.target) for node in parts.torch_nodes)
"""


def test_another_engine_under_the_same_contract():
    command = [sys.executable, "-W", "error::UserWarning", "-c", SCRIPT, str(FILE.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_it_is_short():
    assert len(FILE.read_text().splitlines()) <= 150
