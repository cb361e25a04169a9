"""Models over several processes: each compiles its part; collectives stay in Torch, all of them, and in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from test_partition_graphs import Maker, linked

from trtplug.partition import partition
from trtplug.testing import registry_of
from trtplug_registry import is_collective

HERE = Path(__file__).parent
SECONDS = 240

aten = torch.ops.aten
pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this Torch has no torch.distributed")


def reduce(make, x):
    from torch.distributed import _functional_collectives  # noqa: F401  registers what the ops do to fake tensors

    space = torch.ops._c10d_functional
    return make.call(space.wait_tensor.default, make.call(space.all_reduce.default, x, "sum", "0"))


def test_collectives_keep_the_order_of_the_graph():
    """Though the first waits for a block, and the second for nothing; dead ones are kept, and no two are merged."""
    make = Maker()
    x, y = make.input("x", (2, 4)), make.input("y", (2, 4))
    early = make.call(aten.sin.default, y)
    one = reduce(make, make.call(aten.relu.default, x))
    two = reduce(make, y)
    reduce(make, y)
    last = make.call(aten.add.Tensor, make.call(aten.add.Tensor, two, early), one)
    gm = make.done(last)
    calls = [node.name for node in gm.graph.nodes if is_collective(node.target)]
    parts = partition(gm, lambda node: True)  # somebody claims even collectives
    outer = linked(gm, parts)
    assert [node.name for node in outer.graph.nodes if is_collective(node.target)] == calls
    assert len(calls) == 6
    assert not any(is_collective(node.target) for block in parts.blocks for node in block.nodes)


def test_the_reason_says_what_a_collective_is():
    make = Maker()
    node = reduce(make, make.input("x", (2, 4))).args[0]
    assert "processes exchange data by it" in str(registry_of([]).lookup(node))


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def test_two_processes_compute_what_one_does(tmp_path):
    script = HERE / "conftest_distributed.py"
    started = [
        subprocess.Popen(
            [sys.executable, script, str(rank), tmp_path], env=environment(), stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=SECONDS)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(error[-3000:] for error in errors)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    five = {"_c10d_functional::all_reduce": 5, "_c10d_functional::wait_tensor": 5}
    one = {"_c10d_functional::all_reduce": 1, "_c10d_functional::wait_tensor": 1}
    for rank, facts in enumerate(found):
        assert facts["collectives"] == five | ({"aten::exp": 1} if rank else {})
        assert facts["collectives just in time"] == five
        assert facts["of sharded tensors"] == one
        assert facts["engines"] >= 2
        assert facts["cached"]


def test_the_example(tmp_path):
    example = HERE.parents[1] / "examples" / "tensor_parallel.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", example]
    done = subprocess.run(command, env=environment(), timeout=SECONDS, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        assert f"rank {rank} of 2" in done.stdout
    assert done.stdout.count("4 of 6 compute nodes in 2 TensorRT engine(s)") == 2, done.stdout
