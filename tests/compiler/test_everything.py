"""Law 9: a compiled model equals the model, whatever is or is not supported; compiling never raises if export does not.

Models are drawn as programs: steps that supported, decomposed and unsupported ops take over the values so far, writes
to values, buffers and inputs, branches on sizes and on data.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from torch import nn

import trtplug
from trtplug.jit import TorchOnlyWarning

f = nn.functional
aten = torch.ops.aten

Step = Callable[[Any, torch.Tensor, torch.Tensor], Any]


@torch.library.custom_op("trtplug_tests::opaque", mutates_args=())
def opaque(x: torch.Tensor) -> torch.Tensor:
    return x.flip(-1) * 2


@opaque.register_fake
def _(x):
    return torch.empty_like(x)


def write_part(self: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    y = a * 2
    y[:, 1:].add_(b[:, 1:])
    return y


def write_buffer(self: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    self.total.add_(a.detach().sum(0))
    return self.total + b


def branch_on_size(self: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a + b if a.shape[0] > 2 else a * b


def branch_on_data(self: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.exp().clamp(max=9) if a.sum() > b.sum() else a - b


def under_autocast(self: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        y = self.layer(a.round())
    return y.round().float() + b  # rounded, so that the last bit of bfloat16 does not count


def other_grad_mode(self: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = a.sin()
        with torch.enable_grad():
            return y * b


# Every step takes two float32 tensors [n, 4] and returns one.
STEPS: dict[str, Step] = {
    # converted
    "add": lambda self, a, b: a + b,
    "relu": lambda self, a, b: a.relu(),
    "linear": lambda self, a, b: self.layer(a),
    "norm": lambda self, a, b: self.norm(a) + b,
    "softmax": lambda self, a, b: a.softmax(-1),
    "matmul": lambda self, a, b: a @ (b.t() @ a).tanh(),
    "slices": lambda self, a, b: torch.cat([a[:, 2:], b[:, :2]], 1),
    "reshape": lambda self, a, b: a.reshape(-1, 2, 2).transpose(1, 2).flatten(1),
    "where": lambda self, a, b: torch.where(a > b, a, b * 0.5),
    "mean": lambda self, a, b: a - b.mean(0, keepdim=True),
    "attention": lambda self, a, b: f.scaled_dot_product_attention(a[None], b[None], a[None])[0],
    # between dtypes
    "integers": lambda self, a, b: a.clamp(-9, 9).to(torch.int32) // 2 + b,
    "half": lambda self, a, b: a.clamp(-9, 9).half().float() + b,
    "double": lambda self, a, b: (a.double() * 2).float() - b,
    "complex": lambda self, a, b: torch.complex(a, b).abs(),
    "booleans": lambda self, a, b: (a > 0).logical_xor(b > 0).float() + a,
    # not in TensorRT
    "opaque": lambda self, a, b: opaque(a) + b,
    "sort": lambda self, a, b: a.sort(-1).values + b.cumsum(0),
    "inverse": lambda self, a, b: a @ torch.linalg.inv(torch.eye(4) * 8 + (b.t() @ b).tanh()),
    "dropout": lambda self, a, b: f.dropout(a, 0.5, training=True),
    "train_norm": lambda self, a, b: f.batch_norm(torch.cat([a, b, a * 2]), None, None, training=True)[: a.shape[0]],
    "selected": lambda self, a, b: a[a.abs() >= 0].reshape(a.shape) + b,
    # written
    "write": lambda self, a, b: (a * 2).relu_().add_(b),
    "write_part": write_part,
    "write_buffer": write_buffer,
    # other
    "branch_on_size": branch_on_size,
    "other_grad_mode": other_grad_mode,
    "under_autocast": under_autocast,
}
ONLY_JIT: dict[str, Step] = {
    "branch_on_data": branch_on_data,
    "item": lambda self, a, b: a * float(b.abs().max().clamp(max=4).item()),
    "print": lambda self, a, b: (torch._dynamo.graph_break(), a + b)[1],
}
Instruction = tuple[str, int, int]
"""A step and the positions of its operands among the values so far, counted from the last."""


class Drawn(nn.Module):
    """A drawn program. Returns the last value, `also` among others, and at times an input or a number."""

    def __init__(self, program: list[Instruction], also: list[int], extras: bool, writes: bool) -> None:
        super().__init__()
        self.program, self.also, self.extras, self.writes = program, also, extras, writes
        self.layer, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)
        self.register_buffer("total", torch.zeros(4))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        if self.writes:
            x.mul_(2)
        values = [x, y]
        for name, one, other in self.program:
            step = STEPS.get(name) or ONLY_JIT[name]
            values.append(step(self, values[-1 - one % len(values)], values[-1 - other % len(values)]).clamp(-99, 99))
        results = {"last": values[-1], "also": tuple(values[place % len(values)] for place in self.also)}
        return (results, x.shape[0], None, y) if self.extras else results

    def extra_repr(self) -> str:
        return f"{self.program}, also={self.also}, extras={self.extras}, writes={self.writes}"


def models(steps: list[str]) -> st.SearchStrategy[Drawn]:
    place = st.integers(0, 3)
    program = st.lists(st.tuples(st.sampled_from(steps), place, place), min_size=1, max_size=6)
    return st.builds(Drawn, program, st.lists(place, max_size=2), st.booleans(), st.booleans())


MANY = os.environ.get("TRTPLUG_LAWS") == "nightly"
law = settings(
    deadline=None,
    max_examples=300 if MANY else 8,
    derandomize=not MANY,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def inputs(seed: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 4, generator=generator), torch.randn(4, size, generator=generator).t()


def check(fast: Callable[..., Any], mine: nn.Module, eager: nn.Module, seed: int, size: int) -> None:
    given, others = inputs(seed, size), inputs(seed, size)
    torch.manual_seed(seed)
    expected = eager(*given)
    torch.manual_seed(seed)
    found = fast(*others)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3, equal_nan=True, msg=lambda m: f"{eager}\n{m}")
    torch.testing.assert_close(others, given)
    torch.testing.assert_close(mine.state_dict(), eager.state_dict(), rtol=1e-3, atol=1e-3)


@pytest.fixture(autouse=True)
def quiet():
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        warnings.filterwarnings("ignore", category=TorchOnlyWarning)
        yield
    torch._dynamo.reset()


@law
@given(model=models(list(STEPS)), seed=st.integers(0, 99), size=st.integers(1, 5))
def test_ahead_of_time(model, seed, size):
    torch.manual_seed(0)
    note(repr(model))
    mine = copy.deepcopy(model)
    compiled = trtplug.compile(mine, inputs(0, size), min_block_size=1)
    check(compiled, mine, model, seed, size)
    assert all(node.reasons for node in compiled.report.torch_ops)


@law
@given(model=models(list(STEPS)), seed=st.integers(0, 99))
def test_ahead_of_time_with_dynamic_sizes(model, seed):
    note(repr(model))
    mine = copy.deepcopy(model)
    batch = torch.export.Dim("batch", min=1, max=8)
    try:
        program = torch.export.export(mine, inputs(0, 3), dynamic_shapes=({0: batch}, {0: batch}), strict=False)
    except Exception:
        return  # a model that does not export for all these sizes
    compiled = trtplug.compile(program, min_block_size=1)
    asserts = any(name == "selected" for name, _, _ in model.program)  # what export asserts there fails for size 1
    for size in (3, 8) if asserts else (3, 1, 8):
        check(compiled, mine, model, seed, size)


@law
@given(
    model=models([*STEPS, *ONLY_JIT]),
    seed=st.integers(0, 99),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    dynamic=st.sampled_from([None, True, False]),
)
def test_just_in_time(model, seed, sizes, dynamic):
    torch._dynamo.reset()
    note(repr(model))
    mine = copy.deepcopy(model)
    fast = torch.compile(mine, backend="trtplug", dynamic=dynamic, options={"min_block_size": 1})
    for size in sizes:
        check(fast, mine, model, seed, size)
