"""Conditionals, loops and scans: in an engine where their bodies are converted whole, else in Torch with the reason."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from torch import nn
from torch._higher_order_ops import while_loop
from torch._higher_order_ops.scan import scan

import trtplug
from trtplug.compilation import FallbackWarning
from trtplug.convert import convert
from trtplug.errors import ArtefactError
from trtplug.lowering import lower
from trtplug.partition import extract, partition
from trtplug.reference.topology import Topology
from trtplug.tf32 import PROCESS
from trtplug.tracing import as_program
from trtplug_registry import (
    BOOL,
    CONTRACT,
    Body,
    Domain,
    ListOf,
    PluginManager,
    ReasonCode,
    Registry,
    Tensor,
    converter,
)

BATCH = torch.export.Dim("batch", min=2, max=8)


def plugins_with(**hooks):
    """The installed plugins, and one more with these hooks."""
    manager = PluginManager(strict=True)
    manager.load_entry_points()
    members = {f"trtplug_{name}": staticmethod(lambda value=value: value) for name, value in hooks.items()}
    manager.register(type("Extra", (), {"trtplug_contract": CONTRACT, **members}), "extra")
    return list(manager.plugins)


WHOLE = {"min_block_size": 1, "on_failure": "raise", "strict_plugins": True}


class Chosen(nn.Module):
    """A network or a scaling, by the sign of the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gain = nn.Linear(4, 4), nn.Parameter(torch.rand(4))

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: self.layer(x).relu() + 1, lambda x: x * self.gain, (x,))


class Sizes(nn.Module):
    """Branches that compute with a dynamic size, one of them that a layer before and a layer behind ask for too."""

    def forward(self, x):
        y = x.reshape(x.shape[0] * 2, 2) + x.shape[0]

        def then(x):
            return x.transpose(0, 1).reshape(4 * x.shape[0]).cumsum(0).reshape(x.shape[0], 4) * x.shape[0]

        def otherwise(x):
            return x.expand(3, x.shape[0], 4).sum(0) - x.shape[0]

        return torch.cond((x[0, 0] > 0).reshape(1), then, otherwise, (x,)) + y.reshape(x.shape[0], 4)


class Newton(nn.Module):
    """Square roots, until they are good or 20 steps are done."""

    def forward(self, x):
        square = x.abs() + 0.5

        def going(step, root):
            return torch.logical_and(step < 20, ((root * root - square).abs() > 1e-3).any())

        def better(step, root):
            return step + 1, (root + square / root) / 2

        return while_loop(going, better, (x.new_zeros((), dtype=torch.int64), square))


class Collatz(nn.Module):
    """A conditional in a loop; the steps that a number takes down to 1, at most 30."""

    def forward(self, n):
        def going(n, steps):
            return (n != 1) & (steps < 30)

        def odd(n):
            return torch.where(n > 100, n - 1, 3 * n + 1)

        def step(n, steps):
            return torch.cond(n % 2 == 0, lambda n: n // 2, odd, (n,)), steps + 1

        return while_loop(going, step, (n.abs().sum() + 1, n.new_zeros((), dtype=torch.int64)))


class Repeated(nn.Module):
    """A loop in a loop; each reads from outside of both."""

    def forward(self, x):
        shift, start = x.mean(), x.new_zeros((), dtype=torch.int32)

        def moved(x):
            return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x / 2 + shift), (start.clone(), x))[1]

        return while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, moved(x) - shift), (start, x))[1] + shift


class Branching(nn.Module):
    """A loop in a conditional."""

    def forward(self, x):
        def doubled(x):
            return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2), (x.new_zeros((), dtype=torch.int32), x))[
                1
            ]

        return torch.cond(x.mean() > 0, doubled, lambda x: x - 1, (x * 2,)) + 1


