"""Of normalizations and recurrent networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from trtplug.testing.arrangements import FLOAT, YES_NO, arranged, group_normed, layer_normed, normed
from trtplug.testing.recurrences import TABLE as RECURRENCES
from trtplug.testing.recurrences import affine, weight_normed
from trtplug_registry import FLOATS, Axis, Domain, ListOf, Only, Optional, Static, Tensor, same_dtype

_SCALE = dataclasses.replace(FLOAT, values=(-1e3, 1e3))
"""Whether an infinite one gives infinity or nan depends on the order of a sum, which eager's kernels choose."""

NORM = {
    "input": Tensor(FLOATS, rank=(2, 4), zero_size=False),
    "weight": Optional(_SCALE),
    "bias": Optional(_SCALE),
    "running_mean": FLOAT,
    "running_var": FLOAT,
    "momentum": Static(0, 1),
    "eps": Only(0.125, 1.0),  # where a variance is near 0, eager's x scale - mean scale has few digits left
}
WITHOUT_STATISTICS = {name: spec for name, spec in NORM.items() if not name.startswith("running")}

_SIZED = Tensor(FLOATS[:1], dynamic=False, values=(-1e2, 1e2))
"""Of a call whose arguments say its sizes again, as numbers."""

TABLE: Mapping[str, Domain] = {
    "aten::native_dropout": Domain(input=FLOAT, p=Static(0, 1), train=Only(False)),
    "aten::native_layer_norm_backward": Domain(
        same_dtype("input", "grad_out", "mean", "rstd", "weight", "bias"),
        arranged("statistics", layer_normed, "input", "grad_out", "mean", "rstd", "weight", "bias"),
        grad_out=Tensor(FLOATS[:1], rank=(1, 4), values=(-1e2, 1e2)),
        input=Tensor(FLOATS[:1], rank=(2, 4), zero_size=False, values=(-1e2, 1e2)),
        normalized_shape=ListOf(Static(1)),
        mean=Tensor(FLOATS[:1], values=(-2, 2)),
        rstd=Tensor(FLOATS[:1], values=(0.125, 4)),
        weight=Optional(Tensor(FLOATS[:1], values=(-1e2, 1e2))),
        bias=Optional(Tensor(FLOATS[:1])),
        output_mask=Only([True, True, True], [True, False, False]),
    ),
    "aten::native_group_norm_backward": Domain(
        same_dtype("input", "grad_out", "mean", "rstd", "weight"),
        arranged("statistics", group_normed, "input", "grad_out", "mean", "rstd", "weight"),
        grad_out=_SIZED,
        input=_SIZED,
        mean=dataclasses.replace(_SIZED, values=(-2, 2)),
        rstd=dataclasses.replace(_SIZED, values=(0.125, 4)),
        weight=Optional(_SIZED),
        N=Static(1),
        C=Static(1),
        HxW=Static(1),
        group=Static(1),
        output_mask=Only([True, True, True], [True, False, False]),
    ),
    "aten::_native_batch_norm_legit.no_stats": normed({**WITHOUT_STATISTICS, "training": Only(True)}),
    "aten::_native_batch_norm_legit_functional": normed({**NORM, "training": YES_NO}),
    "aten::native_batch_norm": normed({**NORM, "training": YES_NO}),
    "aten::_weight_norm_interface": Domain(
        same_dtype("v", "g"),
        arranged("a norm each", weight_normed, "v", "g", "dim"),
        v=Tensor(FLOATS[:1], rank=(2, 3), zero_size=False, values=(-1e2, 1e2)),
        g=Tensor(FLOATS[:1], values=(-4, 4)),
        dim=Axis("v"),
    ),
    "aten::affine_grid_generator": Domain(
        arranged("as many matrices", affine, "theta"),
        theta=Tensor(FLOATS[:1], rank=(3, 3), values=(-4, 4)),
        size=ListOf(Static(1)),
        align_corners=YES_NO,
    ),
    **RECURRENCES,
}
