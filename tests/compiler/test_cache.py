"""The engine cache: a key over everything, entries that are never trusted, a bounded folder for many processes."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import page_data
from torch import fx, nn
from typer.testing import CliRunner

import trtplug
from trtplug.assembly import registry_for
from trtplug.cache import CacheWarning, EngineCache, Undescribable, Work, circumstances, describe
from trtplug.compilation import Compilation
from trtplug.partition import extract
from trtplug.settings import Settings

aten = torch.ops.aten


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)).eval()


def sizes(low=1, typical=4, high=8, name="batch"):
    return [trtplug.Input(min_shape=(low, 4), opt_shape=(typical, 4), max_shape=(high, 4), name=name)]


def compiled(folder, module=None, inputs=None, **options):
    return trtplug.compile(module or model(), inputs=inputs or sizes(), cache_dir=folder, **options)


def entries(folder):
    return sorted(Path(folder).glob("*.engine"))


def work_of(module, inputs, **options):
    """The description of a model's one block."""
    chosen = Settings.of(options)
    run = Compilation(chosen, registry_for(chosen), None)
    lowered = run.lower(run.program(module, (), None, inputs, None))
    run.partition(lowered)
    (block,) = run.parts.blocks
    return describe(extract(lowered.graph_module, block), lowered.ranges, circumstances(chosen, run.registry, {}))


@pytest.fixture(scope="module")
def registry():
    return registry_for(Settings())


# --- keys -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A block, as data: each call names an op, its operands among what came before, and a number."""

    calls: tuple[tuple[str, int, int, float], ...]
    weight: tuple[float, ...]
    dtype: str
    results: tuple[int, ...]
    names: str = "n"
    notes: tuple[tuple[str, bool | int | str], ...] = ()


OPS = {"add": aten.add.Tensor, "sub": aten.sub.Tensor, "mul": aten.mul.Tensor, "pow": aten.pow.Tensor_Scalar}
CALL = st.tuples(st.sampled_from(sorted(OPS)), st.integers(0, 2), st.integers(0, 2), st.sampled_from([1, 2, 1.0, -0.0]))
RECIPE = st.builds(
    Recipe,
    st.lists(CALL, min_size=1, max_size=4).map(tuple),
    st.tuples(*[st.sampled_from([0.0, -0.0, 1.0, float("nan"), float("inf")])] * 3),
    st.sampled_from(["float32", "float16", "bfloat16"]),
    st.lists(st.integers(0, 2), min_size=1, max_size=2).map(tuple),
    st.sampled_from(["n", "m"]),
    st.sampled_from([(), (("sees_keys", True),), (("sees_keys", False),), (("acme", 1),), (("acme", "1"),)]),
)


def block_of(recipe):
    """The recipe as a graph, all of it made anew."""
    dtype = getattr(torch, recipe.dtype)
    graph = fx.Graph()
    nodes = [graph.placeholder("x"), graph.placeholder("y"), graph.get_attr("weight")]
    for number, (op, left, right, factor) in enumerate(recipe.calls):
        one, two = nodes[left - 3], nodes[right - 3]
        target = OPS[op]
        if op == "pow":
            nodes.append(graph.create_node("call_function", target, (one, factor), {}, f"{recipe.names}{number}"))
        else:
            kwargs = {} if op == "mul" else {"alpha": factor}
            nodes.append(graph.create_node("call_function", target, (one, two), kwargs, f"{recipe.names}{number}"))
    graph.output(tuple(nodes[place - 3] for place in recipe.results))
    for node in nodes:
        node.meta["val"] = torch.empty(3, dtype=dtype)
    nodes[-1].meta.update(recipe.notes)
    return fx.GraphModule({"weight": torch.tensor(recipe.weight, dtype=dtype)}, graph)


def graph_key(recipe):
    return describe(block_of(recipe), {}, {}).key


def as_written(recipe):
    """What the graph says: `repr` tells apart 1 from 1.0, 0.0 from -0.0, and takes every nan for the same."""
    calls = [
        (op, left, None if op == "pow" else right, None if op == "mul" else factor)
        for op, left, right, factor in recipe.calls
    ]
    return repr((calls, recipe.weight, recipe.dtype, recipe.results, recipe.names, recipe.notes))


@settings(max_examples=150, deadline=None)
@given(RECIPE, st.data())
def test_keys_are_equal_exactly_where_blocks_are(recipe, data):
    """Any change in arguments, wiring, weights, dtypes, names, notes changes the key; the same made anew has it."""
    assert graph_key(dataclasses.replace(recipe)) == graph_key(recipe)
    field = data.draw(st.sampled_from([field.name for field in dataclasses.fields(Recipe)]))
    other = dataclasses.replace(recipe, **{field: getattr(data.draw(RECIPE), field)})
    assert (graph_key(other) == graph_key(recipe)) == (as_written(other) == as_written(recipe))


