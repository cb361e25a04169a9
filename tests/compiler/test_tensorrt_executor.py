"""The tensorrt executor on a GPU: streams, threads, errors, torch.compile, torch.export."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import torch

import trtplug
from trtplug._tensorrt import heeds_override
from trtplug.compiled import CompiledModule
from trtplug.errors import ExecutorError, InputError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


class Block(torch.nn.Module):
    """Elementwise only, so that results are exact."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.relu(x) * 2 + 1, torch.cat([x, -x], 1)


@pytest.fixture(scope="module")
def compiled() -> CompiledModule:
    shapes = {"min_shape": (1, 4), "opt_shape": (4, 4), "max_shape": (64, 4)}
    return trtplug.compile(Block().eval(), inputs=[trtplug.Input(**shapes)], min_block_size=1, executor="tensorrt")


def rows(count: int) -> torch.Tensor:
    return torch.randn(count, 4, device="cuda")


def agree(compiled: CompiledModule, x: torch.Tensor) -> None:
    for ours, eager in zip(compiled(x), Block()(x), strict=True):
        assert ours.device == x.device
        torch.testing.assert_close(ours, eager, rtol=0, atol=0)


@pytest.mark.parametrize("count", [1, 4, 64, 3])
def test_sizes_of_the_profile(compiled: CompiledModule, count: int) -> None:
    agree(compiled, rows(count))


def test_views(compiled: CompiledModule) -> None:
    agree(compiled, rows(8)[::2])
    agree(compiled, torch.randn(4, 8, device="cuda").T)
    agree(compiled, torch.randn(10, 4, device="cuda")[3:7])


def test_results_are_fresh(compiled: CompiledModule) -> None:
    one, two = rows(5), rows(5)
    first = compiled(one)
    second = compiled(two)
    for ours, eager in zip((*first, *second), (*Block()(one), *Block()(two)), strict=True):
        torch.testing.assert_close(ours, eager, rtol=0, atol=0)


def test_inputs_that_move(compiled: CompiledModule) -> None:
    for _ in range(20):
        agree(compiled, rows(7))


def test_another_stream(compiled: CompiledModule) -> None:
    stream = torch.cuda.Stream()
    x = rows(9)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        y = x
        for _ in range(50):  # work that the engine must wait for, on its own stream
            y = y + 1
        ours = compiled(y)
    stream.synchronize()
    torch.testing.assert_close(ours[0], Block()(y)[0], rtol=0, atol=0)


def test_threads(compiled: CompiledModule) -> None:
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                for count in range(1, 20):
                    agree(compiled, torch.full((count, 4), float(seed), device="cuda"))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def engine_of(compiled: CompiledModule) -> torch.nn.Module:
    (module,) = [m for m in compiled.graph_module.modules() if hasattr(m, "executor")]
    return module


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.randn(3, 4), "input 'x' is on cpu; the tensorrt executor needs CUDA"),
        (lambda: rows(3).double(), "input 'x' is torch.float64, the engine takes torch.float32"),
        (lambda: rows(65), r"does not take \[65, 4\] for input 'x'"),
        (lambda: torch.randn(3, 5, device="cuda"), r"does not take \[3, 5\] for input 'x'"),
        (lambda: torch.randn(4, device="cuda"), r"does not take \[4\] for input 'x'"),
    ],
    ids=["device", "dtype", "range", "fixed size", "rank"],
)
def test_inputs_that_the_engine_refuses(compiled: CompiledModule, make: object, words: str) -> None:
    agree(compiled, rows(3))
    with pytest.raises(ExecutorError, match=words):
        engine_of(compiled)(make())  # type: ignore[operator]
    agree(compiled, rows(3))


def test_the_module_refuses_first(compiled: CompiledModule) -> None:
    with pytest.raises(InputError):
        compiled(rows(65))


def fill(compiled: CompiledModule) -> None:
    x = rows(64)
    held = [compiled(x) for _ in range(100_000)]
    assert held


