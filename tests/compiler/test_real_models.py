"""Networks that people run: nearly all of each in one or two engines, and equal to eager.

``python tests/compiler/test_real_models.py`` does the same with the published sizes, and prints a table.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from conftest_real import REAL_MODELS, TRANSFORMERS, Real, crepe, pitch, tones
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import trtplug
from trtplug.report import CompilationReport

BATCHES = (3, 1, 5)
RELATIVE = 1e-4
PRODUCTS = {op.__name__ for op in flop_registry} | {"linear", "matmul", "einsum", "conv1d", "conv2d"}
Inputs = Callable[[int], tuple[torch.Tensor, ...]]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch._dynamo.reset()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        yield
    torch._dynamo.reset()


@pytest.mark.parametrize("real", REAL_MODELS, ids=str)
def test_compiled(real: Real) -> None:
    pytest.importorskip("transformers", reason=TRANSFORMERS)
    check_compiled(real.make(False), lambda batch: real.inputs(batch, False))


@pytest.mark.parametrize("real", REAL_MODELS, ids=str)
def test_just_in_time(real: Real) -> None:
    pytest.importorskip("transformers", reason=TRANSFORMERS)
    check_just_in_time(real.make(False), lambda batch: real.inputs(batch, False))


FREQUENCIES = [82.4, 110.0, 220.0, 440.0, 587.3, 880.0]


def test_a_pitch_tracker_with_its_real_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = crepe(monkeypatch)
    compiled = check_compiled(model, lambda batch: (tones(FREQUENCIES[:batch]),))
    check_just_in_time(model, lambda batch: (tones(FREQUENCIES[:batch]),))
    heard = pitch(compiled(tones(FREQUENCIES)))
    assert torch.equal(heard, pitch(model(tones(FREQUENCIES))))
    cents = 1200 * (heard / torch.tensor(FREQUENCIES)).log2()
    assert cents.abs().max() < 25, f"the tones {FREQUENCIES} are heard as {heard.tolist()}"


# --- what is asked of each --------------------------------------------------------------------------------------------


def check_compiled(model: nn.Module, inputs: Inputs) -> trtplug.CompiledModule:
    """Ahead of time, for any batch of 1 to 8."""
    example = inputs(BATCHES[0])
    program = trtplug.trace(model, example, dynamic_shapes=_batch_of(model, example))
    compiled = trtplug.compile(program, min_block_size=1)
    share = flops_in_engines(compiled.lowered.graph_module, compiled.report, example)
    assert share >= 0.99, f"{share:.1%} of the floating-point operations are in engines\n{compiled.report}"
    _check(model, compiled, inputs)
    _check_report(compiled.report)
    return compiled


def check_just_in_time(model: nn.Module, inputs: Inputs) -> None:
    """``torch.compile``: one graph for every batch but 1, for which Dynamo makes one of its own."""
    fast = torch.compile(model, backend="trtplug", options={"min_block_size": 1})

    def marked(*tensors: torch.Tensor) -> Any:
        for tensor in tensors:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return fast(*tensors)

    _check(model, marked, inputs, batches=(3, 5, 2))
    (report,) = trtplug.reports(fast)
    _check_report(report)
    left = {node.op for node in report.torch_ops if node.op.removeprefix("aten::").partition(".")[0] in PRODUCTS}
    assert not left, f"all floating-point operations that Torch counts are in engines, but for those of {left}"


def _check(model: nn.Module, fast: Callable[..., Any], inputs: Inputs, batches: Sequence[int] = BATCHES) -> None:
    for batch in batches:
        given = inputs(batch)
        expected = model(*given)
        torch.testing.assert_close(fast(*given), expected, rtol=0, atol=RELATIVE * expected.abs().max().item())


def _check_report(report: CompilationReport) -> None:
    assert 1 <= len(report.engines) <= 2, str(report)
    assert report.share >= 0.99, str(report)


def _batch_of(model: nn.Module, example: tuple[torch.Tensor, ...]) -> Any:
    batch = torch.export.Dim("batch", min=1, max=8)
    return (tuple({0: batch} for _ in example),) if hasattr(model, "names") else ({0: batch},)


def flops_in_engines(lowered: fx.GraphModule, report: CompilationReport, example: tuple[torch.Tensor, ...]) -> float:
    """The fraction of a lowered graph's floating-point operations, as Torch counts them, that are in engines."""
    inside = {node.name for node in report.nodes if node.engine is not None}
    counted = {True: 0, False: 0}

    class Count(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            with FlopCounterMode(display=False) as counter:
                result = super().run_node(n)
            counted[n.name in inside] += counter.get_total_flops()
            return result

    Count(lowered).run(*example)
    assert sum(counted.values()) > 0
    return counted[True] / sum(counted.values())


if __name__ == "__main__":
    for name in sys.argv[1:] or [real.name for real in REAL_MODELS]:
        (real,) = (real for real in REAL_MODELS if real.name == name)
        with torch.no_grad():
            model, start = real.make(True), time.perf_counter()
            compiled = check_compiled(model, lambda batch, real=real: real.inputs(batch, True))
        print(f"{name:20} {compiled.report.summary()}, {time.perf_counter() - start:.1f} s", flush=True)
