"""Writes become values: random programs of views and in-place calls compute what eager computes, without a retrace."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest_lowering import assert_runs_as, registry_of, targets
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

import trtplug
from trtplug.lowering import lower
from trtplug.lowering.functionalize import remove_writes, writes
from trtplug.tracing import Input, as_program, trace

VIEWS: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "t": lambda x, i: x.transpose(0, -1),
    "permute": lambda x, i: x.permute(*reversed(range(x.dim()))),
    "unsqueeze": lambda x, i: x.unsqueeze(i % (x.dim() + 1)),
    "squeeze": lambda x, i: x.squeeze(),
    "flat": lambda x, i: x.reshape(-1),
    "pairs": lambda x, i: x.reshape(-1, 2) if x.numel() % 2 == 0 else x,
    "tail": lambda x, i: x[i % x.shape[0] :],
    "head": lambda x, i: x[: -(i % x.shape[0])] if i % x.shape[0] else x[:],
    "columns": lambda x, i: x[..., i % x.shape[-1] : i % x.shape[-1] + 2],
    "every other": lambda x, i: x[::2],
    "row": lambda x, i: x[i % x.shape[0]] if x.dim() > 1 else x,
    "last": lambda x, i: x.select(-1, -1) if x.dim() > 1 else x,
    "narrow": lambda x, i: x.narrow(0, 0, x.shape[0] - i % x.shape[0]),
    "diagonal": lambda x, i: x.diagonal() if x.dim() == 2 else x,
    "half": lambda x, i: x.chunk(2, -1)[i % len(x.chunk(2, -1))],
    "piece": lambda x, i: x.split(2)[i % len(x.split(2))],
    "unbound": lambda x, i: x.unbind(0)[i % x.shape[0]] if x.dim() > 1 else x,
    "detach": lambda x, i: x.detach(),
    "contiguous": lambda x, i: x.contiguous(),  # a view or a copy, as it happens
    "copy": lambda x, i: x + 1,
}

WRITES: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "add_": lambda x, y: x.add_(1),
    "relu_": lambda x, y: x.relu_(),
    "fill_": lambda x, y: x.fill_(7),
    "copy_ number": lambda x, y: x.copy_(y.sum()),
    "copy_ same": lambda x, y: x.copy_(x * 2),
    "copy_ other": lambda x, y: x.copy_(y) if x.shape == y.shape else x.copy_(y.double().mean()),
    "mul_ sum": lambda x, y: x.mul_(y.sum() * 0.25),
    "masked": lambda x, y: x.masked_fill_(x > 0, -1),
    "set item": lambda x, y: x.__setitem__(0, 3.0),
}

STEPS = st.lists(
    st.tuples(
        st.sampled_from([*VIEWS, *WRITES]),
        st.integers(0, 7),
        st.integers(0, 7),
    ),
    min_size=2,
    max_size=9,
)


def program(steps: list[tuple[str, int, int]]) -> Callable[..., list[torch.Tensor]]:
    def run(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        held = [x, y * 2]
        for name, which, number in steps:
            one = held[which % len(held)]
            if name in VIEWS:
                held.append(VIEWS[name](one, number))
            elif one.numel():
                result = WRITES[name](one, held[number % len(held)])
                held.append(result if result is not None else one)
        return [item + 0 for item in held]

    return run


class Checked(fx.Interpreter):
    """Holds each node against its metadata."""

    def run_node(self, n: fx.Node) -> Any:
        value, promised = super().run_node(n), n.meta.get("val")
        if isinstance(value, torch.Tensor) and n.op == "call_function":
            assert (value.shape, value.dtype) == (promised.shape, promised.dtype), n.format_node()
        return value


@given(STEPS)
@settings(max_examples=40, deadline=None)
def test_random_views_and_writes(steps):
    run = program(steps)
    x, y = torch.arange(24.0).view(4, 6) - 8, torch.arange(24.0).view(4, 6).t().contiguous().view(4, 6) % 5
    graph_module = make_fx(run, tracing_mode="fake", pre_dispatch=True)(x.clone(), y.clone())
    (output,) = graph_module.graph.find_nodes(op="output")
    output.args = (tuple(output.args[0]),)
    final = remove_writes(graph_module)
    assert final is not None
    assert not writes(graph_module)
    graph_module.graph.lint()
    output.args = ((*output.args[0], *final.values()),)
    graph_module.recompile()
    given = x.clone(), y.clone()
    results: Any = graph_module(*given)
    assert torch.equal(given[0], x), "nothing is written any more"
    theirs = x.clone(), y.clone()
    wanted = run(*theirs)
    for place, (ours, one) in enumerate(zip(results, wanted)):
        torch.testing.assert_close(ours, one, msg=lambda text, place=place: f"value {place}: {text}")
    for node, value in zip(final, results[len(wanted) :], strict=True):
        torch.testing.assert_close(value, theirs[["x_1", "y_1"].index(node.name)])
    Checked(graph_module).run(*given)


class Cache(nn.Module):
    """A key-value cache: a buffer that is written through slices, at a place that is given."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(2, 8, 4))

    def forward(self, x, start):
        self.keys[:, :2].copy_(x)
        self.keys[:, 3:5] = x.half()
        self.keys.narrow(1, start, 2).copy_(x)
        return self.keys @ x.transpose(1, 2), self.keys.sum(1)