def test_out_of_memory_leaves_it_usable(compiled: CompiledModule) -> None:
    agree(compiled, rows(64))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            fill(compiled)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    agree(compiled, rows(64))


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # Torch's own, as it is imported
def test_compile_export_inference_mode(compiled: CompiledModule) -> None:
    x = rows(6)
    torch._dynamo.reset()
    again = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(again(x), Block()(x), rtol=0, atol=0)
    program = torch.export.export(compiled, (x,))
    torch.testing.assert_close(tuple(program.module()(x)), Block()(x), rtol=0, atol=0)
    with torch.inference_mode():
        agree(compiled, x)


def test_no_copy_of_inputs_or_results(compiled: CompiledModule) -> None:
    x = rows(64)
    compiled(x)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = compiled(x)
    assert torch.cuda.max_memory_allocated() - before <= sum(max(r.nbytes, 512) for r in results) + 512


@pytest.mark.parametrize("dynamic", ["batch", "length"])
@pytest.mark.parametrize("nd", [1, 2])
def test_grouped_transposed_convolutions_of_any_size(nd: int, dynamic: str) -> None:
    """TensorRT-RTX 1.6 is right about the first item of a batch only, in one dimension, if all groups are one layer."""
    torch.manual_seed(0)
    kind = torch.nn.ConvTranspose1d if nd == 1 else torch.nn.ConvTranspose2d
    model = kind(6, 6, 3, stride=3, groups=3).eval().cuda()
    least, most = [3, 6, *(4,) * nd], [3, 6, *(4,) * nd]
    axis = 0 if dynamic == "batch" else 2
    least[axis], most[axis] = 2, 8
    described = trtplug.Input(min_shape=least, opt_shape=[3, 6, *(4,) * nd], max_shape=most)
    compiled = trtplug.compile(model, inputs=[described], min_block_size=1, executor="tensorrt")
    assert not compiled.report.torch_ops
    for size in (2, 5, 8):
        shape = list(most)
        shape[axis] = size
        x = torch.randn(shape, device="cuda")
        torch.testing.assert_close(
            compiled(x), model(x), rtol=2e-3, atol=2e-3
        )  # with TF32, where it cannot be ruled out


class DepthwiseUp(torch.nn.Module):
    """A transposed convolution of bfloat16 with one channel per group: TensorRT-RTX 1.6 has no context for it."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.ConvTranspose1d(3, 3, 1, stride=3, groups=3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.up(x + 1)) * 2


@pytest.mark.filterwarnings("ignore::trtplug.FallbackWarning")
def test_what_has_no_context_is_left_to_torch() -> None:
    torch.manual_seed(0)
    model, x = DepthwiseUp().eval().cuda().bfloat16(), torch.randn(3, 3, 2, device="cuda").bfloat16()
    compiled = trtplug.compile(model, (x,), min_block_size=1, executor="tensorrt")
    torch.testing.assert_close(compiled(x), model(x), rtol=1.6e-2, atol=1e-2)
    reasons = {str(node.reasons[0].code) for node in compiled.report.torch_ops}
    assert reasons <= {"build-failed"}, reasons


PRODUCT = """
import torch, trtplug
torch.manual_seed(0)
layer, x = torch.nn.Linear(512, 384).eval(), torch.randn(256, 512, device="cuda")
settings = {"min_block_size": 1, "executor": "tensorrt"}
made = trtplug.compile(layer.cuda(), inputs=[trtplug.Input(shape=(256, 512))], **settings)
with torch.no_grad():
    exact = layer.double()(x.double())
    print(float((made(x).double() - exact).norm() / exact.norm()))
"""


def test_no_tf32_by_default() -> None:
    """In a process of its own: whoever makes the first builder of a process decides for all of it."""
    command = [sys.executable, "-W", "ignore:invalid escape sequence", "-c", PRODUCT]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    error = float(ran.stdout.split()[-1])
    assert (error < 2e-5) == heeds_override()
    assert ("it cannot hold" in ran.stderr) == (not heeds_override())
    assert error < 1e-3
