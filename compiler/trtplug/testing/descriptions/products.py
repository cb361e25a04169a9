"""Of products of vectors and matrices, and of distances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtplug.testing.arrangements import arranged, of_three, shaped
from trtplug_registry import (
    FLOATS,
    INTS,
    NUMBERS,
    Axis,
    Choose,
    Domain,
    Only,
    Optional,
    Static,
    Tensor,
    dims,
    same_dtype,
    same_shape,
)


def _groups(call: dict[str, Any], choose: Choose) -> None:
    """Rows of a group each, or as many for each group; lines of 16 bytes, as eager wants them."""
    line = 16 // call["self"].dtype.itemsize
    groups, inner, outer = choose.integer(1, 3), line, line * choose.integer(1, 2)
    rows = choose.integer(0, 5)
    alike = call["offs"] is None
    call["self"] = shaped(call["self"], *([groups] if alike else []), rows, inner)
    call["mat2"] = shaped(call["mat2"], groups, inner, outer)
    if not alike:
        call["offs"] = shaped(call["offs"], groups)._replace(values=(0, rows))


TABLE: Mapping[str, Domain] = {
    "aten::_grouped_mm": Domain(
        same_dtype("self", "mat2"),
        arranged("groups", _groups, "self", "mat2", "offs"),
        self=Tensor(FLOATS[2:], dynamic=False, values=(-1e2, 1e2)),  # Torch's metadata knows no other dtype
        mat2=Tensor(FLOATS[2:], dynamic=False, values=(-1e2, 1e2)),
        offs=Optional(Tensor(INTS[:1], dynamic=False)),
    ),
    "aten::_cdist_forward": Domain(
        same_dtype("x1", "x2"),
        dims(x1="p m", x2="r m"),
        x1=Tensor(FLOATS, rank=(2, 2)),
        x2=Tensor(FLOATS, rank=(2, 2)),
        p=Static(0, 4),
        compute_mode=Only(None),
    ),
    "aten::_pdist_forward": Domain(self=Tensor(FLOATS, rank=(2, 2)), p=Static(0, 4)),
    "aten::addbmm": Domain(
        same_dtype("self", "batch1", "batch2"),
        dims(batch1="b n k", batch2="b k m", self="n m"),
        self=Tensor(FLOATS, rank=(2, 2), values=(-1e2, 1e2)),
        batch1=Tensor(FLOATS, rank=(3, 3), values=(-1e2, 1e2)),
        batch2=Tensor(FLOATS, rank=(3, 3), values=(-1e2, 1e2)),
        beta=Only(1, 0, 0.5),
        alpha=Only(1, 2),
    ),
    "aten::addmv": Domain(
        same_dtype("self", "mat", "vec"),
        dims(mat="n k", vec="k", self="n"),
        self=Tensor(FLOATS, rank=(1, 1), values=(-1e2, 1e2)),
        mat=Tensor(FLOATS, rank=(2, 2), values=(-1e2, 1e2)),
        vec=Tensor(FLOATS, rank=(1, 1), values=(-1e2, 1e2)),
        beta=Only(1, 0, 0.5),
        alpha=Only(1, 2),
    ),
    "aten::bilinear": Domain(
        same_dtype("input1", "input2", "weight", "bias"),
        dims(input1="n i", input2="n j", weight="o i j", bias="o"),
        input1=Tensor(FLOATS, rank=(2, 2), values=(-1e2, 1e2)),
        input2=Tensor(FLOATS, rank=(2, 2), values=(-1e2, 1e2)),
        weight=Tensor(FLOATS, rank=(3, 3), values=(-1e2, 1e2)),
        bias=Optional(Tensor(FLOATS, rank=(1, 1))),
    ),
    "aten::_euclidean_dist": Domain(
        same_dtype("x1", "x2"),
        dims(x1="p m", x2="r m"),
        x1=Tensor(FLOATS[:1], rank=(2, 2), values=(-4, 4)),
        x2=Tensor(FLOATS[:1], rank=(2, 2), values=(-4, 4)),
    ),
    "aten::addr": Domain(
        same_dtype("self", "vec1", "vec2"),
        dims(vec1="n", vec2="m", self="n m"),
        self=Tensor(NUMBERS, rank=(2, 2), values=(-1e2, 1e2)),
        vec1=Tensor(NUMBERS, rank=(1, 1), values=(-1e2, 1e2)),
        vec2=Tensor(NUMBERS, rank=(1, 1), values=(-1e2, 1e2)),
        beta=Only(1, 0, 2),
        alpha=Only(1, 2),
    ),
    "aten::linalg_cross": Domain(
        same_dtype("self", "other"),
        same_shape("self", "other"),
        arranged("three along an axis", of_three, "self", "other", "dim"),
        self=Tensor(NUMBERS, rank=(1, 3), values=(-1e2, 1e2)),
        other=Tensor(NUMBERS, rank=(1, 3), values=(-1e2, 1e2)),
        dim=Axis("self"),
    ),
    "aten::vdot": Domain(
        same_dtype("self", "other"),
        dims(self="n", other="n"),
        self=Tensor(NUMBERS, rank=(1, 1), values=(-1e2, 1e2)),
        other=Tensor(NUMBERS, rank=(1, 1), values=(-1e2, 1e2)),
    ),
}
