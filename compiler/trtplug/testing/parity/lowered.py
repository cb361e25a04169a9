"""Law 11 over the decompositions: whatever lowering makes of a drawn call, block by block, on TensorRT."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from trtplug.network import Network
from trtplug.testing.drawn import DrawnCall
from trtplug.testing.graphs import CallGraph
from trtplug.testing.laws import Law
from trtplug.testing.lowered import LoweredCase, LoweredTrial, lowered_cases
from trtplug.testing.parity.calls import (
    GPU,
    Both,
    CallFinding,
    CallsFinding,
    Comparing,
    dynamic_calls,
    failed,
    static_calls,
)
from trtplug.testing.parity.judge import Finding
from trtplug.testing.profiles import Profile
from trtplug.testing.running import lowered_module
from trtplug_registry import Executor, Registry, Tolerance, TrtplugError


@functools.cache
def lowered_calls(registry: Registry) -> dict[str, LoweredCase]:
    """The cases of both laws of what is decomposed, by id."""
    return {case.id: case for case in lowered_cases(registry, GPU)}


def check_lowered(case: LoweredCase, executor: Executor, device: str, profile: Profile = GPU) -> CallsFinding:
    """Draws calls of one op, static or with symbolic sizes, lowers them, and compares each block with its reference."""
    fewer = dataclasses.replace(profile, calls=profile.calls // 2)
    trial = LoweredTrial(case.registry, case.described, None, fewer, executor.name, "law 11")
    comparing = _ComparingBlocks(trial, executor, device)
    return dynamic_calls(comparing) if case.law is Law.DYNAMIC else static_calls(comparing)


class _ComparingBlocks(Comparing):
    """Compares each block of a lowered call."""

    def prepare(self, call: DrawnCall, graph: CallGraph, ranges: Any = None) -> Any:
        blocks: list[_Block] = []

        def runner(network: Network) -> nn.Module:
            blocks.append(_Block(network, self.executor, self.device, self.trial.converter.tolerance))
            return blocks[-1]

        try:
            linked, _, _ = lowered_module(self.trial.registry, graph.module, ranges or {}, runner)
        except (TrtplugError, RuntimeError) as error:
            self.wrong.append(CallFinding(str(call), failed(error)))
            return None
        return linked, blocks

    def compare(
        self, both: Any, graph: CallGraph, call: DrawnCall, tensors: Mapping[str, torch.Tensor], eager: Any
    ) -> None:
        linked, blocks = both
        self.compared += 1
        for block in blocks:
            block.findings.clear()
        linked(*graph.inputs(tensors))
        for block in blocks:
            self.wrong += [CallFinding(str(call), found) for found in block.findings if found.verdict != "agrees"]


class _Block(nn.Module):
    """A block's network in the place of an engine: judges the executor under test, and goes on with the reference's.

    Attributes:
        findings: one for each call since they were last cleared.
    """

    def __init__(
        self, network: Network, executor: Executor, device: str, tolerance: Mapping[torch.dtype, Tolerance] | None
    ) -> None:
        super().__init__()
        self.both = Both(network, executor, device, tolerance)
        self.findings: list[Finding] = []

    def forward(self, *inputs: Any) -> Any:
        """Tensors on the CPU, and sizes as ints."""
        with torch.no_grad():
            try:
                finding, _, reference = self.both.judge(inputs)
            except (TrtplugError, RuntimeError) as error:
                here = [value if isinstance(value, torch.Tensor) else torch.tensor(value) for value in inputs]
                finding, reference = failed(error), self.both.reference(*here)
        self.findings.append(finding)
        return reference
