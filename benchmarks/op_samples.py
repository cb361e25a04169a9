"""What becomes of the calls that Torch's own tests have for its ops (`op_db`): compiled, run, compared with eager.

python benchmarks/op_samples.py [--only TEXT] [--dtypes float32,int64] [--samples 6] [--shard 0/1] [--out FILE]

Needs the package `expecttest`, which Torch's own tests import. Ops whose results are random or never written are left
out. Engines are built only with --build: the finished network runs on the reference executor all the same.

What differs from eager is compared with float64, too: it is *rounded* where its largest error is at most twice eager's
own, or that of eager's ops one by one where eager has a kernel that keeps float32 between them.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

import trtplug
from trtplug.network import Network

DTYPES = "float32,float16,bfloat16,int32,int64,bool"
TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 6e-2}
UNWRITTEN = re.compile("empty|resize")
RANDOM = re.compile(r"\brandom\b")


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Attention as eager's ops one by one, each of which rounds."""
    if enable_gqa:
        key, value = (each.repeat_interleave(query.size(-3) // each.size(-3), -3) for each in (key, value))
    scores = query * (query.size(-1) ** -0.5 if scale is None else scale) @ key.mT
    if is_causal:
        attn_mask = torch.ones_like(scores, dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ value


ONE_BY_ONE: Mapping[str, Callable[..., Any]] = {"nn.functional.scaled_dot_product_attention": attention}
"""Ops of which eager has a kernel that keeps float32 inside, as eager's ops one by one."""


class Calls(nn.Module):
    """Some calls at once, so that one compilation serves them all."""

    def __init__(self, functions: list[Callable[..., Any]]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, given: list[tuple[torch.Tensor, ...]]) -> list[Any]:
        return [function(*tensors) for function, tensors in zip(self.functions, given, strict=True)]


class Call(NamedTuple):
    """A function of tensors, tensors, what eager makes of them, and the function as eager's ops one by one."""

    function: Callable[..., Any]
    tensors: tuple[torch.Tensor, ...]
    results: Any
    one_by_one: Callable[..., Any]


def calls(op: Any, dtype: torch.dtype, most: int) -> Iterator[Call]:
    """Calls that eager takes twice with the same results, of tensors that TensorRT could hold."""
    samples = list(op.sample_inputs("cpu", dtype, requires_grad=False))[:60]
    for number in range(min(most, len(samples))):
        sample = samples[number * len(samples) // min(most, len(samples))]
        leaves, spec = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        if any(leaves[p].layout != torch.strided or leaves[p].dtype in (torch.float64, torch.cfloat) for p in places):
            continue

        def call(
            op: Callable[..., Any], leaves: list[Any], spec: Any, places: list[int], *tensors: torch.Tensor
        ) -> Any:
            whole = list(leaves)
            for place, tensor in zip(places, tensors, strict=True):
                whole[place] = tensor
            first, args, kwargs = pytree.tree_unflatten(whole, spec)
            return op(first, *args, **kwargs)

        function, one_by_one = (
            functools.partial(call, each, leaves, spec, places) for each in (op.op, ONE_BY_ONE.get(op.name, op.op))
        )
        tensors = tuple(leaves[place].detach().clone() for place in places)
        try:
            results, again = (function(*(tensor.clone() for tensor in tensors)) for _ in range(2))
        except Exception:  # eager does not take it
            continue
        if not difference(results, again, dtype) and any(map(torch.is_tensor, pytree.tree_leaves(results))):
            yield Call(function, tensors, results, one_by_one)


def difference(ours: Any, theirs: Any, dtype: torch.dtype) -> str:
    tolerance = TOLERANCE.get(dtype, 1e-4)
    try:
        torch.testing.assert_close(
            pytree.tree_leaves(ours), pytree.tree_leaves(theirs), rtol=tolerance, atol=tolerance, equal_nan=True
        )
    except (AssertionError, TypeError, ValueError) as error:
        return " ".join(str(error).split())[:200]
    return ""


def rounded(call: Call, ours: Any) -> tuple[bool, str]:
    """Whether results are as near to float64's as eager's are, and how near both are."""
    wide = [tensor.double() if tensor.is_floating_point() else tensor for tensor in call.tensors]
    try:
        exact, same = call.function(*wide), call.one_by_one(*wide)
    except Exception:  # eager takes no float64 beside what else there is
        return False, ""

    def error(results: Any) -> float:
        pairs = zip(pytree.tree_leaves(results), pytree.tree_leaves(exact), strict=True)
        return max(
            (float((one.double() - other.double()).abs().max()) for one, other in pairs if one.numel()), default=0
        )

    is_same = error(same) < 1e-9  # in float64: else it is not the same function (of dropout, say)
    own, theirs = error(ours), error(call.results)
    steps = error(call.one_by_one(*call.tensors)) if is_same else theirs
    text = f"largest error {own:.2g}, eager's {theirs:.2g}, of its ops one by one {steps:.2g}"
    return own <= 2 * max(theirs, steps), text


def tried(found: list[Call], dtype: torch.dtype) -> list[tuple[str, str]]:
    """What became of each call, and why; halves are tried again where not all of it runs in engines."""
    functions, given = [call.function for call in found], [call.tensors for call in found]
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
    reasons = sorted({f"{op.op}: {'; '.join(map(str, op.reasons))}" for op in left})
    why = "; ".join(reasons)[:300]
    random = [reason for reason in reasons if RANDOM.search(reason)]
    if random:
        return [("random", random[0])]
    fate = "whole" if not left else "in part" if compiled.report.engines else "in Torch"
    return [judged(call, ours, dtype, fate, why) for call, ours in zip(found, results, strict=True)]


def judged(call: Call, ours: Any, dtype: torch.dtype, fate: str, why: str) -> tuple[str, str]:
    text = difference(ours, call.results, dtype)
    if not text:
        return fate, why
    near, how = rounded(call, ours)
    return ("rounded" if near else "differs", f"{fate}: {how}{'' if near else '; '}{'' if near else text}")


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
                if fate in ("rounded", "differs", "raised"):
                    print(json.dumps(row), file=sys.stderr, flush=True)
    fates = ("whole", "in part", "in Torch", "rounded", "differs", "raised", "not exported", "random")
    print(f"{'dtype':10}" + "".join(f"{fate:>14}" for fate in fates))
    for name, counts in table.items():
        print(f"{name:10}" + "".join(f"{counts[fate]:>14}" for fate in fates))


if __name__ == "__main__":
    main()
