"""Of ops that read and write elements by their places."""

from __future__ import annotations

from collections.abc import Mapping

from trtplug.testing.arrangements import (
    ANY,
    PLACES,
    SOME,
    YES_NO,
    arranged,
    bags,
    embedded,
    masked_places,
    narrowed,
    on_diagonal,
    one_place_each,
    one_slice,
    put_places,
    renormed,
    searched,
    selected,
    sliced,
    slices_at_places,
    strided,
    taken_places,
)
from trtplug_registry import (
    ALL,
    BOOL,
    FLOATS,
    INTS,
    NUMBERS,
    Axis,
    Domain,
    ListOf,
    Only,
    Static,
    Tensor,
    broadcastable,
    same_dtype,
    same_shape,
)

_MASKED = {"self": SOME, "mask": Tensor(BOOL, rank=(1, 1)), "indices": ListOf(PLACES, shortest=1, longest=1)}
_SORTED = Tensor(NUMBERS, rank=(1, 1))
_FLAGS = {"out_int32": YES_NO, "right": YES_NO}

IN_ORDER: Mapping[str, str] = {
    **{f"aten::bucketize.{name}": "boundaries" for name in ("Tensor", "Scalar")},
    **{f"aten::searchsorted.{name}": "sorted_sequence" for name in ("Tensor", "Scalar")},
}
"""Tensors whose elements come in order along the last axis: of others, an op's result is open."""

UP_TO_THE_END: Mapping[str, str] = {"aten::_grouped_mm": "offs"}
"""Likewise, and the last is the largest that there may be: what is beyond it, eager leaves open."""


