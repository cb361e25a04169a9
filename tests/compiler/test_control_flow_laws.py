"""Laws 1 and 3 for operators on graphs: drawn bodies, converted and run, equal eager, and TensorRT builds them."""

from __future__ import annotations

import copy
import operator
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, note
from hypothesis import strategies as st
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.utils import _pytree as pytree

import trtplug
from trtplug.convert import convert
from trtplug.errors import BuildError
from trtplug.lowering import Lifted, graphs, lower_lifted
from trtplug.network import Network
from trtplug.partition import extract, partition
from trtplug.ranges import Range
from trtplug.testing.profiles import CI, NIGHTLY
from trtplug_converters.control import cond
from trtplug_registry import Converter

REGISTRY = trtplug.registry()
SHAPE = (3, 4)
HOPS = torch.ops.higher_order
Step = Callable[[list[Any]], Any]

UNARY = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "neg": torch.neg,
    "half": lambda x: x / 2 + 0.25,
    "turned": lambda x: (x.t() * 2).t().contiguous(),
    "cut": lambda x: torch.cat([x[1:], x[:1]]),
    "mean": lambda x: x - x.mean(1, keepdim=True),
    "total": lambda x: x.sum().expand(x.shape) / x.shape[0],
    "rounded": lambda x: x.to(torch.int32).to(torch.float32),
    "soft": lambda x: x.softmax(-1),
    "ones": torch.ones_like,
    "picked": lambda x: torch.where(x > 0.5, x, x * x),
}
BINARY = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "max": torch.maximum, "swap": lambda x, y: y * 1}


@st.composite
def steps(draw, inputs: int, depth: int) -> Callable[..., Any]:
    """A function of some tensors of `SHAPE`, all used or not, to one."""
    made: list[tuple[str, Step]] = []
    for _ in range(draw(st.integers(0, 4), label="calls")):
        kind = draw(st.sampled_from(("unary", "binary", "cond", "while")[: 2 if depth == 0 else 4]), label="kind")
        # an earlier value by its place from the end, so that recent ones are used more often
        first, second = draw(st.tuples(st.integers(1, 3), st.integers(1, 4)), label="operands")
        if kind == "unary":
            name = draw(st.sampled_from(sorted(UNARY)), label="op")
            made.append((name, lambda held, name=name, at=first: UNARY[name](of(held, at))))
        elif kind == "binary":
            name = draw(st.sampled_from(sorted(BINARY)), label="op")
            made.append((name, lambda held, n=name, a=first, b=second: BINARY[n](of(held, a), of(held, b))))
        elif kind == "cond":
            sides = draw(st.tuples(steps(2, depth - 1), steps(2, depth - 1)), label="branches")
            made.append(
                ("cond", lambda held, sides=sides, a=first, b=second: conditional(of(held, a), of(held, b), sides))
            )
        else:
            body, count = draw(st.tuples(steps(2, depth - 1), st.integers(0, 3)), label="body")
            made.append(
                ("while", lambda held, body=body, n=count, a=first, b=second: loop(of(held, a), of(held, b), body, n))
            )

    def function(*values: Any) -> Any:
        held = list(values)
        for _, step in made:
            held.append(step(held))
        return held[-1] * 1  # a body may not return what it was given

    function.__name__ = "_".join(name for name, _ in made) or "nothing"
    return function


def of(held: list[Any], place: int) -> Any:
    return held[-(1 + (place - 1) % len(held))]


def conditional(x: Any, y: Any, sides: Any) -> Any:
    then, otherwise = sides
    return HOPS.cond(x.sum() > 0, lambda *v: (then(*v),), lambda *v: (otherwise(*v),), (x, y))[0]


def loop(x: Any, y: Any, body: Any, count: int) -> Any:
    start = torch.zeros((), dtype=torch.int64)

    def going(i: Any, state: Any, other: Any) -> Any:
        return (i < count) & (state.abs().max() < 100)

    return HOPS.while_loop(going, lambda i, state, other: (i + 1, body(state, other)), (start, x), (y,))[1]