@settings(max_examples=100, deadline=None)
@given(RECIPE, CALL, st.data())
def test_a_change_in_one_place_changes_the_key(recipe, call, data):
    """One op, operand or number of one call; one element of the weight; one result."""
    field = data.draw(st.sampled_from(["calls", "weight", "results"]))
    items = list(getattr(recipe, field))
    place = data.draw(st.integers(0, len(items) - 1))
    if field == "calls":
        part = data.draw(st.integers(0, 3))
        items[place] = (*items[place][:part], call[part], *items[place][part + 1 :])
    else:
        items[place] = data.draw(st.sampled_from([0.0, -0.0, 1.0] if field == "weight" else [0, 1, 2]))
    other = dataclasses.replace(recipe, **{field: tuple(items)})
    assert (graph_key(other) == graph_key(recipe)) == (as_written(other) == as_written(recipe))


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_every_setting_is_in_the_key(field, registry):
    kinds = {bool: not field.default, int: 5, tuple: ("other",)}
    other = copy.copy(Settings())
    object.__setattr__(other, field.name, kinds.get(type(field.default), "other"))  # any value, allowed or not
    same = circumstances(other, registry, {}) == circumstances(Settings(), registry, {})
    indifferent = (
        "cache_dir",
        "cache_bytes",
        "verify",
        "dump_graphs",
        "weight_check",
        "cuda_graphs",
        "weight_budget_bytes",
    )  # they decide nothing
    assert same == (field.name in indifferent)


def test_plugins_and_versions_are_in_the_key(registry):
    plain = registry
    base = circumstances(Settings(), plain, {"torch": "2.13.0"})
    assert circumstances(Settings(), registry_for(Settings()), {"torch": "2.13.0"}) == base
    for other in (trtplug.registry(block=["trtplug-passes"]), trtplug.registry(torch_ops=["aten::add"])):
        assert circumstances(Settings(), other, {"torch": "2.13.0"}) != base
    assert circumstances(Settings(), plain, {"torch": "2.13.1"}) != base
    block, tensors = block_of(Recipe((("add", 0, 2, 1),), (1.0, 2.0, 3.0), "float32", (0,))), {}
    keys = {
        describe(block, tensors, about).key for about in (base, {**base, "system": "other"}, {**base, "gpu": [1, 0]})
    }
    assert len(keys) == 3


def test_ranges_of_sizes_are_in_the_key_and_their_names_are_not():
    base = work_of(model(), sizes())
    assert work_of(model(), sizes(name="rows")).structure["symbols"] == base.structure["symbols"]
    assert work_of(model(), sizes()).key == base.key
    changed = [sizes(2), sizes(typical=5), sizes(high=9), [trtplug.Input(shape=(4, 4), name="batch")]]
    assert len({base.key, *(work_of(model(), each).key for each in changed)}) == 5
    other = model()
    with torch.no_grad():
        other[2].bias[1] += 1e-7
    assert work_of(other, sizes()).key != base.key


def test_what_has_no_description_is_said_so():
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.output((graph.call_function(print, (x,)),))
    with pytest.raises(Undescribable, match="print"):
        describe(fx.GraphModule({}, graph), {}, {})
    sparse = block_of(Recipe((("add", 0, 2, 1),), (1.0, 2.0, 3.0), "float32", (0,)))
    sparse.weight = sparse.weight.to_sparse()
    with pytest.raises(Undescribable, match="without plain memory"):
        describe(sparse, {}, {})


# --- hits -------------------------------------------------------------------------------------------------------------


def test_a_hit_neither_converts_nor_builds(tmp_path, monkeypatch):
    first = compiled(tmp_path)
    assert [engine.cached for engine in first.report.engines] == [False]

    def never(*args, **kwargs):
        raise AssertionError("converted")

    monkeypatch.setattr("trtplug.compilation.convert", never)
    again = compiled(tmp_path)
    assert [engine.cached for engine in again.report.engines] == [True]
    assert "(cached)" in str(again.report)
    assert page_data(again.report.to_html())["model"]["engines"][0]["cached"]
    assert "build" not in again.report.stages
    assert again.engines[0].plan == first.engines[0].plan
    x = torch.randn(5, 4)
    torch.testing.assert_close(again(x), first(x), rtol=0, atol=0)
    loaded = trtplug.load(trtplug.save(again, tmp_path / "model.trtp"))
    assert loaded.report.engines[0].cached
    torch.testing.assert_close(loaded(x), first(x), rtol=0, atol=0)
    with pytest.raises(AssertionError, match="converted"):
        compiled(tmp_path, tf32=True)


