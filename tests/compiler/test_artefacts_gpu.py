"""Files, the cache and new weights on a GPU, engines running in TensorRT."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import trtplug
from trtplug.engine import EngineModule

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

OPTIONS = {"min_block_size": 1, "torch_ops": ["aten::sort"]}


class Two(nn.Module):
    """Two engines and a Torch op between them; elementwise, so that no product's rounding is in question."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8))

    def forward(self, x):
        return torch.relu(torch.sort(torch.relu(x * self.one)).values * self.two + 1)


def example():
    torch.manual_seed(0)
    return Two().eval().cuda()


def sizes():
    shapes = {"min_shape": (1, 8), "opt_shape": (4, 8), "max_shape": (32, 8)}
    return [trtplug.Input(**shapes, name="x", device="cuda")]


def compiled(model, **options):
    made = trtplug.compile(model, inputs=sizes(), **OPTIONS, **options)
    assert made.report.executor == "tensorrt"
    return made


def agree(module, model):
    with torch.no_grad():
        for rows in (1, 4, 7, 32):
            x = torch.randn(rows, 8, device="cuda")
            torch.testing.assert_close(module(x), model(x))


@pytest.mark.parametrize("suffix", [".trtp", ".pt2", ".ts"])
def test_files(suffix, tmp_path):
    model = example()
    file = trtplug.save(compiled(model), tmp_path / f"model{suffix}")
    loaded = trtplug.load(file, trusted=True)
    assert loaded.report.executor == "tensorrt"
    agree(loaded, model)
    reference = trtplug.load(file, trusted=True, executor="reference")
    agree(reference, model)
    if suffix == ".pt2":
        agree(torch.export.load(file).module(), model)


def test_the_cache(tmp_path):
    model = example()
    for cached in (False, True):
        made = compiled(model, cache_dir=tmp_path)
        assert [engine.cached for engine in made.report.engines] == [cached] * 2
        agree(made, model)


def test_new_weights_leave_the_other_engine_where_it_is():
    model = example()
    made = compiled(model)
    before = [module for module in made.graph_module.modules() if isinstance(module, EngineModule)]
    new = torch.randn(8)  # on the CPU: values are copied to where the weight is
    assert made.update_weights({"two": new}) == ("engine_1",)
    after = [module for module in made.graph_module.modules() if isinstance(module, EngineModule)]
    assert after[0] is before[0]
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.two.copy_(new)
    agree(made, twin)
