"""The jobs of the parity run, as functions that a worker finds by name."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # defines the ops of quantized_decomposed, which some converters are of

import trtplug
from trtplug.executors import pick_executor
from trtplug.testing.parity.calls import call_cases, check_calls, check_dynamic, dynamic_cases
from trtplug.testing.parity.layers import check_layer, layer_cases
from trtplug.testing.parity.lowered import check_lowered, lowered_calls
from trtplug_registry import Executor, Registry

HERE = __name__


@functools.cache
def _registry() -> Registry:
    torch.set_num_threads(1)
    return trtplug.registry()


def _executor(name: str) -> tuple[Executor, str]:
    executor = pick_executor(_registry(), name)
    return executor, executor.device or "cpu"


def layer(case: str, executor: str) -> dict[str, Any]:
    """One case of the layer table."""
    return dataclasses.asdict(check_layer(layer_cases()[case], *_executor(executor)))


def calls(case: str, executor: str) -> dict[str, Any]:
    """The calls of one converter and dtype."""
    return dataclasses.asdict(check_calls(call_cases(_registry())[case], *_executor(executor)))


def dynamic(case: str, executor: str) -> dict[str, Any]:
    """The calls with symbolic sizes of one converter and dtype."""
    return dataclasses.asdict(check_dynamic(dynamic_cases(_registry())[case], *_executor(executor)))


def lowered(case: str, executor: str) -> dict[str, Any]:
    """The calls of one op that is decomposed, static or with symbolic sizes."""
    return dataclasses.asdict(check_lowered(lowered_calls(_registry())[case], *_executor(executor)))
