"""Of what only moves elements."""

from __future__ import annotations

from collections.abc import Mapping

from trtplug.testing.arrangements import (
    SOME,
    arranged,
    chunked,
    contiguous_view,
    grouped_channels,
    new_diagonal,
    shuffled,
    turned,
    unfolded,
)
from trtplug_registry import Axis, Domain, ListOf, Static, Tensor, same_dtype

TABLE: Mapping[str, Domain] = {
    "aten::pixel_shuffle": Domain(
        arranged("squares", shuffled("upscale_factor", False), "self"),
        self=Tensor(rank=(3, 5), zero_size=False),
        upscale_factor=Static(1, 2),
    ),
    "aten::pixel_unshuffle": Domain(
        arranged("squares", shuffled("downscale_factor", True), "self"),
        self=Tensor(rank=(3, 5), zero_size=False),
        downscale_factor=Static(1, 2),
    ),
    **{
        f"aten::{name}": Domain(
            arranged("windows", unfolded, "self"), self=SOME, dimension=Axis("self"), size=Static(1), step=Static(1)
        )
        for name in ("unfold", "unfold_copy")
    },
    "aten::_chunk_cat": Domain(
        same_dtype("tensors"),
        arranged("alike", chunked, "tensors", "dim"),
        tensors=ListOf(Tensor(rank=(1, 3), zero_size=False), shortest=1, longest=3),
        dim=Static(0),
        num_chunks=Static(1, 3),
    ),
    "aten::_reshape_alias": Domain(
        arranged("a contiguous view", contiguous_view, "self"),
        self=SOME,
        size=ListOf(Static(1)),
        stride=ListOf(Static(1)),
    ),
    "aten::block_diag": Domain(same_dtype("tensors"), tensors=ListOf(Tensor(rank=(0, 2)), shortest=1, longest=3)),
    "aten::channel_shuffle": Domain(
        arranged("groups", grouped_channels, "self"), self=Tensor(rank=(3, 5), zero_size=False), groups=Static(1, 3)
    ),
    "aten::diag_embed": Domain(
        arranged("two new axes", new_diagonal, "self"),
        self=Tensor(rank=(1, 3)),
        offset=Static(-2, 2),
        dim1=Static(),
        dim2=Static(),
    ),
    "aten::rot90": Domain(
        arranged("two axes", turned, "self"), self=Tensor(rank=(2, 4)), k=Static(-3, 5), dims=ListOf(Static())
    ),
}
