"""Law 11: TensorRT and the reference executor agree, but for what the record knows; and the record is of use."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import trtplug
from trtplug._tensorrt import library
from trtplug.executors import pick_executor
from trtplug.testing.parity import (
    check_calls,
    check_dynamic,
    check_layer,
    check_lowered,
    dynamic_cases,
    layer_cases,
    lowered_calls,
)
from trtplug.testing.parity import jobs as _defines_the_ops_of_quantized_decomposed  # noqa: F401  # named by cases
from trtplug.testing.parity import record as records
from trtplug.testing.parity.calls import call_cases
from trtplug.testing.parity.record import DECISIONS, Entry

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
HERE = torch.cuda.is_available()
REGISTRY = trtplug.registry()


def known(table: str, case: str) -> Entry:
    entry = records.expected(table, case, library().__version__)
    if entry is None:
        pytest.skip(f"TensorRT {library().__version__} has no record yet: benchmarks/gpu.py --record makes one")
    if entry.verdict == "crash":
        pytest.skip(f"known to end the process: {entry.how}")
    return entry


def breadth() -> Any:
    """The part of the benchmark that runs the calls beyond core ATen."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.insert(0, str(BENCHMARKS))
    return importlib.import_module("gpu_breadth")


@pytest.mark.gpu
@pytest.mark.skipif(not HERE, reason="no CUDA device")
@pytest.mark.parametrize("case", list(layer_cases()) if HERE else ["every layer"])
def test_layer(case: str) -> None:
    entry = known("layers", case)
    found = check_layer(layer_cases()[case], pick_executor(REGISTRY, "tensorrt"), "cuda")
    assert found.verdict == entry.verdict, f"{found.how}; the record: {entry}"


@pytest.mark.gpu
@pytest.mark.skipif(not HERE, reason="no CUDA device")
@pytest.mark.parametrize("case", list(call_cases(REGISTRY)) if HERE else ["every converter"])
def test_calls(case: str) -> None:
    entry = known("calls", case)
    found = check_calls(call_cases(REGISTRY)[case], pick_executor(REGISTRY, "tensorrt"), "cuda")
    verdict = "differs" if found.wrong else "agrees"
    assert verdict == entry.verdict, f"{found.wrong[:2]}; the record: {entry}"


@pytest.mark.gpu
@pytest.mark.skipif(not HERE, reason="no CUDA device")
@pytest.mark.parametrize("case", list(dynamic_cases(REGISTRY)) if HERE else ["every converter that takes them"])
def test_dynamic_calls(case: str) -> None:
    entry = known("dynamic", case)
    found = check_dynamic(dynamic_cases(REGISTRY)[case], pick_executor(REGISTRY, "tensorrt"), "cuda")
    verdict = "differs" if found.wrong else "agrees"
    assert verdict == entry.verdict, f"{found.wrong[:2]}; the record: {entry}"


@pytest.mark.gpu
@pytest.mark.skipif(not HERE, reason="no CUDA device")
@pytest.mark.parametrize("case", list(lowered_calls(REGISTRY)) if HERE else ["every op that is decomposed"])
def test_lowered_calls(case: str) -> None:
    entry = known("lowered", case)
    found = check_lowered(lowered_calls(REGISTRY)[case], pick_executor(REGISTRY, "tensorrt"), "cuda")
    verdict = "differs" if found.wrong else "agrees"
    assert verdict == entry.verdict, f"{found.wrong[:2]}; the record: {entry}"


@pytest.mark.gpu
@pytest.mark.skipif(not HERE, reason="no CUDA device")
@pytest.mark.filterwarnings("ignore")  # eager's about betas, defaults and deprecations
@pytest.mark.parametrize("case", list(breadth().breadth_cases()) if HERE else ["every call beyond core ATen"])
def test_breadth(case: str) -> None:
    entry = known("breadth", case)
    found = breadth().breadth(case, "tensorrt")
    verdict = "differs" if found["wrong"] else "agrees"
    assert verdict == entry.verdict, f"{found['wrong'][:2]}; the record: {entry}"


def test_every_entry_is_of_a_case_that_exists_and_is_decided() -> None:
    cases = {
        "breadth": breadth().every_id(),
        "layers": set(layer_cases()),
        "calls": set(call_cases(REGISTRY)),
        "dynamic": set(dynamic_cases(REGISTRY)),
        "lowered": set(lowered_calls(REGISTRY)),
    }
    for entry in records.read().values():
        assert entry.case in cases[entry.table], f"stale: {entry}"
        assert entry.decision in DECISIONS, entry
        assert (entry.decision == "") == (entry.verdict in ("agrees", "refused")), entry


def test_every_decision_is_needed() -> None:
    assert {entry.decision for entry in records.read().values()} == set(DECISIONS)


def test_every_layer_is_in_the_record_of_every_version() -> None:
    entries = records.read()
    versions = {entry.version for entry in entries.values()}
    assert versions
    for version in versions:
        assert {case for table, case, v in entries if (table, v) == ("layers", version)} == set(layer_cases())


def test_a_decision_stays_while_the_verdict_does(tmp_path: Path) -> None:
    old = [Entry("layers", "a", "1", "differs", "range", "x"), Entry("layers", "b", "1", "agrees")]
    records.write(old, tmp_path / "r.tsv")
    read = records.read(tmp_path / "r.tsv")
    assert list(read.values()) == old
    found = [Entry("layers", "a", "2", "differs", "", "y"), Entry("layers", "b", "2", "differs", "", "z")]
    merged = {(e.case, e.version): e.decision for e in records.merged(read, found, "2")}
    assert merged == {("a", "1"): "range", ("b", "1"): "", ("a", "2"): "range", ("b", "2"): "?"}


def test_a_run_of_some_cases_leaves_the_others() -> None:
    old = [Entry("layers", "a", "1", "differs", "range", "x"), Entry("calls", "c", "1", "differs", "range")]
    known = {(e.table, e.case, e.version): e for e in [*old, Entry("calls", "d", "1", "differs", "range")]}
    found = [Entry("layers", "a", "1", "agrees"), Entry("calls", "d", "1", "agrees")]
    assert set(records.merged(known, found, "1")) == {Entry("layers", "a", "1", "agrees"), old[1]}