class Recurrent(nn.Module):
    """A recurrent network over time, by a scan; its state goes on to the next call's like."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.Linear(7, 3), nn.Linear(3, 2)

    def forward(self, x, state):
        def step(state, now):
            state = self.cell(torch.cat([now, state], 1)).tanh()
            return state, self.out(state)

        return scan(step, state, x)


class Fibonacci(nn.Module):
    """States that change places, one that stays, one that becomes a constant, and an output that is what came in."""

    def forward(self, x):
        def step(states, x):
            one, two, done, kept = states
            return [two.clone(), one + two, torch.ones_like(done), kept.clone()], [x.clone(), one * 2, kept + x]

        flag, half = x.new_zeros((), dtype=torch.bool), x.new_full((2,), 0.5, dtype=torch.float16)
        return scan(step, [x[0] * 0, x[0] * 0 + 1, flag, half.float()], x, reverse=True)


MODELS = {
    "cond": (Chosen, [torch.randn(3, 4).abs(), -torch.rand(2, 4)], ({0: BATCH},)),
    "cond on sizes": (Sizes, [torch.rand(3, 4), -torch.rand(5, 4)], ({0: BATCH},)),
    "while": (Newton, [torch.randn(3, 4), torch.zeros(2, 4)], ({0: BATCH},)),
    "cond in a while": (Collatz, [torch.tensor([6]), torch.tensor([26]), torch.tensor([0])], None),
    "while in a while": (Repeated, [torch.rand(3, 4), -torch.rand(4, 4)], ({0: BATCH},)),
    "scan": (Recurrent, [(torch.randn(5, 2, 4), torch.randn(2, 3)), (torch.randn(2, 2, 4), torch.zeros(2, 3))], None),
    "scan backwards": (Fibonacci, [torch.randn(5, 2)], None),
}


@dataclasses.dataclass
class Case:
    """A model, exported, with inputs; the exported program says what is right."""

    program: torch.export.ExportedProgram
    inputs: list[tuple]

    def __post_init__(self) -> None:
        self.eager = self.program.module()

    def check(self, compiled, *, rtol=1e-4, atol=1e-5) -> None:
        for args in self.inputs:
            torch.testing.assert_close(compiled(*args), self.eager(*args), rtol=rtol, atol=atol)


@functools.cache
def case(name, *, dynamic=False, changed=None, device="cpu"):
    """Of `MODELS`; with static sizes only the inputs of the first one's shapes."""
    torch.manual_seed(0)
    build, given, shapes = MODELS[name]
    inputs = [tuple(a.to(device) for a in (item if isinstance(item, tuple) else (item,))) for item in given]
    model = build().to(device).eval().requires_grad_(False)
    if changed is not None:
        changed(model)
    fitting = [args for args in inputs if dynamic or [a.shape for a in args] == [a.shape for a in inputs[0]]]
    return Case(torch.export.export(model, inputs[0], dynamic_shapes=shapes if dynamic else None), fitting)


def reason_of(compiled, op):
    """Why the only call of an op is in Torch."""
    (node,) = [node for node in compiled.report.nodes if node.op == op]
    assert node.engine is None
    return node.reasons[0]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_with_control_flow_is_one_engine(name, dynamic):
    if dynamic and MODELS[name][2] is None:
        return  # nothing in it can be dynamic
    subject = case(name, dynamic=dynamic)
    compiled = trtplug.compile(subject.program, verify=True, **WHOLE)
    assert (len(compiled.report.engines), compiled.report.torch_ops) == (1, ()), compiled.report
    subject.check(compiled)


def test_the_model_itself_is_not_changed():
    subject = case("cond in a while")
    before = subject.program.graph_module.print_readable(print_output=False)
    trtplug.compile(subject.program, **WHOLE)
    assert subject.program.graph_module.print_readable(print_output=False) == before


# --- what keeps a body out --------------------------------------------------------------------------------------------


class Bessel(nn.Module):
    def forward(self, x):
        def then(x):
            return torch.cond(x.max() > 2, lambda x: torch.special.bessel_j0(x.relu()), lambda x: x.cos(), (x,))

        return torch.cond(x.sum() > 0, then, lambda x: x - 1, (x * 2,)) + 1


def test_the_reason_names_the_first_call_of_a_body_that_nobody_takes():
    program = torch.export.export(Bessel(), (torch.eye(3),))
    compiled = trtplug.compile(program, min_block_size=1)
    reason = reason_of(compiled, "higher_order::cond")
    assert (reason.code, reason.argument) == (ReasonCode.BODY, "true_fn")
    assert "'cond' (higher_order::cond) is not supported: body: true_fn: its node 'special_bessel_j0'" in reason.seen
    assert "no-converter" in reason.seen
    assert len(compiled.report.engines) == 2  # before it and behind it
    torch.testing.assert_close(compiled(torch.eye(3)), program.module()(torch.eye(3)))