def scanned(x: Any, y: Any, body: Any) -> Any:
    rows = torch.stack([y, y + 1, x])

    def combine(carry: Any, row: Any, weight: Any) -> Any:
        following = body(carry, row, weight)
        return [following.clamp(-9, 9), following - row]

    return HOPS.scan(combine, [x], [rows], (y,))


def traced(function: Callable[..., Any], dynamic: bool) -> GraphModule:
    """The function of two tensors as a graph; `dynamic` makes their first size symbolic."""
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    sizes = [DimDynamic.DYNAMIC if dynamic else DimDynamic.STATIC, DimDynamic.STATIC]
    context = StatelessSymbolicContext(dynamic_sizes=sizes)
    x = mode.from_tensor(torch.empty(SHAPE), symbolic_context=context)
    fakes = [x, torch.empty_like(x)]
    with mode, enable_python_dispatcher(), torch.no_grad():
        return make_fx(lambda x, y: tuple(function(x, y)), tracing_mode="real", pre_dispatch=True)(*fakes)


def network_of(graph_module: GraphModule, forced: Converter | None = None) -> Network:
    """The network that a graph becomes as a whole; `forced` takes what the registry refuses."""
    _, spec = pytree.tree_flatten(((), {}))
    first = next(iter(graph_module.graph.nodes)).meta["val"].shape[0]
    ranges = {} if isinstance(first, int) else {first.node.expr: Range(2, 3, 6)}
    lowered = lower_lifted(Lifted(graph_module, spec, spec, ("x", "y"), (), {}, False), ranges, REGISTRY, strict=True)
    for node in lowered.graph_module.graph.nodes:
        if node.op == "call_function" and graphs.tensors(node.meta.get("val")) and node.target is not operator.getitem:
            assert forced or REGISTRY.lookup(node), f"{node.name}: {REGISTRY.lookup(node)}"
    (block,) = partition(lowered.graph_module, lambda node: bool(forced or REGISTRY.lookup(node))).blocks
    graph = extract(lowered.graph_module, block)
    return convert(graph, lambda node: REGISTRY.lookup(node).converter or forced, ranges=ranges)


CALLS = {
    "cond": st.tuples(steps(2, 0), steps(2, 0)).map(lambda sides: lambda x, y: [conditional(x, y, sides)]),
    "while_loop": st.tuples(steps(2, 1), st.integers(0, 3)).map(lambda b: lambda x, y: [loop(x, y, *b)]),
    "scan": steps(3, 0).map(lambda body: lambda x, y: scanned(x, y, body)),
}


@pytest.mark.parametrize("operator", CALLS)
def test_drawn_bodies_compute_what_eager_does(operator):
    @(NIGHTLY if os.environ.get("TRTPLUG_LAWS") == "nightly" else CI).settings(8)
    @given(function=CALLS[operator], dynamic=st.booleans(), seed=st.integers(0, 9))
    def law(function, dynamic, seed):
        graph_module = traced(function, dynamic)
        note(graph_module.print_readable(print_output=False))
        eager = copy.deepcopy(graph_module)
        network = network_of(graph_module)
        lifted, generator = network.lift(), torch.Generator().manual_seed(seed)
        for rows in (2, 3, 6) if dynamic else SHAPE[:1]:
            values = {name: torch.randn(rows, SHAPE[1], generator=generator) for name in ("x_1", "y_1")}
            found = lifted(*(values[binding.name] for binding in network.inputs))
            torch.testing.assert_close(found, eager(*values.values()), rtol=1e-4, atol=1e-4)
        assert network.build()

    law()


def test_what_lies_in_a_branch_is_refused_with_cause():
    """TensorRT builds some conditionals in conditionals; not this one."""

    def inner(x, y):
        return conditional(y, y, (lambda x, y: y * 1, lambda x, y: (x - y) * 1 + y)) * 1

    graph_module = traced(lambda x, y: [conditional(x, y, (inner, lambda x, y: x * 1))], True)
    with pytest.raises(AssertionError, match="a body with no conditional or loop in it"):
        network_of(graph_module)
    with pytest.raises(BuildError, match="TensorRT cannot build"):
        network_of(graph_module, cond).build()
