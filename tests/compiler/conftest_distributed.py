"""One of the processes that compile and run their parts of a model together.

Called as ``conftest_distributed.py RANK FOLDER``; writes what it found to ``FOLDER/RANK.json``.
"""

from __future__ import annotations

import collections
import datetime
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import _functional_collectives as collectives
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import trtplug

WORLD = 2
X = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


def whole():
    """The model as one process has it."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)).eval().requires_grad_(False)


def summed(x):
    return collectives.all_reduce(x, "sum", dist.group.WORLD)


class Slice(nn.Module):
    """One process's slice of `whole`, and collectives that depend on nothing of it."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        up, _, down = whole()
        mine = slice(rank * 16 // WORLD, (rank + 1) * 16 // WORLD)
        self.up, self.up_bias, self.down = up.weight[mine], up.bias[mine], down.weight[:, mine].clone()
        self.bias, self.rank = down.bias, rank

    def forward(self, x):
        early = summed(x.exp())
        y = summed(nn.functional.linear(nn.functional.linear(x, self.up, self.up_bias).relu(), self.down))
        summed(y - 1)  # nobody reads it, yet everybody waits for it
        ones, twos = summed(x.tanh()), summed(x.tanh())
        return y + self.bias, early * 2 + self.rank, ones - 2 * twos


def expected(rank):
    return whole()(X), X.exp() * WORLD * 2 + rank, -X.tanh() * WORLD


def collectives_of(report):
    return collections.Counter(node.op for node in report.nodes if node.engine is None)


def main(rank: int, folder: Path) -> None:
    timeout = datetime.timedelta(seconds=90)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD, timeout=timeout)
    found = {}
    model = Slice(rank).eval()
    program = torch.export.export(model, (X,))
    # the ranks do not divide their graphs alike
    options = {"min_block_size": 1, "cache_dir": str(folder / "cache"), "torch_ops": ["aten::exp"] if rank else []}
    compiled = trtplug.compile(program, **options)
    found["collectives"] = collectives_of(compiled.report)
    found["engines"] = len(compiled.report.engines)
    torch.testing.assert_close(compiled(X), expected(rank))
    again = trtplug.compile(program, **options)
    found["cached"] = all(engine.cached for engine in again.report.engines)
    torch.testing.assert_close(again(X), expected(rank))

    trtplug.save(compiled, folder / f"{rank}.trtp")
    torch.testing.assert_close(trtplug.load(folder / f"{rank}.trtp")(X), expected(rank))

    fast = torch.compile(model, backend="trtplug", options={"min_block_size": 1})
    torch.testing.assert_close(fast(X), expected(rank))
    (report,) = trtplug.reports(fast)
    found["collectives just in time"] = collectives_of(report)

    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    sharded = parallelize_module(whole(), init_device_mesh("cpu", (WORLD,)), plan)
    fast = torch.compile(sharded, backend="trtplug", options={"min_block_size": 1})
    torch.testing.assert_close(fast(X), whole()(X))
    (report,) = trtplug.reports(fast)
    found["of sharded tensors"] = collectives_of(report)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
