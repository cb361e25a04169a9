"""A feed-forward layer over several processes: each compiles its own slice, and collectives run between engines.

    torchrun --standalone --nproc-per-node 2 examples/tensor_parallel.py

One process for each GPU where there are GPUs (NCCL), any number of processes on the CPU otherwise (gloo). Each holds a
slice of both weights; the partial results are summed by ``all_reduce``, which stays in Torch.
"""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from torch import nn

import trtplug

WIDTH, HIDDEN = 64, 256


class FeedForward(nn.Module):
    """``down(gelu(up(x))) + bias``, of which each process computes with its columns of `up` and its rows of `down`."""

    def __init__(self, rank: int, world: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)  # all processes draw the whole, and keep their slice
        up, down = (torch.randn(HIDDEN, WIDTH, generator=generator) / 8 for _ in range(2))
        mine = slice(rank * HIDDEN // world, (rank + 1) * HIDDEN // world)
        self.up, self.down = nn.Parameter(up[mine]), nn.Parameter(down[mine].T.contiguous())
        self.bias = nn.Parameter(torch.randn(WIDTH, generator=generator))
        self.whole = (up, down.T)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        partial = nn.functional.linear(nn.functional.gelu(nn.functional.linear(x, self.up)), self.down)
        return collectives.all_reduce(partial, "sum", dist.group.WORLD) + self.bias

    def alone(self, x: torch.Tensor) -> torch.Tensor:
        """The same by one process."""
        up, down = (part.to(x.device) for part in self.whole)
        return nn.functional.linear(nn.functional.gelu(nn.functional.linear(x, up)), down) + self.bias


def main() -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    cuda = torch.cuda.device_count() >= world
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    model = FeedForward(rank, world).eval().requires_grad_(False).to(device)
    x = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(1)).to(device)
    compiled = trtplug.compile(model, (x,), min_block_size=1)
    difference = (compiled(x) - model.alone(x)).abs().max().item()
    words = f"{compiled.report.summary()}; largest difference {difference:.1e}"
    sys.stdout.write(f"rank {rank} of {world} on {device}: {words}\n")  # in one piece
    assert difference < 1e-3
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
