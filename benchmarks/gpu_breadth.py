"""What `gpu.py` runs of the calls beyond core ATen: each compiled, its engines next to their references."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "lowering_passes"))

from breadth_calls import FAMILIES, LEFT, calls, evaluate, operands

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.bool)
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


class Call(nn.Module):
    """One of the calls, on operands by name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def forward(self, given: dict[str, Any]) -> Any:
        devices = {leaf.device for leaf in pytree.tree_leaves(given) if isinstance(leaf, torch.Tensor)}
        with torch.device(devices.pop()):  # of what the call makes itself, too
            return evaluate(self.text, given)


@functools.cache
def breadth_cases() -> dict[str, tuple[str, torch.dtype]]:
    """Every call in every dtype that eager takes it in and that is not left to Torch, by id: ``f.relu(x) float32``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # eager's about betas, defaults and deprecations
        return dict(_taken())


def _taken() -> Iterator[tuple[str, tuple[str, torch.dtype]]]:
    for dtype in DTYPES:
        given = operands(dtype)
        for text in (text for family in FAMILIES for text in calls(family, "cuda")):
            if text in LEFT and LEFT[text].holds(dtype):
                continue
            try:
                evaluate(text, given)
            except (RuntimeError, IndexError, TypeError, ValueError):
                continue
            yield f"{text} {str(dtype).removeprefix('torch.')}", (text, dtype)


def every_id() -> set[str]:
    """The ids that cases can have, whatever eager takes."""
    texts = [text for family in FAMILIES for text in calls(family, "cuda")]
    return {f"{text} {str(dtype).removeprefix('torch.')}" for text in texts for dtype in DTYPES}


def breadth(case: str, executor: str) -> dict[str, Any]:
    """One call: each of its engines next to its reference, all of it next to eager on the CPU."""
    import trtplug

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # eager's about betas, defaults and deprecations
    text, dtype = breadth_cases()[case]
    given, device = operands(dtype), "cuda" if executor == "tensorrt" else "cpu"
    model, there = Call(text), pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), given)
    compiled = trtplug.compile(model, (there,), min_block_size=1, executor=executor)
    if compiled.report.torch_ops:
        left = "; ".join(f"{op.op}: {op.reasons[0]}" for op in compiled.report.torch_ops)
        return {"compared": 0, "wrong": [_finding(text, "fails", f"left to Torch: {left}")]}
    findings, results = _engines(compiled, there)
    wrong = [_finding(text, found.verdict, found.how, _eager(results, model(given))) for found in findings]
    return {"compared": len(findings), "wrong": [found for found in wrong if found["finding"]["verdict"] != "agrees"]}


def _finding(text: str, verdict: str, how: str, eager: str = "") -> dict[str, Any]:
    return {"call": text, "finding": {"verdict": verdict, "how": how}, "eager": eager}


def _engines(compiled: Any, given: Any) -> tuple[list[Any], Any]:
    """What became of each engine of a module in one call, and the call's results."""
    from trtplug.testing.parity import allowance, judge
    from trtplug.testing.parity.rounding import moved
    from trtplug.tf32 import PROCESS

    findings = []

    def compare(module: Any, inputs: Sequence[Any], outputs: Sequence[torch.Tensor]) -> None:
        reference = module.engine.reference
        here = [value.cpu() if isinstance(value, torch.Tensor) else torch.tensor(value) for value in inputs]
        expected = reference(*here)
        allowed = allowance(reference, here, expected, tf32=PROCESS.rounds)
        findings.append(judge(list(outputs), expected, here, lambda by: moved(reference, here, by), allowed))

    engines = [module for module in compiled.graph_module.modules() if hasattr(module, "executor")]
    hooks = [module.register_forward_hook(compare) for module in engines]
    results = compiled(given)
    for hook in hooks:
        hook.remove()
    return findings, results


def _eager(results: Any, expected: Any) -> str:
    """How results differ from eager's; "" where they do not."""
    for ours, theirs in zip(pytree.tree_leaves(results), pytree.tree_leaves(expected), strict=True):
        tolerance = TOLERANCE.get(theirs.dtype, 2e-5)
        try:
            torch.testing.assert_close(ours.cpu(), theirs, rtol=tolerance, atol=tolerance, equal_nan=True)
        except AssertionError as error:
            return " ".join(str(error).split())
    return ""