def test_a_loop_in_a_branch_stays_in_torch():
    program = torch.export.export(Branching(), (torch.eye(3),))
    compiled = trtplug.compile(program, min_block_size=1)
    reason = reason_of(compiled, "higher_order::cond")
    assert (reason.code, reason.argument) == (ReasonCode.BODY, "true_fn")
    assert (reason.required, reason.seen) == ("a body with no conditional or loop in it", "one")
    torch.testing.assert_close(compiled(torch.eye(3)), program.module()(torch.eye(3)))


@pytest.mark.parametrize("name", ["higher_order::cond", "aten::relu"])
def test_what_the_user_keeps_in_torch_keeps_the_call_there(name):
    subject = case("cond")
    compiled = trtplug.compile(subject.program, min_block_size=1, torch_ops=[name])
    assert "excluded-by-user" in str(reason_of(compiled, "higher_order::cond"))
    subject.check(compiled)


def test_a_loop_that_carries_a_number_stays_in_torch():
    class Counting(nn.Module):
        def forward(self, x):
            return while_loop(lambda i, x: i < 4, lambda i, x: (i + 1, x * 2), (0, x))[1]

    program = torch.export.export(Counting(), (torch.ones(2),))
    compiled = trtplug.compile(program, min_block_size=1)
    reason = reason_of(compiled, "higher_order::while_loop")
    assert (reason.code, reason.seen) == (ReasonCode.BODY, "its node 'lt' is a SymBool")
    torch.testing.assert_close(compiled(torch.ones(2)), torch.full((2,), 16.0))


def test_a_converter_that_fails_in_a_body_costs_the_call_that_has_the_body():
    @converter(torch.ops.aten.sin.default, Domain(self=Tensor()), priority=1)
    def broken(ctx, self):
        raise RuntimeError("not today")

    class Model(nn.Module):
        def forward(self, x):
            sin = x.cos()  # called like the node in the body
            return torch.cond(x.sum() > 0, lambda x: x.sin(), lambda x: x - 1, (sin,)) * 2

    program = torch.export.export(Model(), (torch.ones(2),))
    registry = Registry(plugins_with(converters=[broken]))
    with pytest.warns(FallbackWarning, match="higher_order::cond.*not today"):
        compiled = trtplug.compile(program, min_block_size=1, registry=registry)
    assert [node.op for node in compiled.report.nodes if node.engine is None] == ["higher_order::cond"]
    assert reason_of(compiled, "higher_order::cond").code is ReasonCode.CONVERSION_FAILED
    torch.testing.assert_close(compiled(torch.ones(2)), program.module()(torch.ones(2)))


# --- other converters of the same operators ---------------------------------------------------------------------------


def test_a_third_party_converts_an_operator_its_own_way():
    """Both branches are run, and the results selected: no conditional."""

    @converter(
        torch.ops.higher_order.cond,
        Domain(pred=Tensor(BOOL), true_fn=Body(), false_fn=Body(), operands=ListOf(Tensor())),
    )
    def selected(ctx, pred, true_fn, false_fn, operands):
        pairs = zip(ctx.inline(true_fn, operands), ctx.inline(false_fn, operands), strict=True)
        return tuple(ctx.select(pred, one, two) for one, two in pairs)

    subject = case("cond", dynamic=True)
    registry = Registry(plugins_with(converters=[selected]))
    compiled = trtplug.compile(subject.program, registry=registry, **WHOLE)
    assert {node.converter for node in compiled.report.nodes if "cond" in node.op} == {"extra:higher_order::cond"}
    subject.check(compiled)
    assert not Topology(network_of(subject.program, registry)).regions


def network_of(program, registry):
    """The network that a whole program becomes."""
    lowered = lower(as_program(program), registry)
    (block,) = partition(lowered.graph_module, lambda node: bool(registry.lookup(node))).blocks
    graph = extract(lowered.graph_module, block)
    return convert(graph, lambda node: registry.lookup(node).converter, ranges=lowered.ranges).definition


