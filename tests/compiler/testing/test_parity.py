"""The parity run's own tools: processes that may die, the judge, the layer table, the calls."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch

import trtplug
from trtplug.executors import pick_executor
from trtplug.testing.parity import Job, check_calls, check_layer, judge, layer_cases, run_jobs
from trtplug.testing.parity.calls import GPU, call_cases
from trtplug_registry import Executor


def answer(number: int) -> int:
    return number * 2


def die(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))


def fail() -> None:
    raise ValueError("no")


def sleep() -> None:
    time.sleep(60)


def test_a_job_that_kills_its_process_costs_only_itself() -> None:
    jobs = [
        Job(f"{__name__}:answer", (1,)),
        Job(f"{__name__}:die", ("SIGSEGV",)),
        Job(f"{__name__}:fail", ()),
        Job(f"{__name__}:die", ("SIGFPE",)),
        Job(f"{__name__}:answer", (4,)),
    ]
    outcomes = {outcome.job: outcome for outcome in run_jobs(jobs, 2)}
    assert [outcomes[job].result for job in jobs] == [2, None, None, None, 8]
    assert [outcomes[job].died for job in jobs] == ["", "SIGSEGV", "", "SIGFPE", ""]
    assert "ValueError: no" in outcomes[jobs[2]].error


def test_a_deadline_ends_what_runs() -> None:
    start = time.monotonic()
    assert list(run_jobs([Job(f"{__name__}:sleep", ())], 1, deadline=start + 1)) == []
    assert time.monotonic() - start < 20


# --- the judge --------------------------------------------------------------------------------------------------------


def product(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return [inputs[0] @ inputs[1]]


def to_tf32(tensor: torch.Tensor) -> torch.Tensor:
    """Rounds to 10 bits of fraction."""
    bits = tensor.view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


@pytest.fixture
def operands() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(24, 300), torch.randn(300, 16)]


def test_tf32_is_allowed_in_products_only(operands: list[torch.Tensor]) -> None:
    exact, rounded = product(operands), product([to_tf32(tensor) for tensor in operands])
    assert judge(rounded, exact, operands, product).verdict == "differs"
    assert judge(rounded, exact, operands, product, product=True).verdict == "agrees"


def test_bfloat16_operands_are_not_tf32(operands: list[torch.Tensor]) -> None:
    exact, rounded = product(operands), product([tensor.bfloat16().float() for tensor in operands])
    assert judge(rounded, exact, operands, product, product=True).verdict == "differs"


def test_what_differs_is_spelt_out() -> None:
    x = torch.tensor([1.0, float("nan")])
    found = judge([torch.tensor([1.0, 0.0])], [x], [x], lambda inputs: inputs)
    assert found.verdict == "differs"
    assert "nan -> 0.0, reference nan" in found.how


def test_the_sign_of_zero_is_told_but_agrees() -> None:
    x = torch.tensor([0.0])
    found = judge([-x], [x], [x], lambda inputs: inputs)
    assert (found.verdict, found.how) == ("agrees", "zeros differ in sign")


# --- the tables -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference() -> Executor:
    return pick_executor(trtplug.registry(), "reference")


def test_ids_are_unique_and_every_family_is_there() -> None:
    kinds = {case.kind for case in layer_cases().values()}
    assert {"unary", "reduce", "gather", "convolution", "attention", "resize"} <= kinds
    assert len(layer_cases()) > 900


@pytest.mark.parametrize(
    "case",
    [
        "unary SIN float32",
        "reduce empty SUM float32",
        "convolution 2d bfloat16",
        "scale CHANNEL float16",
        "if true float32",
    ],
)
def test_a_layer_agrees_with_itself(case: str, reference: Executor) -> None:
    assert check_layer(layer_cases()[case], reference, "cpu").verdict == "agrees"


def test_what_tensorrt_does_not_take_is_refused(reference: Executor) -> None:
    found = check_layer(layer_cases()["unary NOT float32"], reference, "cpu")
    assert found.verdict == "refused"
    assert "must have type Bool" in found.how


def wrong_executor() -> Executor:
    """The reference executor, but for every first element."""

    def prepare(engine: object) -> object:
        run = pick_executor(trtplug.registry(), "reference").prepare(engine)  # type: ignore[arg-type]

        def spoilt(*inputs: object) -> tuple[torch.Tensor, ...]:
            results = [result.clone(memory_format=torch.contiguous_format) for result in run(*inputs)]
            for result in results:
                if result.numel():
                    result.view(-1)[0] = 77
            return tuple(results)

        return spoilt

    return Executor("spoilt", lambda: None, prepare)  # type: ignore[arg-type]


def test_every_call_that_differs_is_found() -> None:
    (case,) = [c for name, c in call_cases(trtplug.registry()).items() if "aten::relu-relu-float32" in name]
    found = check_calls(case, wrong_executor(), "cpu", GPU)
    assert found.compared >= 4
    assert len(found.wrong) >= found.compared - 3  # but for empty tensors
    assert all("-> 77.0, reference" in wrong.finding.how and wrong.eager for wrong in found.wrong)


def test_calls_agree_with_themselves(reference: Executor) -> None:
    (case,) = [c for name, c in call_cases(trtplug.registry()).items() if "aten::mm-mm-float32" in name]
    found = check_calls(case, reference, "cpu", GPU)
    assert found.compared
    assert not found.wrong
