"""A model that branches on sizes holds for the sizes of the branches that were followed: the others are refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import trtplug
from trtplug.branches import branches_of


class Branching(nn.Module):
    def forward(self, x, y):
        if x.shape[0] == 4:
            return x + 1
        if x.shape[0] % 2 == 0:
            x = x * 3
        if 2 * x.shape[0] == y.shape[0]:
            x = x - 1
        return x.reshape(-1, 2).sin() + y.sum()


@pytest.fixture(scope="module")
def compiled():
    x = trtplug.Input(min_shape=(3, 2), opt_shape=(8, 2), max_shape=(16, 2), name="x")
    y = trtplug.Input(min_shape=(3,), opt_shape=(7,), max_shape=(20,), name="y")
    return trtplug.compile(Branching(), inputs=[x, y], min_block_size=1)


@pytest.fixture(scope="module", params=["compiled", "copied", "trtp", "pt2"])
def anyhow(request, compiled, tmp_path_factory):
    if request.param in ("compiled", "copied"):
        return compiled if request.param == "compiled" else copy.deepcopy(compiled)
    file = tmp_path_factory.mktemp("saved") / f"model.{request.param}"
    trtplug.save(compiled, file)
    return trtplug.load(file, trusted=True)


@pytest.mark.parametrize(("rows", "others"), [(8, 7), (12, 9), (16, 20), (6, 3)])
def test_sizes_of_the_side_that_was_followed(anyhow, rows, others):
    x, y = torch.randn(rows, 2), torch.randn(others)
    torch.testing.assert_close(anyhow(x, y), Branching()(x, y))


@pytest.mark.parametrize(
    ("rows", "others", "words"),
    [(4, 5, "dimension 0 of input 'x' != 4"), (7, 9, "Mod(dimension 0 of input 'x', 2) == 0"), (8, 16, "'y'")],
)
def test_sizes_of_another_side_are_refused_with_the_line(anyhow, rows, others, words):
    x, y = torch.randn(rows, 2), torch.randn(others)
    for _ in range(2):
        if not isinstance(
            anyhow, trtplug.CompiledModule
        ):  # a .pt2 file's program is Torch's, which has words of its own
            with pytest.raises(AssertionError, match="Guard failed"):
                anyhow(x, y)
            continue
        with pytest.raises(trtplug.InputError, match="the model branches there") as caught:
            anyhow(x, y)
        assert words in str(caught.value)
        assert "test_branches.py" in str(caught.value)


def test_torch_s_own_branches_and_those_that_every_size_takes_are_none():
    """A reshape asks how its argument lies in memory, and gives the same whichever way."""

    class Model(nn.Module):
        def forward(self, x):
            if x.shape[0] != 40:
                x = x + 1
            return x.reshape(4, -1).transpose(0, 1).contiguous()

    program = trtplug.trace(Model(), inputs=[trtplug.Input(min_shape=(4, 3), opt_shape=(8, 3), max_shape=(16, 3))])
    assert program.branches == ()
    wider = {symbol: trtplug.Range(4, 8, 99) for symbol in program.ranges}
    (branch,) = branches_of(program.exported, wider)
    assert (branch.relation, branch.right) == ("!=", 40)


def test_a_sparse_input_is_refused(compiled):
    x, y = torch.randn(14, 2), torch.randn(13)
    compiled(x, y)  # of sizes that have passed before, too
    with pytest.raises(trtplug.InputError, match=r"input 'x' is of the layout torch.sparse_coo; .*to_dense"):
        compiled(x.to_sparse(), y)
