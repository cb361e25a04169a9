"""How models are called and what they return: each case ahead of time and just in time, compared with eager."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import trtplug
from trtplug.jit import TorchOnlyWarning

f = nn.functional


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        yield
    torch._dynamo.reset()


class Model(nn.Module):
    """A function as the forward of a module with a layer and a buffer."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.layer = nn.Linear(4, 4)
        self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.register_buffer("total", torch.zeros(4))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def call(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def x(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape or (2, 4), generator=torch.Generator().manual_seed(seed))


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, and calls of it; ahead of time it is compiled for the first, or for `inputs`."""

    function: Callable[..., Any]
    calls: Sequence[Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]]
    inputs: Sequence[Any] | None = None
    context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    training: bool = False

    def __str__(self) -> str:
        return self.function.__name__


CASES: list[Case] = []


def case(*calls: Callable[[], Any], **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        CASES.append(Case(function, calls or (lambda: call(x()),), **options))
        return function

    return add


# --- what comes in ----------------------------------------------------------------------------------------------------


@case(lambda: call(x(), scale=2.0, bias=x(4), flag=True), lambda: call(x(), flag=True, bias=x(4, seed=2), scale=2.0))
def keywords_in_any_order(self, a, *, scale=1.0, bias=None, flag=False):
    return self.layer(a) * scale + (bias if flag else 0)


@case(lambda: call({"a": (x(), [x(4), None]), "b": {"c": 3}}, None))
def nested_dicts_tuples_none_and_numbers(self, tree, nothing):
    a, (b, none) = tree["a"]
    assert none is None
    assert nothing is None
    return (self.layer(a) + b) * tree["b"]["c"]


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@case(lambda: call(Pair(x(), x(4)), 2.5, "tanh", True))
def named_tuples_strings_and_scalars(self, pair, factor, name, flag):
    return getattr(torch, name)(self.layer(pair.first) * factor + pair.second), Pair(pair.second * 2, pair.first + flag)


def twice(tensor: torch.Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return call(tensor, tensor)


@case(lambda: twice(x()), lambda: call(x(), x(seed=2)), lambda: call(x(3, 4)[:2], x(3, 4)[1:]))
def one_tensor_as_two_inputs(self, a, b):
    return self.layer(a) * b


ANY = trtplug.Input(min_shape=(0, 4), opt_shape=(2, 4), max_shape=(8, 4))


@case(lambda: call(x()), lambda: call(x(0, 4)), lambda: call(x(8, 4)), inputs=[ANY])
def empty_batch(self, a):
    return self.layer(a).relu(), a.sum(0)


@case(lambda: call(x(0, 4)))
def batch_that_is_always_empty(self, a):
    return self.layer(a).relu() * 2


@case(lambda: call(x()), lambda: call(x(4, 2).t()), lambda: call(x(2, 8)[:, ::2]), lambda: call(x(1, 4).expand(2, 4)))
def strides_that_change(self, a):
    return self.layer(a).relu(), a.reshape(-1) * 2


IMAGES = (2, 4, 6, 6)


@case(lambda: call(x(*IMAGES).to(memory_format=torch.channels_last)), lambda: call(x(*IMAGES)))
def channels_last(self, a):
    return self.layer(f.avg_pool2d(a.relu() + 1, 2).flatten(2).mean(2))


@case(lambda: call(x().requires_grad_()))
def inputs_that_require_gradients(self, a):
    return self.layer(a).relu()


@case(context=torch.inference_mode)
def inference_mode(self, a):
    return self.layer(a).relu()


@case(lambda: call(x().double()), lambda: call(x(seed=2).double()))
def a_dtype_that_no_engine_has(self, a):
    return self.layer(a.float()).double() * a


# --- what goes out ----------------------------------------------------------------------------------------------------


@case()
def inputs_returned(self, a):
    return a, self.layer(a), {"again": a}


@case()
def duplicates(self, a):
    y = self.layer(a).relu()
    return y, [y, (y,)], y * 2


@case()
def constants_and_weights(self, a):
    return 5, None, "text", 2.5, a.shape[0], self.layer.weight, self.total, self.layer(a)


@case()
def views_of_inputs(self, a):
    return a.t(), a[0], a.view(-1), self.layer(a)


# --- what is written --------------------------------------------------------------------------------------------------


@case(lambda: call(x()), lambda: call(x(seed=2)))
def inputs_written(self, a):
    a.add_(1)
    return self.layer(a)


@case()
def inputs_written_through_a_view(self, a):
    a.view(-1)[:3].mul_(2)
    return self.layer(a)


@case(lambda: call(x()), lambda: call(x(seed=2)))
def buffers_written(self, a):
    self.total.add_(a.sum(0))
    self.total[:2].mul_(2)
    return self.layer(a) + self.total


@case(lambda: call(x()), lambda: call(x(seed=2)))
def buffers_assigned(self, a):
    self.total = self.total * 0.5 + a.sum(0)
    return self.layer(a) + self.total


@case(lambda: call(x(3, 4)), training=True)
def eval_forgotten(self, a):
    return self.drop(self.norm(self.layer(a)).relu()) * 2


# --- autocast ---------------------------------------------------------------------------------------------------------


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@case()
def autocast_region(self, a):
    with autocast():
        y = self.layer(a).relu()
    return y, a * 2


@case()
def autocast_off_in_a_region(self, a):
    with torch.autocast("cpu", enabled=False):
        return self.layer(a).relu()


@case(context=autocast)
def autocast_around(self, a):
    return self.layer(a).relu()


# --- the comparison ---------------------------------------------------------------------------------------------------


def compiled(case: Case, model: nn.Module, way: str) -> Callable[..., Any]:
    options = {"min_block_size": 1}
    if way == "just in time":
        return torch.compile(model, backend="trtplug", options=options)
    if case.inputs is not None:
        return trtplug.compile(model, inputs=case.inputs, **options)
    return trtplug.compile(model, *case.calls[0](), **options)


def leaves(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def same(tree: Any, inputs: Any) -> list[tuple[int, int]]:
    """Which outputs are which inputs, and which outputs are one tensor."""
    everything = [*leaves(tree), *leaves(inputs)]
    return [(i, j) for i, one in enumerate(leaves(tree)) for j, other in enumerate(everything) if one is other]


def assert_equal(found: Any, expected: Any) -> None:
    """Structure, then each leaf: a tensor's dtype, shape and values; type and value of anything else."""
    assert pytree.tree_structure(found) == pytree.tree_structure(expected)
    for one, other in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected)):
        if isinstance(other, torch.Tensor):
            torch.testing.assert_close(one, other)
        else:
            assert (type(one), one) == (type(other), other)


