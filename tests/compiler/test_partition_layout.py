"""Random ops in Torch after engines draw the numbers that they draw in eager, however eager's tensors lie in memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import trtplug

f = nn.functional


class Layout(nn.Module):
    """Dropout of something."""

    def __init__(self, of) -> None:
        super().__init__()
        self.of = of

    def forward(self, x):
        return f.dropout(self.of(x), 0.5, training=True) + 1


LAYOUTS = {
    "permuted": lambda x: x.transpose(0, 2) * 2,
    "expanded": lambda x: (x[:1] * 2).mT.expand(3, 5, x.shape[1]),
    "expanded innermost": lambda x: (x[..., :1] * 2).expand(3, x.shape[1], 6),
    "through an op in Torch": lambda x: torch.special.bessel_j0((x.mT * 2).relu()),
    "through a view in Torch": lambda x: torch.special.bessel_j0((x.mT * 2).relu())[1:],
    "channels last": lambda x: (x[None].contiguous(memory_format=torch.channels_last) * 2).relu(),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("of", LAYOUTS.values(), ids=LAYOUTS)
def test_the_same_numbers_are_dropped(of, dynamic: bool) -> None:
    model, some = Layout(of), torch.rand(3, 4, 5) + 1
    shapes = ({1: torch.export.Dim("n", min=2, max=8)},) if dynamic else None
    compiled = trtplug.compile(model, (some,), dynamic_shapes=shapes, min_block_size=1)
    assert "aten::dropout" in {node.op for node in compiled.report.torch_ops}
    for x in (some, torch.rand(3, 7, 5) + 1) if dynamic else (some,):
        torch.manual_seed(3)
        expected = model(x)
        torch.manual_seed(3)
        torch.testing.assert_close(compiled(x), expected)


@pytest.mark.parametrize("of", [lambda x: x * 2, LAYOUTS["expanded innermost"]], ids=["rows", "expanded"])
def test_nothing_is_copied_where_memory_is_in_order(of) -> None:
    compiled = trtplug.compile(Layout(of), (torch.rand(3, 4, 5),), min_block_size=1)
    assert not any("permute" in str(node.target) for node in compiled.graph_module.graph.nodes)


def test_what_no_random_op_sees_stays_as_it_is() -> None:
    class Sorted(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0((x.mT * 2).relu())

    compiled = trtplug.compile(Sorted(), (torch.rand(3, 4, 5),), min_block_size=1)
    assert compiled.report.torch_ops
    assert not any("permute" in str(node.target) for node in compiled.graph_module.graph.nodes)
