"""The parity run's own tools: processes that may die, the judge, the layer table, the calls."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import time
from typing import Any

import pytest
import torch

import trtplug
from trtplug._tensorrt import library
from trtplug.executors import pick_executor
from trtplug.reference.latitude import otherwise, undefined
from trtplug.testing.parity import (
    Allowance,
    Job,
    allowance,
    check_calls,
    check_dynamic,
    check_layer,
    dynamic_cases,
    judge,
    layer_cases,
    run_jobs,
)
from trtplug.testing.parity.calls import GPU, call_cases
from trtplug.testing.parity.rounding import model_bound, moved, terms
from trtplug.testing.parity.sketch import Sketch
from trtplug.testing.trial import Trial
from trtplug_registry import Converter, Executor


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


def differs(ours: list[torch.Tensor], operands: list[torch.Tensor], allowed: Allowance | None = None) -> bool:
    found = judge(ours, product(operands), operands, lambda by: product([by(x) for x in operands]), allowed)
    return found.verdict == "differs"


def test_tf32_is_allowed_where_it_is_asked_for(operands: list[torch.Tensor]) -> None:
    rounded = product([to_tf32(tensor) for tensor in operands])
    assert differs(rounded, operands)
    assert differs(rounded, operands, Allowance(terms=300))
    assert not differs(rounded, operands, Allowance(terms=300, tf32=True))


def test_bfloat16_operands_are_not_tf32(operands: list[torch.Tensor]) -> None:
    rounded = product([tensor.bfloat16().float() for tensor in operands])
    assert differs(rounded, operands, Allowance(terms=300, tf32=True))


def test_sums_in_float16_are_allowed_as_far_as_their_terms_go(operands: list[torch.Tensor]) -> None:
    halves = [(tensor * 4).half() for tensor in operands]

    def exact(by: Any = lambda x: x) -> list[torch.Tensor]:
        return [(by(halves[0]).float() @ by(halves[1]).float()).half()]

    total = torch.zeros(24, 16, dtype=torch.float16)
    for place in range(300):
        total += halves[0][:, place, None] * halves[1][place]
    assert judge([total], exact(), halves, exact).verdict == "differs"
    assert judge([total], exact(), halves, exact, Allowance(terms=300)).verdict == "agrees"
    total[0, 0] += 64
    assert judge([total], exact(), halves, exact, Allowance(terms=300)).verdict == "differs"


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("matrix_multiply large float32", 512),
        ("matrix_multiply VECTOR NONE float32", 8),
        ("matrix_multiply TRANSPOSE TRANSPOSE float32", 8),
        ("einsum bij,bjk->bik float32", 8),
        ("einsum bij,bij->bi float32", 4 * 2),
        ("convolution 2d large float16", 64 * 9),
        ("convolution 2d groups dilated strided float32", 9),
        ("deconvolution 2d groups float32", 2 * 9),
        ("attention no mask float32", 64),
        ("unary SIN float32", 1),
    ],
)
def test_terms_are_counted(case: str, expected: int) -> None:
    sketch = layer_cases()[case].sketch()
    assert max(terms(sketch.network().lift(), sketch.values), default=1) == expected


def test_the_bound_of_a_model_is_what_its_sums_explain() -> None:
    """A chain of products in float32 stays within it, and leaves it with operands of TF32."""
    torch.manual_seed(0)
    weights = [torch.randn(256, 256) / 16 for _ in range(6)]
    x = torch.randn(64, 256)

    def run(by: Any) -> torch.Tensor:
        y = by(x)
        for weight in weights:
            y = by(torch.tanh(y @ by(weight)))
        return y

    exact = run(lambda t: t.double())
    bound = model_bound(torch.float32, 12, [256] * 6)
    assert error_of(run(lambda t: t), exact) < bound
    assert bound < error_of(run(to_tf32), exact) < model_bound(torch.float32, 12, [256] * 6, tf32=True)
    halves = model_bound(torch.float16, 12, [256] * 6)
    assert (
        error_of(run(lambda t: t.half().float()), exact)
        < halves
        < error_of(run(lambda t: t.bfloat16().float()), exact) * 4
    )


def error_of(ours: torch.Tensor, exact: torch.Tensor) -> float:
    return float((ours.double() - exact).abs().max() / exact.abs().max())


def verdict_of(case: str, spoil: float | None = None) -> str:
    """What the judge says of what TensorRT may also compute, and where another element is wrong, too."""
    sketch = layer_cases()[case].sketch()
    reference = sketch.network().lift()
    expected, ours = reference(*sketch.values), [r.clone() for r in otherwise(reference, sketch.values)]
    again = functools.partial(moved, reference, sketch.values)
    assert judge(ours, expected, sketch.values, again).verdict == "differs"
    if spoil is not None:
        ours[0].view(-1)[0] = spoil
    return judge(ours, expected, sketch.values, again, allowance(reference, sketch.values, expected)).verdict


@pytest.mark.parametrize(
    "case",
    [
        "elementwise MAX float32",
        "elementwise MIN float16",
        "activation CLIP float32",
        "reduce MAX bfloat16",
        "reduce MIN float32",
        "topk MAX 3 float32",
        "topk indices MAX 3 float32",
        "topk MIN 1 float16",
        "pooling special MAX float32",
        "pooling special AVERAGE float32",
        "activation GELU_ERF float16",
        "cast int8 float16",
        "matrix_multiply special NONE NONE float32",
    ],
)
def test_what_tensorrt_leaves_open_is_left_open_and_nothing_else(case: str) -> None:
    assert verdict_of(case) == "agrees"
    assert verdict_of(case, spoil=55) == "differs"


def of_layer(sketch: Sketch) -> tuple[list[list[bool]], torch.Tensor]:
    """Which elements of a network's only result are left open; and the result."""
    reference = sketch.network().lift()
    (result,), (other,) = reference(*sketch.values), otherwise(reference, sketch.values)
    return undefined(result, other).tolist(), result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("mode", ["ELEMENT", "ND"])
