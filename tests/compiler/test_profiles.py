"""Several optimization profiles in one engine: what they are called, which one serves a call, and what none holds."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import trtplug
from trtplug.errors import ArtefactError, ExecutorError, InputError, SettingsError
from trtplug.executors.profiled import ProfiledSession
from trtplug.jit.graph import TorchOnlyWarning
from trtplug.profiles import holding, parsed
from trtplug_registry import TensorFacts, UnknownNameError

PROFILES = ["batch=1", "batch=8..16..32"]


class Model(torch.nn.Module):
    """Two matrices with rows of their own, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.one(x).relu(), self.other(y).tanh()], 1)


def batch(low: int, high: int, **names: str) -> trtplug.Input:
    return trtplug.Input(min_shape=(low, 4), opt_shape=(low, 4), max_shape=(high, 4), dims={0: "batch"}, **names)


def rows(count: int) -> torch.Tensor:
    return torch.arange(4.0 * count).reshape(count, 4).cos()


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model().eval()


@pytest.fixture(scope="module")
def compiled(model: Model) -> trtplug.CompiledModule:
    return trtplug.compile(model, inputs=[batch(1, 64)] * 2, profiles=PROFILES, executor="reference")


def test_the_engine_has_them(compiled: trtplug.CompiledModule) -> None:
    (engine,) = compiled.engines
    assert [profile[0] for profile in engine.profiles] == [((1, 4),) * 3, ((8, 4), (16, 4), (32, 4))]
    assert (engine.input_bindings[0].smallest, engine.input_bindings[0].largest) == ((1, 4), (32, 4))


def in_words(report: trtplug.CompilationReport) -> list[list[str]]:
    (engine,) = report.engines
    return [[str(size) for size in sizes] for sizes in engine.profiles]


def test_reports_have_them(model: Model, compiled: trtplug.CompiledModule) -> None:
    planned = trtplug.explain(model, inputs=[batch(1, 64)] * 2, profiles=PROFILES)
    assert in_words(planned) == in_words(compiled.report) == [["batch=1"], ["batch=8..16..32"]]
    assert "2 optimization profiles: batch=1; or batch=8..16..32" in str(planned)
    (engine,) = json.loads(planned.to_json())["engines"]
    assert engine["profiles"][1] == [{"name": "batch", "min": 8, "opt": 16, "max": 32}]
    assert in_words(trtplug.explain(model, inputs=[batch(1, 64)] * 2)) == [["batch=1..1..64"]]
    assert in_words(trtplug.explain(model, (rows(2), rows(2)))) == []


@pytest.mark.parametrize("count", [1, 8, 20, 32])
def test_sizes_within_one_are_taken(model: Model, compiled: trtplug.CompiledModule, count: int) -> None:
    torch.testing.assert_close(compiled(rows(count), rows(count)), model(rows(count), rows(count)))


@pytest.mark.parametrize("count", [2, 7])
def test_sizes_between_them_are_not(compiled: trtplug.CompiledModule, count: int) -> None:
    words = rf"no optimization profile holds x \[{count}, 4\], y \[{count}, 4\]; there are x \[1, 4\] to \[1, 4\]"
    with pytest.raises(InputError, match=words):
        compiled(rows(count), rows(count))
    with pytest.raises(InputError, match=r"batch is compiled for 1 to 32"):
        compiled(rows(33), rows(33))


