"""The mutation engine: what it changes, that the laws notice, and that it survives mutants that do not."""

from __future__ import annotations

import ast
import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import planted
import pytest
import torch

from trtplug.testing import judging, registry_of
from trtplug.testing.judging import judges_of, killed_by
from trtplug.testing.mutants import Mutant, base_of, functions_of, mutants
from trtplug.testing.mutate import Choice, Unit, main, outcomes, run
from trtplug.testing.mutation_record import Outcome, read, recorded, report
from trtplug.testing.mutations import enum_siblings, mutations
from trtplug_registry import FLOATS, Axis, Converter, Domain, Only, Tensor, converter, converter_table

aten = torch.ops.aten
SOFTMAX = Domain(self=Tensor(FLOATS, rank=(2, 8)), dim=Axis("self"), half_to_float=Only(False))


def helper(ctx, dim, rank):  # type: ignore[no-untyped-def]  # a toy
    """A docstring with SUM in it."""
    return 1 << (dim % rank)


@converter(aten._softmax.default, SOFTMAX)
def softmax(ctx, self, dim, half_to_float):  # type: ignore[no-untyped-def]  # a toy
    return ctx.add("softmax", self, axes=helper(ctx, dim, ctx.rank(self))).get_output(0)


@converter_table({aten.exp.default: "EXP", aten.neg.default: "NEG"}, Domain(self=Tensor(FLOATS)))
def unary(op, ctx, self):  # type: ignore[no-untyped-def]  # a toy
    return ctx.unary(op, self)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it does not matter how much is tried."""
    little = dataclasses.replace(judging.PROFILE, calls=3, dynamic_calls=1)
    monkeypatch.setattr(judging, "PROFILE", little)


def doubled(ctx, tensor):  # type: ignore[no-untyped-def]  # a toy
    return ctx.elementwise("SUM", tensor, tensor)


def unchanged(ctx, tensor):  # type: ignore[no-untyped-def]  # a toy
    return ctx.elementwise("PROD", tensor, 1)


BY_NAME = {"unchanged": unchanged}


@converter_table({aten.alias.default: unchanged}, Domain(self=Tensor(FLOATS)))
def row_is_a_function(row, ctx, self):  # type: ignore[no-untyped-def]  # a toy
    return row(ctx, self)


@converter(aten.alias.default, Domain(self=Tensor(FLOATS)))
def looked_up(ctx, self):  # type: ignore[no-untyped-def]  # a toy
    return BY_NAME["unchanged"](ctx, self)


def holding(helper):  # type: ignore[no-untyped-def]  # a toy
    @converter(aten.alias.default, Domain(self=Tensor(FLOATS)))
    def held(ctx, self):  # type: ignore[no-untyped-def]  # a toy
        return helper(ctx, self)

    return held


def closing_over(scale):  # type: ignore[no-untyped-def]  # a toy
    @converter(aten.relu.default, Domain(self=Tensor(FLOATS)))
    def relu(ctx, self):  # type: ignore[no-untyped-def]  # a toy
        return ctx.elementwise("PROD", ctx.activation("RELU", self), scale)

    return relu


@converter(aten.sigmoid.default, Domain(self=Tensor(FLOATS)))
def crashing_when_changed(ctx, self):  # type: ignore[no-untyped-def]  # a toy
    if 1 > 1:
        os._exit(3)
    return ctx.activation("SIGMOID", self)


def changed(source: str, parameters: dict[str, str] | None = None) -> list[str]:
    """The bodies of a one-line function's mutants."""
    (tree,) = ast.parse(f"def f(ctx, a, b, p=None):\n    {source}").body
    assert isinstance(tree, ast.FunctionDef)
    found = mutations(tree, parameters or {}, enum_siblings())
    return [ast.unparse(mutation.tree).partition("\n")[2].strip().replace("\n    ", "; ") for mutation in found]


