"""Of what is reduced, accumulated and put in order."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from trtplug.testing.arrangements import ANY, FLOAT, NOT_NAN, YES_NO, arranged, kth
from trtplug_registry import (
    ALL,
    BOOL,
    FLOATS,
    Axis,
    Domain,
    ListOf,
    Only,
    Optional,
    Static,
    Tensor,
    broadcastable,
    same_dtype,
)

_POWER = Only(None, 0, 1, 2, 3, math.inf, -math.inf)
_NORMED = Tensor(FLOATS, rank=(0, 4), values=(-1e2, 1e2))
_AXIS = ListOf(Axis("self"), shortest=1, longest=1)
_ORDERED = Tensor(FLOATS[:1], rank=(1, 3), zero_size=False, values=(-1e3, 1e3))
_QUANTILE = {"dim": Optional(Axis("self")), "keepdim": YES_NO}
_BETWEEN = Only("linear", "lower", "higher", "midpoint", "nearest")


TABLE: Mapping[str, Domain] = {
    "aten::_is_all_true": Domain(self=Tensor(BOOL)),
    "aten::_is_any_true": Domain(self=Tensor(BOOL)),
    **{f"aten::{name}": Domain(self=ANY, dim=Axis("self")) for name in ("cummax", "cummin", "cumprod")},
    "aten::logcumsumexp": Domain(self=FLOAT, dim=Axis("self")),
    "aten::trace": Domain(self=Tensor(rank=(2, 2))),
    "aten::histc": Domain(
        self=Tensor(FLOATS[:1]), bins=Static(1, 5), min=Only(-4.0, -1.0, 0.0), max=Only(2.0, 4.0, 8.0, 0.0)
    ),
    "aten::kthvalue": Domain(
        arranged("k", kth, "self", "dim"),
        self=Tensor(rank=(0, 4), zero_size=False),
        k=Static(1),
        dim=Axis("self"),
        keepdim=YES_NO,
    ),
    **{
        f"aten::{name}.dim": Domain(self=Tensor(rank=(0, 4), zero_size=False), dim=Axis("self"), keepdim=YES_NO)
        for name in ("median", "nanmedian")
    },
    "aten::median": Domain(self=Tensor(rank=(0, 4), zero_size=False)),
    "aten::nanmedian": Domain(self=Tensor(rank=(0, 4), zero_size=False)),
    "aten::sort": Domain(self=Tensor(ALL, rank=(0, 4)), dim=Axis("self"), descending=YES_NO),
    "aten::sort.stable": Domain(self=Tensor(ALL, rank=(0, 4)), stable=Only(True), dim=Axis("self"), descending=YES_NO),
    "aten::var.dim": Domain(
        self=Tensor(FLOATS, rank=(0, 4), values=(-1e3, 1e3)),
        dim=ListOf(Axis("self"), shortest=1, longest=1),
        unbiased=YES_NO,
        keepdim=YES_NO,
    ),
    "aten::_safe_softmax": Domain(self=FLOAT, dim=Axis("self"), dtype=Only(None, torch.float32)),
    "aten::count_nonzero.dim_IntList": Domain(self=ANY, dim=_AXIS),
    "aten::dist": Domain(
        same_dtype("self", "other"),
        broadcastable("self", "other"),
        self=_NORMED,
        other=_NORMED,
        p=Only(0, 1, 2, 3, math.inf),
    ),
    "aten::mode": Domain(  # eager sorts nan to wherever it happens to stay
        self=Tensor(rank=(0, 3), zero_size=False, values=NOT_NAN), dim=Axis("self"), keepdim=YES_NO
    ),
    "aten::norm.Scalar": Domain(self=_NORMED, p=Only(0, 1, 2, 3, math.inf)),
    "aten::norm.ScalarOpt_dim": Domain(self=_NORMED, p=_POWER, dim=_AXIS, keepdim=YES_NO),
    "aten::norm.ScalarOpt_dim_dtype": Domain(
        self=_NORMED, p=_POWER, dim=_AXIS, keepdim=YES_NO, dtype=Only(torch.float32)
    ),
    "aten::norm.ScalarOpt_dtype": Domain(self=_NORMED, p=_POWER, dtype=Only(torch.float32)),
    **{
        f"aten::{name}{overload}": Domain(self=_ORDERED, q=q, **_QUANTILE, interpolation=_BETWEEN)
        for name in ("quantile", "nanquantile")
        for overload, q in {
            "": Tensor(FLOATS[:1], rank=(0, 1), zero_size=False, values=(0, 1)),
            ".scalar": Static(0, 1),
        }.items()
    },
    "aten::renorm": Domain(
        self=Tensor(FLOATS[:1], rank=(2, 3), values=(-1e2, 1e2)),
        p=Only(1, 2, 3),
        dim=Axis("self"),
        maxnorm=Static(0.5, 4),
    ),
    "aten::var": Domain(self=Tensor(FLOATS, rank=(0, 4), values=(-1e3, 1e3)), unbiased=YES_NO),
}