@pytest.mark.parametrize("suffix", ["trtp", "pt2", "ts"])
def test_files_keep_them(
    model: Model, compiled: trtplug.CompiledModule, tmp_path: Path, suffix: str, recwarn: pytest.WarningsRecorder
) -> None:
    file = trtplug.save(compiled, tmp_path / f"model.{suffix}")
    loaded = trtplug.load(file, trusted=suffix != "trtp")
    torch.testing.assert_close(loaded(rows(8), rows(8)), model(rows(8), rows(8)))
    with pytest.raises((InputError, ExecutorError, RuntimeError), match="no optimization profile"):
        loaded(rows(2), rows(2))


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("batsh=1", UnknownNameError, "unknown dimension in profiles 'batsh': did you mean 'batch'"),
        ("x[1]=4", SettingsError, r"x\[1\] does not vary"),
        ("batch=65", SettingsError, r"beyond the range of batch, 1..64"),
        ("batch=2, y[0]=3", SettingsError, r"gives y\[0\] two ranges"),
        ("batch 2", SettingsError, "write name=size or name=min..opt..max"),
        ("batch=1..3..2", SettingsError, "not min <= opt <= max"),
        ("batch=1, batch=2", SettingsError, "says twice what batch is"),
    ],
)
def test_wrong_profiles(model: Model, text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        trtplug.explain(model, inputs=[batch(1, 64)] * 2, profiles=[text])


def test_points() -> None:
    assert parsed("a=1, b[0]=2..3,c=4..5..6") == {"a": (1, 1, 1), "b[0]": (2, 3, 3), "c": (4, 5, 6)}


def test_torch_compile(model: Model) -> None:
    fast = torch.compile(model, backend="trtplug", options={"profiles": ["x[0]=2..4", "x[0]=16"]}, dynamic=True)
    with torch.no_grad():
        for count in (4, 2, 16):
            torch.testing.assert_close(fast(rows(count), rows(count)), model(rows(count), rows(count)))
        with pytest.warns(TorchOnlyWarning, match=r"no optimization profile .* holds a call with \[5, 4\]"):
            torch.testing.assert_close(fast(rows(5), rows(5)), model(rows(5), rows(5)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fast(rows(3), rows(3))
    assert [["x[0]=2..4..4"], ["x[0]=16"]] in [in_words(report) for report in trtplug.reports(fast) if report.engines]


def test_whoever_traces_a_compiled_module_is_held_to_them(compiled: trtplug.CompiledModule) -> None:
    around = torch.compile(lambda x: compiled(x, x) + 1, backend="eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(around(rows(8)), compiled(rows(8), rows(8)) + 1)
    with pytest.raises(Exception, match="no optimization profile"):
        around(rows(2))


# --- which one --------------------------------------------------------------------------------------------------------

spans = st.tuples(*[st.integers(0, 40)] * 3).map(lambda span: tuple((size,) for size in sorted(span)))


@given(st.lists(spans, min_size=1, max_size=5), st.integers(0, 40))
def test_the_nearest_that_holds(profiles: list[tuple[tuple[int], ...]], size: int) -> None:
    """Of those that hold a size, none has its typical size nearer by ratio."""
    chosen = holding([[span] for span in profiles], [(size,)])
    held = [number for number, (low, _, high) in enumerate(profiles) if low[0] <= size <= high[0]]
    assert (chosen is None) == (not held)
    if chosen is not None:
        assert chosen in held
        ratios = [max(size, 1) / max(profiles[number][1][0], 1) for number in held]
        mine = max(size, 1) / max(profiles[chosen][1][0], 1)
        assert max(mine, 1 / mine) <= min(max(ratio, 1 / ratio) for ratio in ratios) + 1e-9


@dataclasses.dataclass
class Engine:
    name: str = "engine_0"
    inputs: tuple[Any, ...] = (("x", TensorFacts((-1, 4), torch.float32)), ("n", TensorFacts((), torch.int64)))
    outputs: tuple[Any, ...] = ()
    profiles: tuple[Any, ...] = (
        (((1, 4),) * 3, ((0,), (1,), (9,))),
        (((2, 4), (8, 4), (9, 4)), ((0,), (1,), (9,))),
    )
    plan: bytes = b""
    reference: Any = None


class Recorder:
    """Stands for a session."""

    broken = False

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, inputs: object) -> tuple[torch.Tensor, ...]:
        return (torch.tensor(self.number),)


def test_each_call_goes_to_the_context_of_its_profile() -> None:
    opened: list[int] = []
    session = ProfiledSession(Engine(), lambda number: opened.append(number) or Recorder(number))  # type: ignore[arg-type, func-returns-value]  # stand-ins
    assert [int(session((rows(count), 3))[0]) for count in (3, 1, 9, 1)] == [1, 0, 1, 0]  # type: ignore[index]
    assert opened == [1, 0]
    for wrong in ((rows(10), 3), (rows(1), 10), (rows(0), 3)):
        with pytest.raises(ExecutorError, match=r"engine_0 has no optimization profile for .* it has x \[1, 4\] to"):
            session(wrong)
    with pytest.raises(ExecutorError, match="takes 2 inputs, not 1"):
        session((rows(1),))


def test_the_cache_tells_them_apart(model: Model, tmp_path: Path) -> None:
    for profiles in (PROFILES, ["batch=1", "batch=8..17..32"]):
        made = trtplug.compile(model, inputs=[batch(1, 64)] * 2, profiles=profiles, cache_dir=tmp_path)
        assert not made.report.engines[0].cached
    again = trtplug.compile(model, inputs=[batch(1, 64)] * 2, profiles=profiles, cache_dir=tmp_path)
    assert again.report.engines[0].cached
    assert again.engines[0].profiles == made.engines[0].profiles
    with pytest.raises(InputError, match="no optimization profile"):
        again(rows(3), rows(3))


def test_profiles_that_contradict_each_other_are_damage(compiled: trtplug.CompiledModule, tmp_path: Path) -> None:
    (engine,) = compiled.engines
    first, *rest = engine.input_bindings
    bad = dataclasses.replace(first, profiles=first.profiles[:1])
    compiled = trtplug.CompiledModule(
        compiled.graph_module,
        compiled.lowered,
        [dataclasses.replace(engine, input_bindings=(bad, *rest))],
        compiled.report,
        checks=compiled.checks,
    )
    with pytest.raises(ArtefactError, match="differ in profiles"):
        trtplug.load(trtplug.save(compiled, tmp_path / "m.trtp"))