@pytest.mark.parametrize(
    ("source", "mutant"),
    [
        ("return ctx.elementwise('SUM', a, b)", "return ctx.elementwise('SUB', a, b)"),
        ("return ctx.elementwise('DIV', a, b)", "return ctx.elementwise('DIV', b, a)"),
        ("return ctx.elementwise('PROD', a, b)", "return a"),
        ("return ctx.cast(a, b)", "return a"),
        ("return a % b", "return a"),
        ("return a < b", "return a <= b"),
        ("return a + 1", "return a + 2"),
        ("return a - b", "return b - a"),
        ("return -a", "return a"),
        ("return not a", "return a"),
        ("return a if b else p", "return p if b else a"),
        ("a = ctx.unsqueeze(a)", "pass"),
        ("return f(a, keepdim=b)", "return f(a)"),
        ("return f(True)", "return f(False)"),
        ("return ctx.trt.MatrixOperation.NONE", "return ctx.trt.MatrixOperation.TRANSPOSE"),
        ("return ctx.select(p, a, b)", "return ctx.select(p, b, a)"),
    ],
)
def test_each_kind_of_change(source: str, mutant: str) -> None:
    assert mutant in changed(source)


def test_parameters_are_ignored_and_misread() -> None:
    found = (
        changed("return g(p)", {"p": "axis"})
        + changed("return g(p)", {"p": "flag"})
        + changed("return g(p)", {"p": "1"})
    )
    assert "p = False; return g(p)" in found
    assert "p = True; return g(p)" in found
    assert "p = 1; return g(p)" in found
    assert any("-p - 1" in mutant for mutant in found)


def test_docstrings_messages_and_annotations_stay() -> None:
    source = "'SUM'\n    if a: raise ValueError('SUM', 1 + 1)\n    return f'{a}: SUM'"
    assert all("'SUM'" in mutant and "1 + 1" in mutant for mutant in changed(source))


def test_helpers_of_the_same_package_are_mutated_too() -> None:
    names = [function.__name__ for function in functions_of(softmax)]
    assert names == ["softmax", "helper"]


def test_every_mutant_of_a_sound_converter_dies_but_equivalent_ones() -> None:
    registry = registry_of([softmax])
    (user,) = registry.converters
    judges = judges_of(user)
    laws = [judge.law for judge in judges]
    assert laws == ["equals-eager"] * len(FLOATS) + ["dynamic"] * 2 + ["builds"] * len(FLOATS)
    fates = {mutant: killed_by(mutant, [user], lambda user: judges) for mutant in mutants(user, registry)}
    survivors = [mutant for mutant, fate in fates.items() if not fate]
    assert len(fates) >= 6
    assert all("half_to_float" in mutant.kind for mutant in survivors)  # it may only be False
    assert any("axis read as positive" in mutant.kind for mutant in fates)


def test_applying_a_mutant_leaves_no_trace() -> None:
    before = functions_of(softmax), helper
    for mutant in mutants(softmax):
        with mutant.applied(softmax) as applied:
            assert isinstance(applied, Converter)
            assert applied is not softmax
    assert (functions_of(softmax), helper) == before


@pytest.mark.usefixtures("quick")
def test_rows_of_a_table_are_exchanged() -> None:
    registry = registry_of(unary)
    exp, _ = registry.converters
    (mutant,) = [mutant for mutant in mutants(exp, registry) if mutant.kind == "row exchanged"]
    with mutant.applied(exp) as applied:
        assert isinstance(applied.function, functools.partial)
        assert applied.function.args == ("NEG",)
    assert killed_by(mutant, [exp], lambda user: judges_of(user))


@pytest.mark.usefixtures("quick")
def test_closures_keep_their_cells() -> None:
    registry = registry_of([closing_over(1.0)])
    (user,) = registry.converters
    killed = [o for o in outcomes(registry, [Unit(base_of(user)[0], (user,))]) if o.killed_by]
    assert any("RELU" in outcome.id for outcome in killed)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("user", [*row_is_a_function, looked_up, holding(unchanged)], ids=lambda user: user.name)
def test_a_helper_is_changed_however_it_is_reached(user: Converter) -> None:
    assert unchanged in functions_of(user)
    registry = registry_of([user])
    (found,) = registry.converters
    wrong = Mutant(unchanged, "doubled", "here", "", doubled)
    judges = judges_of(found)
    assert killed_by(wrong, [found], lambda user: judges)
    assert BY_NAME["unchanged"] is unchanged
    assert judges
    assert not any(judge.objection(found) for judge in judges)


def test_converters_that_fail_unchanged_judge_nothing() -> None:
    registry = registry_of([planted.alpha_dropped])
    assert not any(judge.law == "equals-eager" for judge in judges_of(registry.converters[0]))


