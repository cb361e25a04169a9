"""``torch.compile(backend="trtplug")`` equals eager; stale weights are never used."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

from trtplug.jit import TorchOnlyWarning

SMALL = {"min_block_size": 1}


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        yield
    torch._dynamo.reset()


def model() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Linear(4, 8), nn.ReLU(inplace=True), nn.LayerNorm(8), nn.Linear(8, 3), nn.Softmax(-1))
    return nn.Sequential(*layers).eval()


def compiled(function, **options):
    return torch.compile(function, backend="trtplug", options=SMALL, **options)


@pytest.mark.parametrize("dynamic", [None, True, False])
def test_equals_eager_as_sizes_change(dynamic):
    eager = model()
    fast = compiled(eager, dynamic=dynamic)
    for size in (3, 5, 2, 1):
        x = torch.randn(size, 4)
        torch.testing.assert_close(fast(x), eager(x))


def test_a_parameter_changed_in_place_never_yields_a_stale_answer():
    eager = model()
    fast = compiled(eager)
    x = torch.randn(3, 4)
    torch.testing.assert_close(fast(x), eager(x))
    eager[0].weight.mul_(-2.0)
    torch.testing.assert_close(fast(x), eager(x))
    eager[3].weight.data = torch.randn(3, 8)
    torch.testing.assert_close(fast(x), eager(x))


def test_graph_breaks_and_data_dependent_branches():
    def function(x):
        y = torch.relu(x) * 2
        if y.sum() > 0:
            return torch.tanh(y) + 1
        return y - 1

    fast = compiled(function)
    for x in (torch.rand(3, 4), -torch.rand(3, 4)):
        torch.testing.assert_close(fast(x), function(x))


def test_inputs_written_in_place():
    def function(x):
        x.add_(1)
        return x * 2

    mine, theirs = torch.zeros(3), torch.zeros(3)
    torch.testing.assert_close(compiled(function)(mine), function(theirs))
    torch.testing.assert_close(mine, theirs)


def test_gradients_run_in_torch_with_one_warning():
    eager = model()
    x = torch.randn(3, 4, requires_grad=True)
    with torch.enable_grad(), pytest.warns(TorchOnlyWarning, match="gradients are asked for"):
        result = compiled(eager)(x)
    with torch.enable_grad():
        expected = eager(x)
    torch.testing.assert_close(result, expected)


def test_an_unknown_option_is_an_error():
    fast = torch.compile(model(), backend="trtplug", options={"min_blok_size": 1})
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="did you mean 'min_block_size'"):
        fast(torch.randn(2, 4))


def test_without_importing_us_first():
    code = (
        "import torch; m = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU());"
        "x = torch.ones(2, 4);\n"
        "with torch.no_grad(): print(torch.allclose(torch.compile(m, backend='trtplug')(x), m(x)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "True"