def test_weights_are_in_the_plan_only(tmp_path):
    module = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 300)).eval()
    inputs = [trtplug.Input(shape=(2, 300))]
    first = compiled(tmp_path, module, inputs)
    with zipfile.ZipFile(entries(tmp_path)[0]) as opened:
        assert opened.getinfo("tensors.safetensors").file_size < 10_000 < 300 * 300
    again = compiled(tmp_path, module, inputs)
    assert again.report.engines[0].cached
    x = torch.randn(2, 300)
    torch.testing.assert_close(again(x), first(x), rtol=0, atol=0)


def test_another_process_hits(tmp_path):
    """Nothing in a key depends on the process: addresses, hash seeds, the order of sets."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_cache as t; t.compiled(sys.argv[2])"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, os.path.dirname(__file__), tmp_path], check=True, env=environment)
    assert compiled(tmp_path).report.engines[0].cached


def test_engines_of_one_model_are_found_one_by_one(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return torch.tanh(self.two(torch.sort(torch.relu(self.one(x))).values))

    torch.manual_seed(0)
    module, options = Two(), {"torch_ops": ["aten::sort"], "min_block_size": 1}
    compiled(tmp_path, module, **options)
    with torch.no_grad():
        module.two.weight.mul_(2)
    again = compiled(tmp_path, module, **options)
    assert [engine.cached for engine in again.report.engines] == [True, False]
    x = torch.randn(3, 4)
    torch.testing.assert_close(again(x), module(x))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # Dynamo's own, on Python 3.12
def test_torch_compile_uses_it(tmp_path):
    options = {"cache_dir": str(tmp_path), "min_block_size": 1}
    for _ in range(2):
        torch._dynamo.reset()
        with torch.no_grad():
            torch.compile(model(), backend="trtplug", options=options)(torch.ones(2, 4))
        assert len(entries(tmp_path)) == 1


def test_the_command_line_names_a_folder(tmp_path):
    from trtplug.cli import app

    torch.export.save(torch.export.export(model(), (torch.ones(2, 4),)), tmp_path / "model.pt2")
    command = ["compile", str(tmp_path / "model.pt2"), "--cache-dir", str(tmp_path / "cache"), "--json"]
    for cached in (False, True):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["engines"][0]["cached"] is cached


# --- entries that are not what they should be -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A description, its engine, and the bytes of its entry."""
    folder = tmp_path_factory.mktemp("sample")
    made = compiled(folder)
    (path,) = entries(folder)
    chosen = Settings.of({"cache_dir": folder})
    run = Compilation(chosen, registry_for(chosen), None)
    lowered = run.lower(run.program(model(), (), None, sizes(), None))
    run.partition(lowered)
    found = run.finished.find(extract(lowered.graph_module, run.parts.blocks[0]), lowered.ranges)
    assert found.engine is not None
    assert path.stem == found.work.key
    return found.work, made.engines[0], path.read_bytes()


def test_damaged_and_foreign_entries_are_not_there(sample, tmp_path):
    work, engine, good = sample
    cache = EngineCache(tmp_path, 1 << 30)
    path = tmp_path / f"{work.key}.engine"
    rng = random.Random(0)
    with zipfile.ZipFile(io.BytesIO(good)) as opened:
        edges = [info.header_offset for info in opened.infolist()]
    cut = [good[:place] for place in (0, 1, *edges, len(good) - 1)] + [good + b"\0"]
    flipped = []
    for place in (*rng.sample(range(len(good)), 40), *(edge + 40 for edge in edges)):
        flipped.append(good[:place] + bytes([good[place] ^ (1 << rng.randrange(8))]) + good[place + 1 :])
    foreign = [pickle.dumps(print), b"PK\3\4", os.urandom(1000)]
    for data in (*cut, *flipped, *foreign):
        path.write_bytes(data)
        assert cache.get(work) is None
    path.write_bytes(good)
    assert cache.get(work).plan == engine.plan
    path.unlink()
    path.mkdir()
    assert cache.get(work) is None


def test_an_entry_of_other_work_is_not_taken(sample, tmp_path):
    """The description in an entry counts, not the name of its file."""
    work, _, good = sample
    other = Work({**work.structure, "nodes": []}, work.weights)
    (tmp_path / f"{other.key}.engine").write_bytes(good)
    assert EngineCache(tmp_path, 1 << 30).get(other) is None


def test_an_entry_of_another_format_is_not_taken(sample, tmp_path, monkeypatch):
    work, engine, _ = sample
    cache = EngineCache(tmp_path, 1 << 30)
    with monkeypatch.context() as later:
        later.setattr("trtplug.artefacts.engines.VERSION", 2)
        cache.put(work, engine, {})
        assert cache.get(work) is not None
    assert cache.get(work) is None