@pytest.mark.usefixtures("quick")
def test_what_a_mutant_asks_of_sizes_is_forgotten() -> None:
    registry = registry_of([planted.right_view])
    (own,) = registry.converters
    judge = next(judge for judge in judges_of(own) if judge.law == "dynamic")

    def asking(ctx, self, size):  # type: ignore[no-untyped-def]  # a toy
        return ctx.reshape(self, [int(size) for size in ctx.node.meta["val"].shape])

    assert "LawViolationError" in judge.objection(dataclasses.replace(own, function=asking))
    assert not judge.objection(own)


@pytest.mark.usefixtures("quick")
def test_a_mutant_that_takes_its_process_down_is_killed_and_the_rest_goes_on() -> None:
    registry = registry_of([crashing_when_changed])
    results = list(run(registry, registry.converters))
    died = [outcome for outcome in results if outcome.killed_by.startswith("the process ended with")]
    assert died
    assert len(results) > len(died)


CONTROL = """
import json, sys
from trtplug.testing.mutants import Mutant, mutants
from trtplug.testing.own_tests import killed_by_tests
import trtplug
converter = next(c for c in trtplug.registry() if c.target_name == "aten::silu")
mutant = next(m for m in mutants(converter) if "SIGMOID" in m.kind)
same = Mutant(mutant.function, "none", "", "", mutant.function)
print(json.dumps([killed_by_tests(m, converter, sys.argv[1:]) for m in (same, mutant)]))
"""


def test_a_plugins_own_tests_judge_mutants(tmp_path: Path) -> None:
    file = tmp_path / "test_silu.py"
    file.write_text(
        "import torch, trtplug\n"
        "from trtplug.testing import registry_of, run_op\n"
        "import trtplug_converters\n"
        "def test_it():\n"
        "    registry = registry_of(trtplug_converters.trtplug_converters())\n"
        "    (y,) = run_op(registry, torch.ops.aten.silu.default, (torch.ones(2),))\n"
        "    assert torch.allclose(y, torch.nn.functional.silu(torch.ones(2)))\n"
    )
    done = subprocess.run([sys.executable, "-c", CONTROL, str(file)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    unharmed, killed = json.loads(done.stdout.splitlines()[-1])
    assert unharmed == ""
    assert killed.endswith("::test_it")


FOUND = [Outcome("plugin.f:1", "plugin.f: cast dropped\n-a\n+b"), Outcome("plugin.f:1", "plugin.f: flipped", "", "law")]


def test_the_report_lists_survivors_and_the_score() -> None:
    text = report(FOUND)
    assert "1 of 2 mutants killed: 50.0%" in text
    assert "cast dropped" in text
    assert "flipped" not in text


def test_a_record_keeps_why_a_mutant_survives(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    every = {*(outcome.id for outcome in FOUND[:2]), "plugin.g: not tried"}
    record = json.loads(recorded([*FOUND, Outcome("", "plugin.h: is no more")], every, file))
    assert [record[name] for name in ("mutants", "tried", "killed")] == [3, 2, 1]
    assert len(record["survivors"]) == 1
    record["survivors"][0]["why"] = "b is a"
    record["note"] = "on two machines"
    file.write_text(json.dumps(record))
    again = json.loads(recorded(FOUND, every, file))
    assert (again["survivors"][0]["why"], again["note"]) == ("b is a", "on two machines")


@pytest.mark.usefixtures("quick")
def test_a_run_is_sampled_sharded_stopped_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = registry_of([*unary])
    unit = Unit(base_of(registry.converters[0])[0], tuple(registry.converters))
    every = list(outcomes(registry, [unit]))
    one = list(outcomes(registry, [unit], Choice(sample=1)))
    assert len(one) == 1 < len(every)
    rest = list(outcomes(registry, [unit], Choice(done={one[0].id})))
    assert {o.id for o in rest} == {o.id for o in every} - {one[0].id}
    assert not list(run(registry, registry.converters, choice=Choice(shard=(1, 2))))
    assert not list(run(registry, registry.converters, seconds=0))
    file = tmp_path / "outcomes.jsonl"
    command = ["--converter", "leaky_relu", "--jobs", "1", "--sample", "1", "--out", str(file)]
    assert main(command) == 0
    found = read(file)
    assert found
    assert main([*command, "--time-limit", "0"]) == 0
    assert read(file) == found
    assert "mutants killed" in capsys.readouterr().out


@pytest.mark.parametrize("shard", ["2/2", "1", "a/b"])
def test_a_shard_that_cannot_be(shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--shard", shard])
    assert "is not I/N" in capsys.readouterr().err
