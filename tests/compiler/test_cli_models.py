"""How a model is named on the command line, and what is said where that is wrong."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import trtplug
from trtplug.cli import OF_BUILDS, app, load_model
from trtplug_registry import TrtplugError

MODELS = """
import torch
from neighbour_of_models import model

def make():
    return model, [torch.randn(2, 4)]

def bare():
    return model, torch.randn(2, 4)

def keywords():
    return model, {"input": torch.randn(2, 4)}

def nothing():
    return None
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A file of models, which imports the file beside it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "neighbour_of_models.py").write_text("import torch\nmodel = torch.nn.Linear(4, 4).eval()\n")
    (tmp_path / "some_models.py").write_text(MODELS)
    yield tmp_path / "some_models.py"
    for module in ("neighbour_of_models", "some_models"):
        sys.modules.pop(module, None)


def test_a_model_may_import_its_neighbours(models):
    result = CliRunner().invoke(app, ["explain", f"{models}:make", "--min-block-size", "1", "--json"])
    assert result.exit_code == 0, result.output
    assert [node["op"] for node in json.loads(result.stdout)["nodes"]] == ["aten::linear"]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("bare", r"example_args are a Tensor, not a tuple: \(x,\) for one argument"),
        ("keywords", "example_args are a dict, not a tuple"),
        ("nothing", r"returned NoneType, not \(module, example_args\)"),
        ("absent", "has no function 'absent'"),
    ],
)
def test_what_is_no_model(models, function, words):
    with pytest.raises(TrtplugError, match=words):
        load_model(f"{models}:{function}")


def test_a_file_that_is_no_exported_program(tmp_path):
    (tmp_path / "other.pt2").write_text("hello")
    with pytest.raises(TrtplugError, match=r"other\.pt2 is not an exported program: "):
        load_model(str(tmp_path / "other.pt2"))


@pytest.mark.parametrize("command", ["explain", "coverage"])
def test_a_page_that_cannot_be_written(models, command):
    result = CliRunner().invoke(app, [command, f"{models}:make", "--html", "nowhere/at/all.html"])
    assert isinstance(result.exception, TrtplugError)
    assert str(result.exception) == "cannot write nowhere/at/all.html: No such file or directory"


@pytest.mark.parametrize("command", ["compile", "explain"])
def test_every_setting_is_an_option(command):
    found = {option.name: option for option in get_command(app).commands[command].params}
    for field in dataclasses.fields(trtplug.Settings):
        building = field.name in OF_BUILDS and command == "explain"
        assert (field.name in found) != (building or field.name == "weight_check")
        assert field.name not in found or len(found[field.name].help) > 20


def test_settings_are_handed_on(models, tmp_path):
    options = ["--executor", "reference", "--on-failure", "raise", "--torch-op", "aten::tanh"]
    options += ["--min-block-size", "1", "--cache-dir", str(tmp_path / "kept")]
    command = ["compile", f"{models}:make", *options, "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["executor"] == "reference"
    assert list((tmp_path / "kept").iterdir())
    refused = CliRunner().invoke(app, [*command, "--precision", "float7"])
    assert isinstance(refused.exception, trtplug.SettingsError)