def test_elements_that_are_written_twice_are_left_open(mode: str, dtype: torch.dtype) -> None:
    s, places = Sketch(dtype), torch.tensor([0, 2, -3])
    index = places if mode == "ELEMENT" else places.reshape(3, 1) % 3
    parts = [s.input(value) for value in (torch.zeros(3, dtype=dtype), index, torch.ones(3, dtype=dtype))]
    s.output(s.add("scatter", *parts, s.enum("ScatterMode", mode)).get_output(0))
    assert of_layer(s)[0] == [True, False, False]


def test_products_that_overflow_on_their_way_are_left_open() -> None:
    s, most = Sketch(torch.float16), 65504.0
    rows = torch.tensor([[most, most, 0], [most, 2, 0.25], [2.0**-10, 2.0**-10, 2], [2, 3, 0], [most, 1, 0]]).half()
    s.output(s.add("reduce", s.input(rows), s.enum("ReduceOperation", "PROD"), 1 << 1, False).get_output(0))
    assert of_layer(s)[0] == [True, True, True, False, False]


def test_sums_of_products_that_overflow_on_their_way_are_left_open() -> None:
    most, inf = torch.finfo(torch.float32).max, float("inf")
    rows = torch.tensor([[most, 1.0, 0.0], [1.0, 1.0, 0.0], [most, 0.0, -most], [most, 0.0, 0.0]])
    s, none = Sketch(torch.float32), library().MatrixOperation.NONE
    columns = torch.tensor([[2.0, 2.0], [-inf, 0.0], [2.0, 2.0]])
    s.output(s.add("matrix_multiply", s.input(rows), none, s.input(columns), none).get_output(0))
    open_, _ = of_layer(s)
    assert [row[1] for row in open_] == [False, False, True, False]  # inf - inf, which is 0
    assert [row[0] for row in open_] == [True, True, False, False]  # but for NaN, which 0 * inf is


def test_integers_skip_halves_on_their_way_to_float32() -> None:
    for first, expected in ((torch.int32, [False, True, True]), (torch.float32, [False] * 3)):
        s = Sketch(first)
        half = s.add("cast", s.input(torch.tensor([1, 2049, 70000]).to(first)), s.trt.float16).get_output(0)
        s.output(s.add("cast", half, s.trt.float32).get_output(0))
        assert of_layer(s)[0] == expected