def check(fast: Callable[..., Any], mine: nn.Module, eager: nn.Module, make: Callable[[], Any]) -> None:
    (args, kwargs), (others, keywords) = make(), make()
    torch.manual_seed(3)
    expected = eager(*args, **kwargs)
    torch.manual_seed(3)
    found = fast(*others, **keywords)
    assert_equal(found, expected)
    assert_equal((others, keywords), (args, kwargs))  # written alike
    torch.testing.assert_close(mine.state_dict(), eager.state_dict())
    assert same(found, (others, keywords)) == same(expected, (args, kwargs))


@pytest.mark.parametrize("way", ["ahead of time", "just in time"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_eager(case, way):
    torch.manual_seed(0)
    eager = Model(case.function).train(case.training)
    mine = copy.deepcopy(eager)
    with case.context():
        fast = compiled(case, mine, way)
        for make in case.calls:
            check(fast, mine, eager, make)
    reports = trtplug.reports(fast) if way == "just in time" else (fast.report,)
    assert any(report.engines for report in reports)
    assert not any(node.reasons == () for report in reports for node in report.torch_ops)


# --- a model's own classes, and what is refused -----------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight

    def forward(self, a):
        return self.two(self.one(a).relu())


@pytest.mark.parametrize("way", ["ahead of time", "just in time"])
def test_tied_weights(way):
    eager = Tied()
    fast = compiled(Case(Tied.forward, (lambda: call(x()),)), eager, way)
    torch.testing.assert_close(fast(x()), eager(x()))
    if way == "just in time":
        eager.one.weight.mul_(2)
        torch.testing.assert_close(fast(x()), eager(x()))


@pytest.mark.parametrize("way", ["ahead of time", "just in time"])
def test_model_outputs_come_back_as_themselves(way):
    outputs = pytest.importorskip("transformers.modeling_outputs", reason="ModelOutput is a class of transformers")

    def function(self, a):
        return outputs.BaseModelOutput(last_hidden_state=self.layer(a), hidden_states=(a * 2, a + 1))

    eager = Model(function).eval()
    fast = compiled(Case(function, (lambda: call(x()),)), eager, way)
    found, expected = fast(x()), eager(x())
    assert type(found) is outputs.BaseModelOutput
    assert list(found) == list(expected)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state)
    torch.testing.assert_close(found.hidden_states, expected.hidden_states)


def writes_first(self, a, b):
    a.add_(1)
    return self.layer(a) + b


def test_a_write_to_memory_that_two_inputs_share():
    """Just in time it is done as eager does it; ahead of time it is refused."""
    eager = Model(writes_first).eval()
    fast = compiled(Case(writes_first, (lambda: call(x(), x()),)), eager, "just in time")
    ahead = trtplug.compile(eager, (x(), x()), min_block_size=1)
    for function in (fast, ahead):
        torch.testing.assert_close(function(x(), x(seed=2)), eager(x(), x(seed=2)))
    tensor = x(3, 4)
    with pytest.raises(trtplug.InputError, match=r"writes to input 'a\w*', which shares memory with .* a clone\(\)"):
        ahead(tensor[1:], tensor[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TorchOnlyWarning)  # where Dynamo makes a graph for the shared memory
        other = tensor.clone()
        torch.testing.assert_close(fast(tensor[1:], tensor[:2]), eager(other[1:], other[:2]))
    torch.testing.assert_close(tensor, other)


def test_ahead_of_time_there_are_no_gradients():
    model = Model(lambda self, a: (self.layer(a) * a).relu())
    fast = trtplug.compile(model, (x(),), min_block_size=1, torch_ops=["aten::mul"])
    with torch.enable_grad():
        assert not fast(x().requires_grad_()).requires_grad


def test_compiled_without_autocast_it_stays_so():
    """The casts are in the graph, or they are not: autocast around a call changes nothing."""
    model = Model(lambda self, a: self.layer(a).relu())
    fast = trtplug.compile(model, (x(),), min_block_size=1, torch_ops=["aten::linear"])
    with autocast():
        torch.testing.assert_close(fast(x()), model.float()(x()).float(), rtol=1e-2, atol=1e-2)
        assert fast(x()).dtype == torch.float32
