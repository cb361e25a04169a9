"""Which plugins and ops are used: argument, then environment, then pyproject.toml; nothing leaks, nor in threads."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch
from torch import nn

import trtplug
from trtplug.errors import SettingsError
from trtplug.settings import Settings
from trtplug_registry import UnknownNameError


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's folder, whose subfolder is the current directory; writes its ``[tool.trtplug]``."""
    folder = tmp_path / "project" / "sub"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)

    def write(text: str, at: str = "project") -> None:
        (tmp_path / at / "pyproject.toml").write_text(text)

    return write


def test_each_setting_is_read_from_the_environment(project, monkeypatch):
    monkeypatch.setenv("TRTPLUG_BLOCK", "trtplug-passes")
    monkeypatch.setenv("TRTPLUG_PREFER", "trtplug-converters, trtplug-reference")
    monkeypatch.setenv("TRTPLUG_TORCH_OPS", "aten::relu encoder.layer.0")
    monkeypatch.setenv("TRTPLUG_STRICT_PLUGINS", "1")
    registry = trtplug.registry()
    assert "trtplug-passes" not in {plugin.name for plugin in registry.plugins}
    assert registry.prefer == ("trtplug-converters", "trtplug-reference")
    assert registry.exclude == ("aten::relu", "encoder.layer.0")
    assert Settings.of({}).strict_plugins


def test_argument_before_environment_before_pyproject(project, monkeypatch):
    project('[tool.trtplug]\nblock = ["trtplug-passes"]\ntorch_ops = ["aten::sin"]\nstrict_plugins = true\n')
    assert Settings.of({}) == Settings(block=("trtplug-passes",), torch_ops=("aten::sin",), strict_plugins=True)
    monkeypatch.setenv("TRTPLUG_TORCH_OPS", "aten::cos")
    assert Settings.of({}).torch_ops == ("aten::cos",)
    assert Settings.of({}).block == ("trtplug-passes",)
    monkeypatch.setenv("TRTPLUG_BLOCK", "")
    assert Settings.of({}).block == ()
    assert Settings.of({"torch_ops": ["aten::tan"]}).torch_ops == ("aten::tan",)
    assert trtplug.registry(torch_ops=[]).exclude == ()
    assert Settings() == Settings(block=(), torch_ops=())  # what is written out in full is what it says


def test_the_nearest_table_counts(project):
    project('[tool.trtplug]\nprefer = ["trtplug-passes"]\n')
    project("[project]\nname = 'no-table-of-ours'\n", at="project/sub")
    assert Settings.of({}).prefer == ("trtplug-passes",)
    project("[tool.trtplug]\n", at="project/sub")
    assert Settings.of({}).prefer == ()


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ('[tool.trtplug]\nblok = ["x"]', UnknownNameError, "pyproject.toml: unknown key 'blok': did you mean 'block'"),
        ('[tool.trtplug]\nblock = "x"', SettingsError, "block = 'x': must be a list of names"),
        ("[tool.trtplug]\nstrict_plugins = 1", SettingsError, "must be true or false"),
        ("[tool.trtplug", SettingsError, "is not valid TOML"),
        ("[tool]\ntrtplug = 3", SettingsError, "must be a table"),
    ],
)
def test_a_wrong_table_says_where(project, text, error, words):
    project(text)
    with pytest.raises(error, match=words):
        Settings.of({})


def test_a_broken_file_of_somebody_else_is_not_ours_to_judge(project):
    project("[tool.other")
    assert Settings.of({}) == Settings()


def test_a_name_that_does_not_exist_says_where_it_is_set(project, monkeypatch):
    monkeypatch.setenv("TRTPLUG_PREFER", "trtplug-convertres")
    with pytest.raises(UnknownNameError, match=r"did you mean 'trtplug-converters'.* \(set by TRTPLUG_PREFER\)"):
        trtplug.registry()
    monkeypatch.delenv("TRTPLUG_PREFER")
    project('[tool.trtplug]\nblock = ["nobody"]')
    with pytest.raises(UnknownNameError, match=r"unknown plugin 'nobody'.* \(set by \[tool.trtplug\] of .*pyproject"):
        trtplug.registry()
    monkeypatch.setenv("TRTPLUG_STRICT_PLUGINS", "perhaps")
    with pytest.raises(SettingsError, match="TRTPLUG_STRICT_PLUGINS='perhaps': must be one of 1, true"):
        trtplug.registry()


class Chain(nn.Module):
    """Different for each width: as many layers as its number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4 + number, 4 + number) for _ in range(1 + number))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x)).sin()
        return x


def left(compiled) -> set[str]:
    return {node.op for node in compiled.report.torch_ops}


def test_one_compilation_leaves_no_trace_in_another(project):
    model, x = Chain(1).eval(), torch.randn(2, 5)
    plain = trtplug.compile(model, (x,), min_block_size=1)
    kept = trtplug.compile(model, (x,), min_block_size=1, torch_ops=["aten::relu"], block=["trtplug-passes"])
    again = trtplug.compile(model, (x,), min_block_size=1)
    assert (left(plain), left(kept), left(again)) == (set(), {"aten::relu"}, set())
    assert len(plain.report.passes) == len(again.report.passes) > len(kept.report.passes)
    assert (
        trtplug.registry().fingerprint
        == trtplug.registry().fingerprint
        != trtplug.registry(block=["trtplug-passes"]).fingerprint
    )


SETTINGS: list[dict] = [
    {"torch_ops": ["aten::relu"]},
    {"torch_ops": ["aten::sin"], "block": ["trtplug-passes"]},
    {"prefer": ["trtplug-converters"]},
    {"torch_ops": ["layers.0"]},
]
LEFT = [{"aten::relu"}, {"aten::sin"}, set(), {"aten::linear"}]


def test_threads_compile_at_once(project):
    """Different models with different settings, ahead of time and through torch.compile, each as if it were alone."""
    models = [Chain(number).eval() for number in range(len(SETTINGS))]
    fast = [  # made here: Torch's table of backends cannot be asked for a new name by two threads at once
        torch.compile(model, backend="trtplug", options={"min_block_size": 1, **settings})
        for model, settings in zip(models, SETTINGS, strict=True)
    ]
    start = threading.Barrier(2 * len(models))
    found: dict[tuple[str, int], object] = {}

    def ahead(number: int) -> None:
        start.wait()
        x = torch.randn(3, 4 + number)
        compiled = trtplug.compile(models[number], (x,), min_block_size=1, **SETTINGS[number])
        torch.testing.assert_close(compiled(x), models[number](x))
        found["ahead", number] = left(compiled)

    def in_time(number: int) -> None:
        start.wait()
        x = torch.randn(3, 4 + number)
        with torch.no_grad():
            torch.testing.assert_close(fast[number](x), models[number](x))
        found["in time", number] = True

    def guarded(job, number: int) -> None:
        try:
            job(number)
        except BaseException as error:
            found[job.__name__, number] = error

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [
            threading.Thread(target=guarded, args=(job, number))
            for number in range(len(models))
            for job in (ahead, in_time)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads)
    assert found == {("ahead", n): LEFT[n] for n in range(4)} | {("in time", n): True for n in range(4)}
