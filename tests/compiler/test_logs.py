"""Quiet by default; TRTPLUG_LOG shows what the standard logger is told; one warning, not forty."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

import trtplug
from trtplug.network import NetworkBuilder
from trtplug.network.logger import new_logger, new_runtime
from trtplug_registry import Domain, Plugin, Registry, Tensor, converter

SCRIPT = """
import torch, trtplug
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval()
trtplug.compile(model, (torch.randn(2, 4),), min_block_size=9)
"""


class Forty(nn.Module):
    def forward(self, x):
        for place in range(40):
            x = (x * (place + 2)).sin()
        return x


@pytest.fixture(autouse=True)
def clean():
    yield
    logger = logging.getLogger("trtplug")
    logger.handlers = [handler for handler in logger.handlers if handler.name != "trtplug"]
    logger.setLevel(logging.NOTSET)


def run(monkeypatch, level):
    monkeypatch.setenv("TRTPLUG_LOG", level)
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr


def test_quiet_by_default_and_shown_when_asked(monkeypatch):
    assert run(monkeypatch, "") == ""
    shown = run(monkeypatch, "debug")
    assert "0 of 2 compute nodes in 0 TensorRT engine(s)" in shown
    assert "(aten::relu) stays in Torch: block-too-small" in shown


def test_info_leaves_nodes_out(monkeypatch, capsys):
    monkeypatch.setenv("TRTPLUG_LOG", "INFO")
    trtplug.compile(nn.Linear(4, 4).eval(), (torch.randn(2, 4),), min_block_size=1)
    shown = capsys.readouterr().err
    assert "I trtplug.report: engine 0: " in shown
    assert "stays in Torch" not in shown


def test_a_wrong_level_is_an_error(monkeypatch):
    monkeypatch.setenv("TRTPLUG_LOG", "loud")
    with pytest.raises(trtplug.SettingsError, match="TRTPLUG_LOG=loud: must be one of debug, info"):
        trtplug.explain(nn.Linear(4, 4), (torch.randn(2, 4),))
    with pytest.raises(trtplug.SettingsError, match="TRTPLUG_LOG=loud"):
        trtplug.coverage("aten::relu")


def test_one_warning_not_forty():
    @converter("aten::sin", Domain(self=Tensor()), priority=5)
    def failing(ctx, self):
        """sin(Tensor self) -> Tensor"""
        raise RuntimeError("on purpose")

    registry = Registry((*trtplug.registry().plugins, Plugin("theirs", converters=(failing,))))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled = trtplug.compile(Forty(), (torch.randn(3),), registry=registry, min_block_size=1)
    assert len([item for item in caught if "on purpose" in str(item.message)]) == 1
    assert len(compiled.report.torch_ops) == 40


@pytest.mark.parametrize("make", [NetworkBuilder, lambda: new_runtime(new_logger())], ids=["builder", "runtime"])
def test_nothing_is_collected_while_tensorrt_logs_with_a_lock_held(monkeypatch, make):
    """It needs that lock to destroy a builder or a runtime, too: an earlier one, collected then, hung the process."""
    collects = []
    monkeypatch.setattr(type(new_logger()), "log", lambda self, severity, message: collects.append(gc.isenabled()))
    first = NetworkBuilder()  # of the next one's logger it says that it is another
    collects.clear()
    make()
    assert collects
    assert not any(collects)
    assert first.definition is not None
    assert gc.isenabled()
