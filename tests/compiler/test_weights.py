"""New weights of equal shapes: what holds them is built again and nothing else, or the module stays as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import trtplug
from trtplug.cache import Kept
from trtplug.cache.kept import same_data, stamp

OPTIONS = {"min_block_size": 1, "torch_ops": ["aten::sort"]}


class Chain(nn.Module):
    """Three engines with Torch between them: a folded constant, a weight of Torch's, a tied one, a written buffer."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.randn(4))
        self.three.weight = self.one.weight  # tied: in the first and in the last engine
        self.register_buffer("count", torch.zeros(4))

    def forward(self, x):
        x = torch.sort(torch.relu(self.one(x))).values
        x = torch.sort(torch.tanh(self.two(x) * self.scale.exp())).values  # exp of a weight is folded
        self.count.add_(1)
        return torch.sigmoid(self.three(x)) + self.count


def fresh(seed=0):
    torch.manual_seed(seed)
    return Chain().eval()


def compile_(model):
    made = trtplug.compile(model, (torch.randn(2, 4),), **OPTIONS)
    assert [engine.name for engine in made.engines] == ["engine_0", "engine_1", "engine_2"]
    return made


@pytest.fixture(scope="module")
def model():
    return fresh()


@pytest.fixture(scope="module")
def shared(model):
    return compile_(model)


@pytest.fixture
def compiled(shared):
    """A module to itself for each test: what it is updated to, the others do not see."""
    return copy.copy(shared)


