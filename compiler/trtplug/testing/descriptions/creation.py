"""Of what makes tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trtplug.testing.arrangements import ANY, READ_AS, SOME, arranged, as_wide, classes, expanded, shaped
from trtplug_registry import (
    ALL,
    FLOATS,
    INTS,
    Choose,
    Domain,
    Only,
    Spec,
    Static,
    Tensor,
    same_dtype,
    same_shape,
)

_NUMBER, _ELEMENT = Static(-4, 4), Tensor(FLOATS[:1], rank=(0, 0), values=(-4, 4))
_MADE = Only(None, torch.float32, torch.float16)


def _between(*of: str, **more: Spec) -> Domain:
    ends = {name: _ELEMENT if kind == "Tensor" else _NUMBER for name, kind in zip(("start", "end"), of, strict=True)}
    return Domain(**ends, steps=Static(0, 6), **more, dtype=_MADE)


def _one_count(call: dict[str, Any], choose: Choose) -> None:
    """How often each place comes, all of them as often: what a given size is made of."""
    count, times = choose.integer(1, 3), choose.integer(1, 2)
    call["repeats"] = shaped(call["repeats"], count)._replace(values=(times, times))
    call["output_size"] = count * times


TABLE: Mapping[str, Domain] = {
    **{
        f"aten::{name}space{overload}": _between(*of, **more)
        for name, more in {"lin": {}, "log": {"base": Only(10.0, 2.0)}}.items()
        for overload, of in {
            "": ("Scalar", "Scalar"),
            ".Scalar_Tensor": ("Scalar", "Tensor"),
            ".Tensor_Scalar": ("Tensor", "Scalar"),
            ".Tensor_Tensor": ("Tensor", "Tensor"),
        }.items()
    },
    "aten::hann_window": Domain(window_length=Static(0, 6), dtype=_MADE),
    "aten::hann_window.periodic": Domain(window_length=Static(0, 6), periodic=Only(False, True), dtype=_MADE),
    "aten::copy": Domain(
        arranged("a source that expands", expanded, "self", "src"),
        self=ANY,
        src=Tensor(rank=(0, 5), values=(-1e3, 1e3)),  # beyond integers' range, nobody defines a cast
    ),
    "aten::fill.Scalar": Domain(self=ANY, value=_NUMBER),
    "aten::fill.Tensor": Domain(self=ANY, value=Tensor(rank=(0, 0), values=(-1e3, 1e3))),  # as those of a copy
    "aten::one_hot": Domain(
        arranged("classes", classes, "self"), self=Tensor(INTS[1:], zero_size=False), num_classes=Static(1)
    ),
    "aten::repeat_interleave.Tensor": Domain(
        arranged("as many as there are", _one_count, "repeats"),
        repeats=Tensor(INTS, rank=(1, 1)),
        output_size=Static(1),
    ),
    "aten::resize_as": Domain(
        same_dtype("self", "the_template"), same_shape("self", "the_template"), self=SOME, the_template=SOME
    ),
    **{
        f"aten::{name}.dtype": Domain(
            arranged("a dtype that fits the memory", as_wide, "self", "dtype"), self=ANY, dtype=Only(*READ_AS)
        )
        for name in ("view", "view_copy")
    },
    "prims::convert_element_type": Domain(a=Tensor(rank=(0, 5), values=(-1e3, 1e3)), dtype=Only(*ALL)),
}
