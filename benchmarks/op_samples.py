"""What becomes of the calls that Torch's own tests have for its ops (`op_db`): compiled, run, compared with eager.

python benchmarks/op_samples.py [--only TEXT] [--dtypes float32,int64] [--samples 6] [--shard 0/1] [--out FILE]

Needs the package `expecttest`, which Torch's own tests import. Ops whose results are random or never written are left
out. Engines are built only with --build: the finished network runs on the reference executor all the same.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

import trtplug
from trtplug.network import Network

DTYPES = "float32,float16,bfloat16,int32,int64,bool"
TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 6e-2}
UNWRITTEN = re.compile("empty|resize")
RANDOM = re.compile("random generator")


class Calls(nn.Module):
    """Some calls at once, so that one compilation serves them all."""

    def __init__(self, functions: list[Callable[..., Any]]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, given: list[tuple[torch.Tensor, ...]]) -> list[Any]:
        return [function(*tensors) for function, tensors in zip(self.functions, given, strict=True)]


Call = tuple[Callable[..., Any], tuple[torch.Tensor, ...], Any]
"""A function of tensors, tensors, and what eager makes of them."""


def calls(op: Any, dtype: torch.dtype, most: int) -> Iterator[Call]:
    """Calls that eager takes twice with the same results, of tensors that TensorRT could hold."""
    samples = list(op.sample_inputs("cpu", dtype, requires_grad=False))[:60]
    for number in range(min(most, len(samples))):
        sample = samples[number * len(samples) // min(most, len(samples))]
        leaves, spec = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        if any(leaves[p].layout != torch.strided or leaves[p].dtype in (torch.float64, torch.cfloat) for p in places):
            continue

        def function(*tensors: torch.Tensor, leaves=leaves, spec=spec, places=places) -> Any:  # type: ignore[no-untyped-def]  # bound early
            whole = list(leaves)
            for place, tensor in zip(places, tensors, strict=True):
                whole[place] = tensor
            first, args, kwargs = pytree.tree_unflatten(whole, spec)
            return op.op(first, *args, **kwargs)

        tensors = tuple(leaves[place].detach().clone() for place in places)
        try:
            results, again = (function(*(tensor.clone() for tensor in tensors)) for _ in range(2))
        except Exception:  # eager does not take it
            continue
        if not difference(results, again, dtype) and any(map(torch.is_tensor, pytree.tree_leaves(results))):
            yield function, tensors, results


def difference(ours: Any, theirs: Any, dtype: torch.dtype) -> str:
    tolerance = TOLERANCE.get(dtype, 1e-4)
    try:
        torch.testing.assert_close(
            pytree.tree_leaves(ours), pytree.tree_leaves(theirs), rtol=tolerance, atol=tolerance, equal_nan=True
        )
    except (AssertionError, TypeError, ValueError) as error:
        return " ".join(str(error).split())[:200]
    return ""


def tried(found: list[Call], dtype: torch.dtype) -> list[tuple[str, str]]:
    """What became of each call, and why; halves are tried again where not all of it runs in engines."""
    functions, given, expected = ([call[part] for call in found] for part in range(3))
    try:
        compiled = trtplug.compile(Calls(functions), (given,), min_block_size=1)
        results = compiled(given)
    except Exception as error:
        if len(found) > 1:
            return halves(found, dtype)
        try:
            torch.export.export(Calls(functions), (given,), strict=False).module()(given)
        except Exception:
            return [("not exported", "")]
        return [("raised", f"{type(error).__name__}: {error}"[:300])]
    left = compiled.report.torch_ops
    if left and len(found) > 1:
        return halves(found, dtype)
    why = "; ".join(sorted({f"{op.op}: {'; '.join(map(str, op.reasons))}" for op in left}))[:300]
    if RANDOM.search(why):
        return [("random", why)]
    fate = "whole" if not left else "in part" if compiled.report.engines else "in Torch"
    wrong = [difference(*pair, dtype) for pair in zip(results, expected, strict=True)]
    return [("differs", f"{fate}: {text}") if text else (fate, why) for text in wrong]


def halves(found: list[Call], dtype: torch.dtype) -> list[tuple[str, str]]:
    middle = len(found) // 2
    return tried(found[:middle], dtype) + tried(found[middle:], dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--dtypes", default=DTYPES)
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--build", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if not given.build:
        Network.build = lambda self, *args, **kwargs: b"none"  # type: ignore[method-assign]  # of no use without a GPU
    shard, shards = map(int, given.shard.split("/"))
    table: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for name in given.dtypes.split(","):
        dtype = getattr(torch, name)
        for op in op_db[shard::shards]:
            if given.only not in op.name or UNWRITTEN.search(op.name) or dtype not in op.supported_dtypes("cpu"):
                continue
            torch.manual_seed(0)
            found = list(calls(op, dtype, given.samples))
            for fate, why in tried(found, dtype) if found else ():
                table[name][fate] += 1
                row = {"op": op.name, "variant": op.variant_test_name, "dtype": name, "fate": fate, "why": why}
                if given.out is not None:
                    with given.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                if fate in ("differs", "raised"):
                    print(json.dumps(row), file=sys.stderr, flush=True)
    fates = ("whole", "in part", "in Torch", "differs", "raised", "not exported", "random")
    print(f"{'dtype':10}" + "".join(f"{fate:>14}" for fate in fates))
    for name, counts in table.items():
        print(f"{name:10}" + "".join(f"{counts[fate]:>14}" for fate in fates))


if __name__ == "__main__":
    main()