def check(compiled, model, **entries):
    """That the module computes what the model does with these entries."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, value in entries.items():
            twin.state_dict()[name.replace("__", ".")].copy_(value)
        twin.count.copy_(compiled.state_dict()["count"])
        x = torch.randn(2, 4)
        torch.testing.assert_close(compiled(x), twin(x))


@pytest.mark.parametrize(
    ("names", "engines"),
    [
        (["two.weight"], ("engine_1",)),
        (["two.bias", "three.bias"], ("engine_1", "engine_2")),
        (["scale"], ("engine_1",)),
        (["one.weight"], ("engine_0", "engine_2")),
        (["three.weight"], ("engine_0", "engine_2")),
        (["count"], ()),
        ([], ()),
    ],
)
def test_only_what_holds_a_weight_is_built_again(names, engines, compiled, model, monkeypatch):
    new = {name: torch.randn_like(model.state_dict()[name]) for name in names}
    check(compiled, model)
    before = {engine.name: engine for engine in compiled.engines}
    calls = []
    build = trtplug.compilation.Network.build
    monkeypatch.setattr("trtplug.compilation.Network.build", lambda *a, **k: calls.append(a) or build(*a, **k))
    assert compiled.update_weights(new) == engines
    assert len(calls) == len(engines)
    for engine in compiled.engines:
        assert (engine.plan is before[engine.name].plan) == (engine.name not in engines)
    entries = {name.replace(".", "__"): value for name, value in new.items()}
    check(compiled, model, **entries)
    assert compiled.update_weights(new) == ()  # they hold these already
    check(compiled, model, **entries)
    assert not compiled.report.warnings


def test_a_whole_state_dict(compiled, model):
    other = fresh(1)
    assert compiled.update_weights(other.state_dict()) == ("engine_0", "engine_1", "engine_2")
    x = torch.randn(2, 4)
    torch.testing.assert_close(compiled(x), other(x))
    assert compiled.update_weights(other.state_dict()) == ()
    with torch.no_grad():
        other.two.bias += 1
    torch.testing.assert_close(compiled(x), fresh(1)(x) + 1, rtol=1e-4, atol=1e-4)  # the values were copied


def test_buffers_that_the_forward_writes_keep_their_values():
    compiled = compile_(fresh())
    x = torch.randn(2, 4)
    for _ in range(3):
        compiled(x)
    compiled.update_weights({"two.bias": torch.randn(4)})
    compiled(x)
    assert compiled.state_dict()["count"].tolist() == [4] * 4
    compiled.update_weights({"count": torch.full((4,), 10.0)})
    compiled(x)
    assert compiled.state_dict()["count"].tolist() == [11] * 4


def test_the_model_is_not_written_to(compiled, model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compiled.update_weights(fresh(1).state_dict())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("write", ["copy", "data", "swap"])
def test_weights_that_were_changed_in_place_are_not_taken_for_old_ones(write):
    """Values equal to what the model holds now are new to an engine that was built before the model was written to."""
    model = fresh()
    compiled = compile_(model)
    with torch.no_grad():
        if write == "copy":
            model.two.weight.copy_(torch.randn(4, 4))
        elif write == "data":  # Torch does not count this one
            model.two.weight.data[1, 2] += 1
        else:  # the same numbers in another order
            model.two.weight.data[[0, 3]] = model.two.weight.data[[3, 0]]
    given = {"two.weight": model.two.weight.detach().clone()}
    assert compiled.update_weights(given) == ("engine_1",)
    check(compiled, model)


@pytest.mark.parametrize(
    ("new", "error", "words"),
    [
        (
            {"two.wieght": torch.ones(4, 4)},
            trtplug.TrtplugError,
            r"unknown weight 'two\.wieght': did you mean 'two\.weight'",
        ),
        ({"two.weight": torch.ones(4, 5)}, trtplug.WeightsError, r"'two\.weight' is float32\[4, 5\]; float32\[4, 4\]"),
        (
            {"two.weight": torch.ones(4, 4).double()},
            trtplug.WeightsError,
            r"is float64\[4, 4\]; float32\[4, 4\] is",
        ),
        ({"two.weight": [1.0]}, trtplug.WeightsError, r"is a list; a tensor float32\[4, 4\] is expected"),
        (
            {"one.weight": torch.ones(4, 4), "three.weight": torch.zeros(4, 4)},
            trtplug.WeightsError,
            r"'one\.weight' shares memory with another weight that is given other values",
        ),
    ],
)
def test_what_does_not_fit_leaves_the_module_as_it_was(new, error, words, compiled, model):
    engines, graph = compiled.engines, compiled.graph_module
    with pytest.raises(error, match=words):
        compiled.update_weights({"two.bias": torch.randn(4), **new})
    assert compiled.engines is engines
    assert compiled.graph_module is graph
    check(compiled, model)


def test_an_engine_that_cannot_be_built_leaves_the_module_as_it_was(model, monkeypatch):
    compiled = trtplug.compile(model, (torch.randn(2, 4),), on_failure="raise", **OPTIONS)

    def fails(*args, **kwargs):
        raise trtplug.BuildError("no")

    monkeypatch.setattr("trtplug.compilation.Network.build", fails)
    with pytest.raises(trtplug.BuildError):
        compiled.update_weights({"two.bias": torch.randn(4)})
    check(compiled, model)
    assert compiled.update_weights({}) == ()


def test_views_of_a_weight_follow_it():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat = nn.Parameter(torch.randn(8))
            self.register_buffer("head", self.flat.detach()[:4])

        def forward(self, x):
            return torch.relu(torch.sort(x * self.head).values) + self.flat[4:]

    model = Views()
    compiled = trtplug.compile(model, (torch.randn(4),), **OPTIONS)
    new, x = torch.randn(8), torch.randn(4)
    compiled.update_weights({"flat": new})
    torch.testing.assert_close(compiled(x), torch.relu(torch.sort(x * new[:4]).values) + new[4:])


def test_modules_without_a_recipe_say_so(compiled, tmp_path):
    loaded = trtplug.load(trtplug.save(compiled, tmp_path / "model.trtp"))
    for module in (loaded, copy.deepcopy(compiled)):
        with pytest.raises(trtplug.WeightsError, match="takes no new weights"):
            module.update_weights({})


def test_updated_modules_are_saved_and_found_in_the_cache(tmp_path):
    model = fresh()
    options = {**OPTIONS, "cache_dir": tmp_path / "cache"}
    compiled = trtplug.compile(model, (torch.randn(2, 4),), **options)
    new = {"two.bias": torch.randn(4)}
    assert compiled.update_weights(new) == ("engine_1",)
    x = torch.randn(2, 4)
    loaded = trtplug.load(trtplug.save(compiled, tmp_path / "model.trtp"))
    torch.testing.assert_close(loaded(x), compiled(x))
    model.load_state_dict({**model.state_dict(), **new})
    again = trtplug.compile(model, (torch.randn(2, 4),), **options)
    assert all(engine.cached for engine in again.report.engines)


# --- stamps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (7, 5), (3000,)])
def test_stamps_change_with_each_byte(dtype, shape):
    tensor = torch.zeros(shape, dtype=dtype)
    before = stamp(tensor)
    assert stamp(tensor) == before
    seen = {before}
    flat = tensor.data.reshape(-1)  # a view; its versions count for themselves
    for place in range(0, flat.numel(), max(1, flat.numel() // 11)):
        flat[place] = 1
        seen.add(stamp(tensor))
        flat[place] = 0
    assert len(seen) == 1 + len(range(0, flat.numel(), max(1, flat.numel() // 11)))
    assert same_data(tensor, tensor.clone())


def test_zeros_of_either_sign_are_different_data():
    assert not same_data(torch.tensor(0.0), torch.tensor(-0.0))
    assert same_data(torch.tensor(float("nan")), torch.tensor(float("nan")))


def test_kept_engines_are_found_by_what_they_are_made_of(compiled):
    kept = compiled._recipe.kept
    assert isinstance(kept, Kept)
    assert [engine.plan for engine in kept.engines] == [engine.plan for engine in compiled.engines]