@pytest.mark.parametrize("loaded", [False, True], ids=["traced", "loaded"])
def test_a_cache_is_written_through_slices(loaded, tmp_path):
    model, x = Cache(), torch.randn(2, 2, 4)
    exported = torch.export.export(copy.deepcopy(model), (x, 5))
    if loaded:  # whose fake values no longer share storage
        torch.export.save(exported, tmp_path / "cache.pt2")
        exported = torch.export.load(tmp_path / "cache.pt2")
    lowered = lower(as_program(exported), registry_of(built_in_passes=True), strict=True)
    assert [record.id for record in lowered.passes].count("lower:retrace") == 0
    assert "cat.default" in targets(lowered)
    for _ in range(2):
        assert_runs_as(lowered, model, torch.randn(2, 2, 4), 5)


def test_views_of_dynamic_sizes():
    class Model(nn.Module):
        def forward(self, x):
            y = x * 2
            y[:, 1:3] = 0
            y.view(-1).add_(1)
            y[1:].mul_(2)
            y.t()[:-1].relu_()
            return y, y.sum(0)

    program = trace(Model(), inputs=[Input(min_shape=(2, 4), opt_shape=(3, 4), max_shape=(8, 4))])
    lowered = lower(program, registry_of(built_in_passes=True), strict=True)
    assert lowered.passes[0].id == "lower:lift"
    for size in (2, 3, 8):
        assert_runs_as(lowered, Model(), torch.randn(size, 4))


def test_what_may_be_a_view_in_a_loaded_program(tmp_path):
    class Model(nn.Module):
        def forward(self, x, y):
            x.reshape(-1).add_(1)  # a view
            y.t().reshape(-1).add_(1)  # a copy
            y.contiguous().mul_(3)
            return x * 2, y * 2

    args = torch.randn(2, 3), torch.randn(2, 3)
    exported = torch.export.export(Model(), args)
    torch.export.save(exported, tmp_path / "m.pt2")
    for item in (exported, torch.export.load(tmp_path / "m.pt2")):
        lowered = lower(as_program(item), registry_of(), strict=True)
        assert_runs_as(lowered, Model(), *args)


def test_what_cannot_be_written_back_is_retraced():
    class Doubles(nn.Module):
        def forward(self, x):
            y = x * 1
            y.view(torch.int32).fill_(0)
            return y

    class Strided(nn.Module):
        def forward(self, x):
            y = x * 1
            torch.as_strided(y, (2,), (3,)).fill_(0)
            return y

    for model in (Doubles(), Strided()):
        lowered = lower(trace(model, (torch.randn(2, 4),)), registry_of(), strict=True)
        assert lowered.passes[0].id == "lower:retrace"
        assert_runs_as(lowered, model, torch.randn(2, 4))


def test_hundreds_of_writes_to_one_tensor():
    class Series(nn.Module):
        def forward(self, x):
            total = x.clone()
            before = total[0]
            for step in range(400):
                total.add_(step)
            return total, before + 1

    program = trace(Series(), (torch.zeros(2, 3),))
    lowered = lower(program, registry_of())
    assert lowered.passes[0].id == "lower:lift"
    assert_runs_as(lowered, Series(), torch.randn(2, 3))


class Instances(nn.Module):
    """Normalizes in training, which updates statistics though no schema says so, and beside it without any."""

    def __init__(self) -> None:
        super().__init__()
        self.tracked = nn.InstanceNorm1d(3, track_running_stats=True, affine=True)
        self.plain = nn.InstanceNorm1d(3)

    def forward(self, x):
        return self.tracked(x) + self.plain(x)


def test_statistics_of_instances():
    x, model = torch.randn(2, 3, 5), Instances().train()
    eager = copy.deepcopy(model)
    compiled = trtplug.compile(model, (x,), min_block_size=1)
    for _ in range(2):
        torch.testing.assert_close(compiled(x), eager(x))
    torch.testing.assert_close(model.tracked.running_mean, eager.tracked.running_mean)
    torch.testing.assert_close(model.tracked.running_var, eager.tracked.running_var)