TABLE: Mapping[str, Domain] = {
    **{
        f"aten::{name}": Domain(
            arranged("bags", bags, "weight", "indices", "offsets"),
            weight=Tensor(FLOATS, rank=(2, 2), zero_size=False, values=(-1e3, 1e3)),
            indices=Tensor(INTS, rank=(1, 1), zero_size=False),
            offsets=Tensor(INTS, rank=(1, 1), zero_size=False),
            mode=Only(0, 1, 2),
            padding_idx=Only(-1, 0),
        )
        for name in ("_embedding_bag", "_embedding_bag_forward_only")
    },
    **{
        f"aten::{name}": Domain(
            arranged("a view", strided, "self", "size", "stride", "storage_offset"),
            self=SOME,
            size=ListOf(Static(1)),
            stride=ListOf(Static(0)),
            storage_offset=Static(0),
        )
        for name in ("as_strided", "as_strided_copy")
    },
    "aten::as_strided_scatter": Domain(
        same_dtype("self", "src"),
        arranged("a view", one_place_each, "self", "src", "size", "stride", "storage_offset"),
        self=SOME,
        src=SOME,
        size=ListOf(Static(1)),
        stride=ListOf(Static(0)),
        storage_offset=Static(0),
    ),
    **{
        f"aten::{name}": Domain(
            arranged("a diagonal", on_diagonal, "self"), self=Tensor(rank=(2, 4), zero_size=False), **more
        )
        for name, more in {
            name: {"offset": Static(), "dim1": Axis("self"), "dim2": Axis("self")}
            for name in ("diagonal", "diagonal_copy")
        }.items()
    },
    "aten::diagonal_scatter": Domain(
        same_dtype("self", "src"),
        arranged("a diagonal", on_diagonal, "self", "src"),
        self=Tensor(rank=(2, 4), zero_size=False),
        src=ANY,
        offset=Static(),
        dim1=Axis("self"),
        dim2=Axis("self"),
    ),
    "aten::embedding_dense_backward": Domain(
        arranged("rows", embedded, "grad_output", "indices"),
        grad_output=Tensor(FLOATS, rank=(1, 4), values=(-1e3, 1e3)),
        indices=Tensor(INTS, rank=(0, 2), zero_size=False),
        num_weights=Static(1),
        padding_idx=Only(-1, 0),
        scale_grad_by_freq=Only(False),
    ),
    "aten::index_reduce": Domain(
        same_dtype("self", "source"),
        arranged("slices", slices_at_places(), "self", "index", "source"),
        self=SOME,
        dim=Axis("self"),
        index=PLACES,
        source=ANY,
        reduce=Only("prod", "mean", "amax", "amin"),
        include_self=YES_NO,
    ),
    "aten::index_add": Domain(
        same_dtype("self", "source"),
        arranged("slices", slices_at_places(), "self", "index", "source"),
        self=SOME,
        dim=Axis("self"),
        index=PLACES,
        source=ANY,
        alpha=Only(1, 2),
    ),
    "aten::index_fill.int_Scalar": Domain(
        arranged("slices", slices_at_places(), "self", "index"),
        self=SOME,
        dim=Axis("self"),
        index=PLACES,
        value=Static(-4, 4),
    ),
    "aten::masked_scatter": Domain(
        same_dtype("self", "source"),
        same_shape("self", "source"),
        broadcastable("self", "mask"),
        self=SOME,
        mask=Tensor(BOOL, rank=(0, 4)),
        source=SOME,
    ),
    "aten::nonzero_static": Domain(self=Tensor(rank=(1, 4)), size=Static(0, 6), fill_value=Only(-1, 0, 7)),
    "aten::put": Domain(
        same_dtype("self", "source"),
        arranged("places", put_places, "self", "index", "source"),
        self=SOME,
        index=PLACES,
        source=SOME,
        accumulate=YES_NO,
    ),
    "aten::select_scatter": Domain(
        same_dtype("self", "src"),
        arranged("a slice", selected, "self", "src"),
        self=SOME,
        src=ANY,
        dim=Axis("self"),
        index=Static(-3, 3),
    ),
    "aten::narrow_copy": Domain(
        arranged("a part", narrowed, "self", "dim", "start", "length"),
        self=SOME,
        dim=Axis("self"),
        start=Static(0),
        length=Static(0),
    ),
    "aten::slice_scatter": Domain(
        same_dtype("self", "src"),
        arranged("a slice", sliced, "self", "src"),
        self=SOME,
        src=ANY,
        dim=Axis("self"),
        start=Static(-5, 5),
        end=Static(-5, 5),
        step=Static(1, 3),
    ),
    "aten::take": Domain(
        arranged("places", taken_places, "self", "index"), self=SOME, index=Tensor(INTS[1:], rank=(0, 3))
    ),
    "aten::_unsafe_masked_index": Domain(
        arranged("places where the mask is true", masked_places, "self", "mask", "indices"),
        **_MASKED,
        fill=Static(-4, 4),
    ),
    "aten::_unsafe_masked_index_put_accumulate": Domain(
        same_dtype("self", "values"),
        arranged("places where the mask is true", masked_places, "self", "mask", "indices", "values"),
        **_MASKED,
        values=ANY,
    ),
    **{
        f"aten::bucketize.{name}": Domain(self=spec, boundaries=_SORTED, **_FLAGS)
        for name, spec in {"Tensor": Tensor(NUMBERS, rank=(0, 3)), "Scalar": Static(-4, 4)}.items()
    },
    "aten::searchsorted.Scalar": Domain(
        sorted_sequence=_SORTED,
        self=Static(-4, 4),
        **_FLAGS,
    ),
    "aten::searchsorted.Tensor": Domain(
        same_dtype("sorted_sequence", "self"),
        arranged("lists", searched, "sorted_sequence", "self"),
        sorted_sequence=_SORTED,
        self=Tensor(NUMBERS, rank=(0, 3)),
        **_FLAGS,
    ),
    "aten::embedding_renorm": Domain(
        arranged("rows", renormed, "self", "indices"),
        self=Tensor(FLOATS[:1], rank=(2, 2), zero_size=False, values=(-1e2, 1e2)),
        indices=PLACES,
        max_norm=Static(0.5, 2),
        norm_type=Only(1.0, 2.0),
    ),
    "aten::index_copy": Domain(
        same_dtype("self", "source"),
        arranged("a slice", one_slice, "self", "dim", "index", "source"),
        self=SOME,
        dim=Axis("self"),
        index=PLACES,
        source=ANY,
    ),
    "aten::index_fill.int_Tensor": Domain(
        same_dtype("self", "value"),
        arranged("slices", slices_at_places(), "self", "index"),
        self=SOME,
        dim=Axis("self"),
        index=PLACES,
        value=Tensor(rank=(0, 0)),
    ),
    **{
        f"aten::isin.{name}": Domain(*relations, **{**given, "invert": YES_NO})
        for name, relations, given in (
            (
                "Tensor_Tensor",
                (same_dtype("elements", "test_elements"),),
                {"elements": Tensor(ALL, rank=(0, 3)), "test_elements": Tensor(ALL, rank=(0, 2))},
            ),
            ("Tensor_Scalar", (), {"elements": Tensor(NUMBERS, rank=(0, 3)), "test_element": Static(-4, 4)}),
            ("Scalar_Tensor", (), {"element": Static(-4, 4), "test_elements": Tensor(NUMBERS, rank=(0, 2))}),
        )
    },
}