def test_a_branch_reads_what_is_outside_through_inputs_of_the_conditional():
    """So that its layers are run only where it is taken."""

    class Plain(nn.Module):
        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda x, y: x.cos() * y, lambda x, y: y - x.exp(), (x * 2, x.abs()))

    program = torch.export.export(Plain(), (torch.eye(3),))
    topology = Topology(network_of(program, trtplug.registry()))
    (branch,) = [region for region in topology.regions if region.of_kind("CONDITION")]
    theirs = [layer for layer in topology.layers if layer.name.startswith("cond.") and layer.kind != "CONSTANT"]
    assert set(theirs) == {*branch.members, *branch.boundary}


def test_a_conditional_in_a_loop_is_all_in_it():
    topology = Topology(network_of(case("cond in a while").program, trtplug.registry()))
    (branch,) = [region for region in topology.regions if region.of_kind("CONDITION")]
    (loop,) = [region for region in topology.regions if region.of_kind("TRIP_LIMIT")]
    assert {*branch.members, *branch.boundary} < loop.members


# --- files, caches, weights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cond in a while", "while in a while", "scan"])
@pytest.mark.parametrize("kept", ["in engines", "in Torch"])
def test_files_hold_control_flow(name, kept, tmp_path):
    subject = case(name, dynamic=MODELS[name][2] is not None)
    torch_ops = [] if kept == "in engines" else ["re:higher_order::"]
    compiled = trtplug.compile(subject.program, min_block_size=1, torch_ops=torch_ops)
    trtplug.save(compiled, tmp_path / "model.trtp")
    subject.check(trtplug.load(tmp_path / "model.trtp"))


@pytest.mark.parametrize("suffix", ["pt2", "ts"])
def test_torch_s_own_files_hold_engines_with_control_flow(suffix, tmp_path):
    subject = case("while in a while")
    trtplug.save(trtplug.compile(subject.program, **WHOLE), tmp_path / f"model.{suffix}")
    subject.check(trtplug.load(tmp_path / f"model.{suffix}", trusted=True))


def test_torch_s_own_files_hold_control_flow_of_torch_or_say_that_they_cannot(tmp_path):
    subject = case("cond")
    compiled = trtplug.compile(subject.program, min_block_size=1, torch_ops=["higher_order::cond"])
    trtplug.save(compiled, tmp_path / "model.pt2")
    subject.check(trtplug.load(tmp_path / "model.pt2", trusted=True))
    with pytest.raises(ArtefactError, match=r"calls cond, which is no function of TorchScript; save it as \.trtp"):
        trtplug.save(compiled, tmp_path / "model.ts")


def test_the_cache_knows_what_is_in_a_body(tmp_path):
    options = {"cache_dir": tmp_path, **WHOLE}
    trtplug.compile(case("cond").program, **options)
    assert trtplug.compile(case("cond").program, **options).report.engines[0].cached

    def change(model):
        model.gain.data += 1

    subject = case("cond", changed=change)
    compiled = trtplug.compile(subject.program, **options)
    assert not compiled.report.engines[0].cached
    subject.check(compiled)


def test_new_weights_reach_a_body():
    compiled = trtplug.compile(case("cond").program, **WHOLE)
    gain = {"gain": torch.full((4,), 3.0)}
    assert compiled.update_weights(gain) == ("engine_0",)
    case("cond", changed=lambda model: model.load_state_dict(gain, strict=False)).check(compiled)


# --- just in time -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cond in a while", "while in a while"])
def test_just_in_time(name):
    torch._dynamo.reset()
    build, given, _ = MODELS[name]
    model = build().eval().requires_grad_(False)
    fast = torch.compile(model, backend="trtplug", options=WHOLE)
    for args in given:
        args = args if isinstance(args, tuple) else (args,)
        torch.testing.assert_close(fast(*args), model(*args), rtol=1e-4, atol=1e-5)
    assert all(report.torch_ops == () and report.engines for report in trtplug.reports(fast))


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_tensorrt_s_conditionals_and_loops_agree_with_eager(name, dynamic):
    subject = case(name, dynamic=dynamic and MODELS[name][2] is not None, device="cuda")
    compiled = trtplug.compile(subject.program, executor="tensorrt", **WHOLE)
    assert len(compiled.report.engines) == 1
    # of sums of seven products, one of a result of the other; of 11 bits where TensorRT rounds operands to TF32
    subject.check(compiled, **({"rtol": 2**-6, "atol": 2**-8} if PROCESS.rounds else {}))