def test_a_bad_entry_is_built_again(tmp_path):
    first = compiled(tmp_path)
    (path,) = entries(tmp_path)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    again = compiled(tmp_path)
    assert not again.report.engines[0].cached
    assert compiled(tmp_path).report.engines[0].cached
    torch.testing.assert_close(again(torch.ones(2, 4)), first(torch.ones(2, 4)))


def test_nothing_is_unpickled(sample, tmp_path):
    work, _, _ = sample
    seen = []
    sys.addaudithook(lambda event, args: seen.append(event) if event in ("pickle.find_class", "os.system") else None)

    class Bomb:
        def __reduce__(self):
            return os.system, ("true",)

    (tmp_path / f"{work.key}.engine").write_bytes(pickle.dumps(Bomb()))
    assert EngineCache(tmp_path, 1 << 30).get(work) is None
    assert seen == []


# --- the folder -------------------------------------------------------------------------------------------------------


def numbered(work, number):
    return Work({**work.structure, "number": number}, work.weights)


def test_what_was_not_used_for_longest_goes_first(sample, tmp_path):
    work, engine, good = sample
    cache = EngineCache(tmp_path, int(3.5 * len(good)))
    for number in range(3):
        cache.put(numbered(work, number), engine, {})
        os.utime(tmp_path / f"{numbered(work, number).key}.engine", (number, number))
    assert cache.get(numbered(work, 0)) is not None  # used now: number 1 is the oldest
    (tmp_path / "mine.engine").write_bytes(b"0" * 10 * len(good))  # not an entry: neither counted nor touched
    cache.put(numbered(work, 3), engine, {})
    assert [cache.get(numbered(work, number)) is not None for number in range(4)] == [True, False, True, True]
    assert sum(path.stat().st_size for path in entries(tmp_path) if path.name != "mine.engine") <= cache.limit
    small = EngineCache(tmp_path / "small", 1000)
    small.put(work, engine, {})
    assert entries(tmp_path / "small") == []


def _hammer(folder, work, engine, seed):
    rng, cache = random.Random(seed), EngineCache(folder, 2_000_000)
    while True:
        item = numbered(work, rng.randrange(4))
        found = cache.get(item)
        assert found is None or found.plan == engine.plan
        cache.put(item, engine, {})


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # importing torch anew takes seconds each
def test_many_processes_and_kill_9(sample, tmp_path):
    """Processes that write and evict the same entries, and are killed in the middle of it, leave nothing half done."""
    work, engine, _ = sample
    for number in range(4):
        _ = numbered(work, number).content
    context, rng = multiprocessing.get_context("fork"), random.Random(1)
    running = [context.Process(target=_hammer, args=(tmp_path, work, engine, seed)) for seed in range(3)]
    for process in running:
        process.start()
    cache = EngineCache(tmp_path, 2_000_000)
    hits = 0
    deadline = time.monotonic() + 60
    for victim in range(6):
        until = time.monotonic() + rng.uniform(0.05, 0.3)
        while time.monotonic() < until or (hits == 0 and time.monotonic() < deadline):
            found = cache.get(numbered(work, rng.randrange(4)))
            assert found is None or found.plan == engine.plan
            hits += found is not None
        process = running[victim % 3]
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL  # it did not fail by itself
        running[victim % 3] = context.Process(target=_hammer, args=(tmp_path, work, engine, 10 + victim))
        running[victim % 3].start()
    for process in running:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert hits
    for number in range(4):
        path = tmp_path / f"{numbered(work, number).key}.engine"
        assert not path.exists() or cache.get(numbered(work, number)).plan == engine.plan
    left = [path for path in tmp_path.iterdir() if path.suffix != ".engine"]
    for path in left:  # what the killed ones were writing goes when it is old
        os.utime(path, (0, 0))
    cache.put(work, engine, {})
    assert [path.suffix for path in tmp_path.iterdir()] == [".engine"] * len(list(tmp_path.iterdir()))


def test_a_full_disk_costs_a_warning(tmp_path, monkeypatch):
    @contextlib.contextmanager
    def full(path):
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr("trtplug.cache.store.replaced_file", full)
    with pytest.warns(CacheWarning, match="No space left on device"):
        made = compiled(tmp_path)
    assert made(torch.ones(2, 4)).shape == (2, 2)


def test_a_folder_that_cannot_be_one(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(trtplug.SettingsError, match=r"cache_dir=.*cannot be a folder"):
        compiled(tmp_path / "file")
    for value in (5, "", b"x"):
        with pytest.raises(trtplug.SettingsError, match=r"cache_dir=.*must be the path of a folder"):
            compiled(value)
    with pytest.raises(trtplug.SettingsError, match=r"cache_bytes=0: must be positive"):
        compiled(tmp_path / "new", cache_bytes=0)
    assert not (tmp_path / "new").exists()
    trtplug.explain(model(), inputs=sizes(), cache_dir=tmp_path / "new")
    assert not (tmp_path / "new").exists()
