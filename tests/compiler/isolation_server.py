"""Compiles one model beside one bad plugin, each case in a process of its own, forked from one that has Torch loaded.

Reads cases from standard input, one JSON object a line: the folder that the plugins are installed in, and the settings.
Answers each with a line: what the compilation warned of, raised and returned.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings

import torch
import torch._dynamo.convert_frame
import torch.export
from torch import nn

import trtplug
import trtplug.compilation
import trtplug.reference.plugin
from trtplug._tensorrt import library

SECONDS = 60
"""After which a case has hung."""


@torch.library.custom_op("healthy::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


double.register_fake(torch.empty_like)


@torch.library.custom_op("healthy::unknown", mutates_args=())
def unknown(x: torch.Tensor) -> torch.Tensor:
    return x - 1


unknown.register_fake(torch.empty_like)


class Model(nn.Module):
    """Two engines: what the bad plugin takes (relu, topk) between what the healthy one and the built-ins take."""

    def forward(self, x):
        values, indices = unknown(double(torch.relu(double(x)).sin())).relu().topk(2)
        return double(values) + 1, indices


def numbers() -> torch.Tensor:
    """Distinct, and such that they are after each step of the model: which of equal elements topk names is open."""
    return torch.randperm(12).reshape(3, 4) / 30 + 0.3


def run(case: dict) -> dict:
    sys.path.insert(0, case["folder"])
    torch.manual_seed(0)
    model, x = Model(), numbers()
    found: dict = {"error": "", "equal": None, "healthy": None, "converters": []}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            compiled = trtplug.compile(model, (x,), min_block_size=1, executor="reference", **case["settings"])
            fresh = numbers()
            pairs = list(zip(compiled(fresh), model(fresh), strict=True))
            found["equal"] = all(torch.allclose(ours, theirs) and ours.dtype == theirs.dtype for ours, theirs in pairs)
            found["converters"] = [node.converter for node in compiled.report.nodes]
            found["left"] = [node.op for node in compiled.report.torch_ops]
        except trtplug.TrtplugError as error:
            found["error"] = f"{type(error).__name__}: {error}"
    kinds = ("PluginWarning", "FallbackWarning")
    found["warnings"] = [str(item.message) for item in caught if item.category.__name__ in kinds]
    return found


def serve() -> None:
    library()
    trtplug.explain(Model(), (torch.randn(3, 4),))  # what Torch loads on first use; builds nothing, starts no thread
    for line in sys.stdin:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            signal.alarm(SECONDS)
            try:
                answer = run(json.loads(line))
            except BaseException as error:  # the point is that nothing of the kind comes out
                answer = {"error": f"escaped: {type(error).__name__}: {error}", "warnings": []}
            with os.fdopen(writer, "w") as pipe:
                json.dump(answer, pipe)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            answer_text = pipe.read()
        os.waitpid(child, 0)
        print(answer_text or json.dumps({"error": "escaped: the process died", "warnings": []}), flush=True)


if __name__ == "__main__":
    serve()
