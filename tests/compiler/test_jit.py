"""``torch.compile(backend="trtplug")`` equals eager; stale weights are never used."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

import trtplug
from trtplug.jit import TorchOnlyWarning, session, sizes
from trtplug.network import Network
from trtplug.tf32 import PROCESS
from trtplug_registry import ReasonCode

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


def test_a_size_that_nothing_bounds_gets_a_guarded_maximum(monkeypatch):
    monkeypatch.setattr(sizes, "MAX_SIZE", 8)
    eager = model()
    fast = compiled(eager, dynamic=True)
    for size, graphs in ((3, 1), (8, 1), (9, 2), (18, 2), (19, 3), (4, 3)):
        x = torch.randn(size, 4)
        torch.testing.assert_close(fast(x), eager(x))
        assert len(trtplug.reports(fast)) == graphs


def test_marked_dimensions_and_their_bounds():
    eager = model()
    fast = compiled(eager)
    for size in (3, 7, 16):
        x = torch.randn(size, 4)
        torch._dynamo.mark_dynamic(x, 0, min=2, max=16)
        torch.testing.assert_close(fast(x), eager(x))
    (report,) = trtplug.reports(fast)
    assert report.engines[0].inputs[0].startswith("l_args_0_: float32[s")


def test_maxima_are_lower_where_no_engine_takes_them():
    """Three open dimensions of 8192 are more elements than TensorRT counts."""
    fast = compiled(lambda x: x.relu() * 2, dynamic=True)
    seen = []
    convert = trtplug.compilation.convert
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trtplug.compilation, "convert", lambda *a, **k: seen.append(k["ranges"]) or convert(*a, **k))
        fast(torch.randn(2, 3, 4))
    assert [span.max for span in seen[0].values()] == [1024, 1024, 1024]


def test_a_parameter_changed_in_place_never_yields_a_stale_answer():
    eager = model()
    fast = compiled(eager)
    x = torch.randn(3, 4)
    torch.testing.assert_close(fast(x), eager(x))
    eager[0].weight.mul_(-2.0)
    torch.testing.assert_close(fast(x), eager(x))
    eager[3].weight.data = torch.randn(3, 8)
    torch.testing.assert_close(fast(x), eager(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_writes_that_torch_does_not_count_are_noticed_on_the_cpu(dtype):
    eager = model().to(dtype)
    fast = compiled(eager)
    x = torch.randn(3, 4, dtype=dtype)
    weight, bias = eager[3].weight, eager[3].bias  # 3 values: bytes are left over
    fast(x)
    before = weight._version, bias._version
    for write in (
        lambda: weight.data.mul_(2),
        lambda: weight.data.copy_(weight.data.flip(0)),
        lambda: weight.data.view(-1)[5].add_(1),
        lambda: bias.data.add_(1),
        lambda: bias.data[2:].zero_(),
    ):
        write()
        tolerance = (
            {"rtol": 1e-5, "atol": 1e-6} if dtype is torch.float32 else {"rtol": 3e-2, "atol": 3e-3}
        )  # roundings
        torch.testing.assert_close(fast(x), eager(x), **tolerance)
    assert (weight._version, bias._version) == before


@pytest.mark.parametrize(("check", "noticed"), [("auto", True), ("data", True), ("version", False)])
def test_what_weight_check_says_is_checked(check, noticed):
    eager = model()
    fast = torch.compile(eager, backend="trtplug", options={**SMALL, "weight_check": check})
    x = torch.randn(3, 4)

    def built_again() -> bool:
        before = trtplug.reports(fast)
        fast(x)
        return trtplug.reports(fast)[0] is not before[0]

    fast(x)
    assert not built_again()
    eager[0].weight.data.mul_(-2)
    assert built_again() is noticed
    eager[0].weight.mul_(-2)
    assert built_again()
    torch.testing.assert_close(fast(x), eager(x))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_writes_that_torch_does_not_count_are_noticed_on_a_gpu(dtype):
    eager = model().to("cuda", dtype)
    fast = torch.compile(eager, backend="trtplug", options={**SMALL, "weight_check": "data"})
    x = torch.randn(3, 4, dtype=dtype, device="cuda")
    fast(x)
    exact = {"rtol": 2**-9, "atol": 2**-10} if PROCESS.rounds else {"rtol": 1e-4, "atol": 1e-5}  # TF32 has 11 bits
    tolerance = exact if dtype is torch.float32 else {"rtol": 3e-2, "atol": 3e-3}
    for write in (lambda: eager[3].weight.data.view(-1)[5].add_(1), lambda: eager[3].bias.data[2:].zero_()):
        write()
        torch.testing.assert_close(fast(x), eager(x), **tolerance)


def test_a_parameter_replaced_at_the_same_address_is_noticed():
    eager = model()
    fast = compiled(eager)
    x = torch.randn(3, 4)
    fast(x)
    for _ in range(3):
        eager[0].weight = nn.Parameter(torch.randn(8, 4))
        torch.testing.assert_close(fast(x), eager(x))


def test_an_interrupted_rebuild_leaves_no_stale_answer(monkeypatch):
    eager = model()
    fast = compiled(eager)
    x = torch.randn(3, 4)
    fast(x)
    eager[0].weight.mul_(-2.0)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Network, "build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fast(x)
    torch.testing.assert_close(fast(x), eager(x))


class TwoEngines(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        return self.head(self.encoder(x))


def test_only_the_engine_that_holds_a_changed_parameter_is_built_again(monkeypatch):
    eager = TwoEngines()
    fast = torch.compile(eager, backend="trtplug", options={**SMALL, "torch_ops": ["encoder.1"]})
    builds = []
    build = Network.build
    monkeypatch.setattr(Network, "build", lambda *args: builds.append(args[0]) or build(*args))
    x = torch.randn(3, 4)
    torch.testing.assert_close(fast(x), eager(x))
    assert len(builds) == 2
    for _ in range(2):
        eager.head.weight.mul_(-2.0)
        torch.testing.assert_close(fast(x), eager(x))
    assert len(builds) == 4
    (report,) = trtplug.reports(fast)
    assert [reason.code for node in report.torch_ops for reason in node.reasons] == [ReasonCode.EXCLUDED_BY_USER]


def test_weights_made_in_inference_mode_are_inputs():
    """They count no versions: a change could not be noticed."""
    with torch.inference_mode():
        eager = model()
        fast = compiled(eager)
        x = torch.randn(3, 4)
        torch.testing.assert_close(fast(x), eager(x))
        eager[0].weight.mul_(-2.0)
        torch.testing.assert_close(fast(x), eager(x))


# --- reports ----------------------------------------------------------------------------------------------------------


def test_one_report_for_each_graph_of_each_torch_compile():
    def function(x):
        y = torch.relu(x) * 2
        torch._dynamo.graph_break()
        return torch.tanh(y) + 1

    one, other = compiled(function), compiled(model())
    assert trtplug.reports(one) == ()
    one(torch.ones(3, 4))
    other(torch.ones(3, 4))
    first, second = trtplug.reports(one)
    assert [node.op for node in first.nodes] == ["aten::relu", "aten::mul.Tensor"]
    assert [node.op for node in second.nodes] == ["aten::tanh", "aten::add.Tensor"]
    assert all("test_jit.py" in node.source for node in first.nodes)
    (report,) = trtplug.reports(other)
    assert (len(report.engines), report.torch_ops, report.executor) == (1, (), "reference")


def test_a_graph_compiled_again_replaces_its_report():
    class Own(nn.Module):  # Dynamo passes over a module of Torch's own whose compile method was called
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x).relu()

    eager = Own()
    eager.compile(backend="trtplug", options=SMALL)
    x = torch.randn(3, 4)
    eager(x)
    (before,) = trtplug.reports(eager)
    eager.layer.weight.add_(1)
    eager(x)
    (after,) = trtplug.reports(eager)
    assert after is not before


def test_dynamos_own_tools_stay_useful(caplog):
    def function(x):
        y = torch.relu(x) * 2
        torch._dynamo.graph_break()
        return torch.tanh(y) + 1

    fast = compiled(function)
    explained = torch._dynamo.explain(fast)(torch.ones(3))
    assert (explained.graph_count, explained.graph_break_count) == (2, 1)
    with caplog.at_level(logging.INFO, logger="trtplug"):  # as TORCH_LOGS="trtplug" sets it
        fast(torch.ones(3))
    assert [record.getMessage() for record in caplog.records if record.name.startswith("trtplug.jit")] == [
        "graph 0: 2 of 2 compute nodes in 1 TensorRT engine(s)",
        "graph 1: 2 of 2 compute nodes in 1 TensorRT engine(s)",
    ]


def test_reports_of_something_else():
    for wrong in (model(), torch.compile(model(), backend="eager"), 3):
        with pytest.raises(trtplug.InputError, match=r"what torch\.compile.*returns, found a"):
            trtplug.reports(wrong)


def test_the_graphs_of_one_torch_compile_share_a_registry(monkeypatch):
    assembled = []
    make = session.registry_for
    monkeypatch.setattr(session, "registry_for", lambda settings: assembled.append(settings) or make(settings))
    fast = compiled(lambda x: torch.relu(x) * 2, dynamic=False)
    for size in (2, 3):
        fast(torch.ones(size))
    assert (len(trtplug.reports(fast)), len(assembled)) == (2, 1)


# --- what becomes values only through AOTAutograd ---------------------------------------------------------------------


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x):
        self.seen.add_(x.sum(0))
        self.seen[:2].mul_(2)
        return self.norm(x).relu() + self.seen


def test_buffers_written_in_the_forward_are_inputs_of_engines():
    eager, mine = Counts(), Counts()
    fast = compiled(mine)
    for _ in range(3):
        x = torch.randn(3, 4)
        torch.testing.assert_close(fast(x), eager(x))
    torch.testing.assert_close(mine.state_dict(), eager.state_dict())
    (report,) = trtplug.reports(fast)
    assert report.engines


@pytest.mark.parametrize("around", [False, True], ids=["in the model", "around the call"])
def test_autocast(around):
    layer = nn.Linear(4, 4)

    def function(x):
        with torch.autocast("cpu", torch.bfloat16, enabled=not around):
            return layer(x) * 2

    fast = compiled(layer if around else function)
    with torch.autocast("cpu", torch.bfloat16, enabled=around):
        expected, result = (layer if around else function)(torch.ones(3, 4)), fast(torch.ones(3, 4))
    torch.testing.assert_close(result, expected)
    assert result.dtype == torch.bfloat16
    (report,) = trtplug.reports(fast)
    assert not report.torch_ops


def test_a_write_to_memory_that_another_input_shares():
    def function(a, b):
        a.add_(1)
        return a + b

    fast = compiled(function)
    for same in (False, True):
        x, y = torch.ones(4), torch.ones(4)
        pairs = ((x, x[:]), (y, y[:])) if same else ((x, torch.ones(4)), (y, torch.ones(4)))
        torch.testing.assert_close(fast(*pairs[0]), function(*pairs[1]))
        torch.testing.assert_close(x, y)


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
    fast = compiled(eager)
    with torch.enable_grad(), pytest.warns(TorchOnlyWarning, match="gradients are asked for"):
        result = fast(x)
    with torch.enable_grad():
        expected = eager(x)
    torch.testing.assert_close(result, expected)
    (report,) = trtplug.reports(fast)
    assert not report.engines
    assert {reason.code for node in report.torch_ops for reason in node.reasons} == {ReasonCode.NOT_COMPILED}
    assert "gradients are asked for" in report.warnings[0]


def test_an_unknown_option_is_an_error():
    fast = torch.compile(model(), backend="trtplug", options={"min_blok_size": 1})
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="did you mean 'min_block_size'"):
        fast(torch.randn(2, 4))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"executor": "referense"}, "did you mean 'reference'"),
        ({"prefer": ["trtplug-convertres"]}, "did you mean 'trtplug-converters'"),
        ({"torch_ops": ["aten::lineer"]}, "did you mean 'aten::linear'"),
        ({"disable_passes": ["trtplug-passes:noops"]}, "did you mean 'trtplug-passes:no-ops'"),
    ],
)
def test_an_option_that_names_what_is_not_there_is_an_error(option, words):
    """And not a reason to run a graph in Torch."""
    fast = torch.compile(model(), backend="trtplug", options=option)
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match=words), torch.no_grad():
        fast(torch.randn(2, 4))


def test_without_importing_us_first():
    code = (
        "import torch; m = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU());"
        "x = torch.ones(2, 4);\n"
        "with torch.no_grad(): print(torch.allclose(torch.compile(m, backend='trtplug')(x), m(x)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "True"