def test_a_nearest_sample_half_way_between_two_elements_is_either() -> None:
    s = Sketch(torch.float32)
    grid = torch.tensor([[[[-0.5, 0.0], [-0.25, 0.0], [0.5, 0.0]]]])  # of four columns: 0.5, 1, 2.5
    image = s.input(torch.arange(4.0).reshape(1, 1, 1, 4))
    modes = {"interpolation_mode": s.trt.InterpolationMode.NEAREST, "sample_mode": s.trt.SampleMode.CLAMP}
    s.output(s.add("grid_sample", image, s.input(grid), align_corners=False, **modes).get_output(0))
    assert of_layer(s)[0] == [[[[True, False, True]]]]


def test_what_differs_is_spelt_out() -> None:
    x = torch.tensor([1.0, float("nan")])
    found = judge([torch.tensor([1.0, 0.0])], [x], [x], lambda by: [by(x)])
    assert found.verdict == "differs"
    assert "nan -> 0.0, reference nan" in found.how


def test_the_sign_of_zero_is_told_but_agrees() -> None:
    x = torch.tensor([0.0])
    found = judge([-x], [x], [x], lambda by: [by(x)])
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


def wrong_executor(spoilt_runs: list[bool] | None = None) -> Executor:
    """The reference executor, but for every first element; tells of each run whether there was one."""

    def prepare(engine: object) -> object:
        run = pick_executor(trtplug.registry(), "reference").prepare(engine)  # type: ignore[arg-type]

        def spoilt(*inputs: object) -> tuple[torch.Tensor, ...]:
            results = [result.clone(memory_format=torch.contiguous_format) for result in run(*inputs)]
            for result in results:
                if result.numel():
                    result.view(-1)[0] = 77
            if spoilt_runs is not None:
                spoilt_runs.append(any(result.numel() for result in results))
            return tuple(results)

        return spoilt

    return Executor("spoilt", lambda: None, prepare)  # type: ignore[arg-type]


def test_every_call_that_differs_is_found() -> None:
    (case,) = [c for name, c in call_cases(trtplug.registry()).items() if "aten::relu-relu-float32" in name]
    runs: list[bool] = []
    found = check_calls(case, wrong_executor(runs), "cpu", GPU)
    assert found.compared >= 4
    assert len(found.wrong) == sum(runs) >= 4  # all but those of empty tensors
    assert all("-> 77.0, reference" in wrong.finding.how and wrong.eager for wrong in found.wrong)


def test_calls_agree_with_themselves(reference: Executor) -> None:
    (case,) = [c for name, c in call_cases(trtplug.registry()).items() if "aten::mm-mm-float32" in name]
    found = check_calls(case, reference, "cpu", GPU)
    assert found.compared
    assert not found.wrong


def dynamic_case(name: str) -> Any:
    (case,) = [c for key, c in dynamic_cases(trtplug.registry()).items() if name in key]
    return case


def test_dynamic_calls_agree_with_themselves(reference: Executor) -> None:
    found = check_dynamic(dynamic_case("aten::mm-mm-float32"), reference, "cpu", GPU)
    assert found.compared >= 4
    assert not found.wrong


def test_a_dynamic_call_that_differs_is_found() -> None:
    found = check_dynamic(dynamic_case("aten::relu-relu-float32"), wrong_executor(), "cpu", GPU)
    assert found.compared >= 4
    assert len(found.wrong) >= found.compared - 2  # but for empty tensors


def test_what_is_drawn_is_fixed_by_the_case() -> None:
    """By its name, that is, and not by the source of the laws, which every case shares."""
    (case,) = [c for name, c in call_cases(trtplug.registry()).items() if "aten::relu-relu-float32" in name]

    def drawn(converter: Converter) -> list[str]:
        trial = Trial(case.registry, converter, case.dtype, GPU, law="law 11")
        found: list[str] = []
        trial.explore(lambda data: found.append(str(trial.well_formed(data).call)), GPU.calls)
        return found

    assert drawn(case.converter)
    assert drawn(case.converter) == drawn(case.converter)
    assert drawn(case.converter) != drawn(dataclasses.replace(case.converter, name="other"))
