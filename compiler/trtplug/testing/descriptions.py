"""Calls that eager takes, for ops whose schemas do not say enough, by qualified name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from trtplug.testing.arrangements import (
    ANY,
    FLOAT,
    PLACES,
    SOME,
    YES_NO,
    arranged,
    bags,
    classes,
    convolved,
    embedded,
    expanded,
    folded,
    group_normed,
    kth,
    layer_normed,
    normed,
    of_convolution,
    of_windows,
    on_diagonal,
    one_place_each,
    per_axis,
    pooled,
    put_places,
    selected,
    shuffled,
    sliced,
    slices_at_places,
    strided,
    unequal_windows,
    unfolded,
    windows,
)
from trtplug_registry import (
    ALL,
    BOOL,
    FLOATS,
    INTS,
    Axis,
    Domain,
    ListOf,
    Only,
    Optional,
    Relation,
    Spec,
    Static,
    Tensor,
    broadcastable,
    dims,
    index_into,
    same_dtype,
    same_shape,
)

NORM = {
    "input": Tensor(FLOATS, rank=(2, 4), zero_size=False),
    "weight": Optional(FLOAT),
    "bias": Optional(FLOAT),
    "running_mean": FLOAT,
    "running_var": FLOAT,
    "momentum": Static(0, 1),
    "eps": Only(0.125, 1.0),  # where a variance is near 0, eager's x scale - mean scale has few digits left
}
WITHOUT_STATISTICS = {name: spec for name, spec in NORM.items() if not name.startswith("running")}


_WINDOWED = Tensor(FLOATS, rank=(3, 4), zero_size=False, static_axes=(-1, -2))
"""Whose windows are counted, and places in them, before the sizes are known to be others."""

_SIZED = Tensor(FLOATS[:1], dynamic=False, values=(-1e2, 1e2))
"""Of a call whose arguments say its sizes again, as numbers."""

DESCRIPTIONS: Mapping[str, Domain] = {
    **{
        f"aten::{name}": Domain(broadcastable("self", "other"), self=Tensor(INTS, rank=(0, 4)), other=Tensor(INTS))
        for name in (
            *("__lshift__.Tensor", "__rshift__.Tensor", "bitwise_left_shift.Tensor", "bitwise_right_shift.Tensor"),
            *("bitwise_and.Tensor", "bitwise_or.Tensor", "bitwise_xor.Tensor"),
        )
    },
    **{
        f"aten::{name}": Domain(self=Tensor(INTS, rank=(0, 4)), other=Static(-70, 70))
        for name in (
            *("__lshift__.Scalar", "__rshift__.Scalar"),
            *("bitwise_left_shift.Tensor_Scalar", "bitwise_right_shift.Tensor_Scalar"),
        )
    },
    **{f"aten::_adaptive_avg_pool{n}d": pooled(n) for n in (2, 3)},
    **{f"aten::adaptive_max_pool{n}d": pooled(n) for n in (2, 3)},
    "aten::adaptive_avg_pool1d": pooled(1),
    "aten::_adaptive_avg_pool2d_backward": Domain(
        same_dtype("grad_output", "self"),
        arranged("windows", unequal_windows, "grad_output", "self"),
        grad_output=Tensor(FLOATS, rank=(3, 4), zero_size=False),
        self=Tensor(FLOATS, rank=(3, 4), zero_size=False),
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
    "aten::_is_all_true": Domain(self=Tensor(BOOL)),
    "aten::_is_any_true": Domain(self=Tensor(BOOL)),
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
    "aten::avg_pool2d_backward": Domain(
        same_dtype("self", "grad_output"),
        Relation("windows", ("self", "grad_output"), of_windows(2), windows(2, ["grad_output"])),
        grad_output=_WINDOWED,
        self=_WINDOWED,
        **per_axis(2),
        ceil_mode=YES_NO,
        count_include_pad=YES_NO,
        divisor_override=Only(None, 2, 3),
    ),
    **{
        f"aten::max_pool{n}d_with_indices": Domain(
            arranged("windows", windows(n), "self"),
            self=Tensor(FLOATS, rank=(n + 1, n + 2), zero_size=False),
            **per_axis(n),
            dilation=ListOf(Static(1, 2), shortest=n, longest=n),
            ceil_mode=YES_NO,
        )
        for n in (2, 3)
    },
    "aten::max_pool2d_with_indices_backward": Domain(
        same_dtype("self", "grad_output"),
        Relation("windows", ("self", "grad_output", "indices"), of_windows(2), windows(2, ["grad_output", "indices"])),
        grad_output=_WINDOWED,
        self=_WINDOWED,
        **per_axis(2),
        dilation=ListOf(Static(1, 2), shortest=2, longest=2),
        ceil_mode=YES_NO,
        indices=dataclasses.replace(_WINDOWED, dtypes=INTS[1:]),
    ),
    "aten::bilinear": Domain(
        same_dtype("input1", "input2", "weight", "bias"),
        dims(input1="n i", input2="n j", weight="o i j", bias="o"),
        input1=Tensor(FLOATS, rank=(2, 2), values=(-1e2, 1e2)),
        input2=Tensor(FLOATS, rank=(2, 2), values=(-1e2, 1e2)),
        weight=Tensor(FLOATS, rank=(3, 3), values=(-1e2, 1e2)),
        bias=Optional(Tensor(FLOATS, rank=(1, 1))),
    ),
    "aten::col2im": Domain(
        arranged("blocks", folded, "self"),
        self=Tensor(FLOATS, rank=(2, 3), zero_size=False),
        **{
            name: ListOf(Static(0), shortest=2, longest=2)
            for name in ("output_size", "kernel_size", "dilation", "padding", "stride")
        },
    ),
    "aten::convolution_backward": Domain(
        same_dtype("input", "weight", "grad_output"),
        Relation("windows", ("input", "weight", "grad_output"), of_convolution, convolved),
        grad_output=Tensor(FLOATS, rank=(3, 5), zero_size=False),
        input=Tensor(FLOATS, rank=(3, 5), zero_size=False),
        weight=Tensor(FLOATS, rank=(3, 5), zero_size=False),
        bias_sizes=ListOf(Static(1)),
        stride=ListOf(Static(1)),
        padding=ListOf(Static(0)),
        dilation=ListOf(Static(1)),
        transposed=YES_NO,
        output_padding=ListOf(Static(0)),
        groups=Static(1, 2),
        output_mask=Only([True, True, True], [True, False, True], [False, True, False]),
    ),
    **{f"aten::{name}": Domain(self=ANY, dim=Axis("self")) for name in ("cummax", "cummin", "cumprod")},
    "aten::logcumsumexp": Domain(self=FLOAT, dim=Axis("self")),
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
    "aten::heaviside": Domain(
        same_dtype("self", "values"), broadcastable("self", "values"), self=ANY, values=Tensor(rank=(0, 4))
    ),
    "aten::trace": Domain(self=Tensor(rank=(2, 2))),
    "aten::histc": Domain(
        self=Tensor(FLOATS[:1]), bins=Static(1, 5), min=Only(-4.0, -1.0, 0.0), max=Only(2.0, 4.0, 8.0)
    ),
    "aten::isclose": Domain(
        same_dtype("self", "other"),
        broadcastable("self", "other"),
        self=ANY,
        other=ANY,
        rtol=Static(0, 1),
        atol=Static(0, 1),
        equal_nan=YES_NO,
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
    "aten::masked_scatter": Domain(
        same_dtype("self", "source"),
        same_shape("self", "source"),
        broadcastable("self", "mask"),
        self=SOME,
        mask=Tensor(BOOL, rank=(0, 4)),
        source=SOME,
    ),
    "aten::median": Domain(self=Tensor(rank=(0, 4), zero_size=False)),
    "aten::nanmedian": Domain(self=Tensor(rank=(0, 4), zero_size=False)),
    "aten::copy": Domain(
        arranged("a source that expands", expanded, "self", "src"),
        self=ANY,
        src=Tensor(rank=(0, 5), values=(-1e3, 1e3)),  # beyond integers' range, nobody defines a cast
    ),
    "aten::fill.Tensor": Domain(self=ANY, value=Tensor(rank=(0, 0))),
    "aten::lerp.Scalar": Domain(
        same_dtype("self", "end"), broadcastable("self", "end"), self=FLOAT, end=FLOAT, weight=Static(-4, 4)
    ),
    "aten::lerp.Tensor": Domain(
        same_dtype("self", "end", "weight"),
        broadcastable("self", "end", "weight"),
        self=FLOAT,
        end=FLOAT,
        weight=FLOAT,
    ),
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
    "aten::one_hot": Domain(
        arranged("classes", classes, "self"), self=Tensor(INTS[1:], zero_size=False), num_classes=Static(1)
    ),
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
    "aten::put": Domain(
        same_dtype("self", "source"),
        arranged("places", put_places, "self", "index", "source"),
        self=SOME,
        index=PLACES,
        source=SOME,
        accumulate=YES_NO,
    ),
    "aten::round.decimals": Domain(self=FLOAT, decimals=Static(-3, 3)),
    "aten::rrelu": Domain(self=FLOAT),
    "aten::select_scatter": Domain(
        same_dtype("self", "src"),
        arranged("a slice", selected, "self", "src"),
        self=SOME,
        src=ANY,
        dim=Axis("self"),
        index=Static(-3, 3),
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
    "aten::soft_margin_loss": Domain(  # of halves, eager's exponentials overflow on a CPU, and not on a GPU
        same_dtype("self", "target"),
        same_shape("self", "target"),
        self=Tensor(FLOATS[:1], rank=(0, 4), values=(-8, 8)),
        target=Tensor(FLOATS[:1], rank=(0, 4), values=(-8, 8)),
        reduction=Only(0, 1, 2),
    ),
    "aten::sort": Domain(self=Tensor(ALL, rank=(0, 4)), dim=Axis("self"), descending=YES_NO),
    "aten::sort.stable": Domain(self=Tensor(ALL, rank=(0, 4)), stable=Only(True), dim=Axis("self"), descending=YES_NO),
    "aten::take": Domain(
        index_into("index", "self", 0), self=Tensor(rank=(1, 1), zero_size=False), index=Tensor(INTS[1:], rank=(0, 3))
    ),
    **{
        f"aten::{name}": Domain(
            arranged("windows", unfolded, "self"), self=SOME, dimension=Axis("self"), size=Static(1), step=Static(1)
        )
        for name in ("unfold", "unfold_copy")
    },
    "aten::var.dim": Domain(
        self=Tensor(FLOATS, rank=(0, 4), values=(-1e3, 1e3)),
        dim=ListOf(Axis("self"), shortest=1, longest=1),
        unbiased=YES_NO,
        keepdim=YES_NO,
    ),
}
"""By qualified name."""

_REDUCE = Only("sum", "prod", "mean", "amax", "amin")

LIKE: Mapping[str, tuple[str, Mapping[str, Spec]]] = {
    "aten::clip": ("aten::clamp", {}),
    "aten::scatter_add": ("aten::scatter.src", {}),
    "aten::scatter.reduce": ("aten::scatter.src", {"reduce": Only("add", "multiply")}),
    "aten::scatter_reduce.two": ("aten::scatter.src", {"reduce": _REDUCE, "include_self": YES_NO}),
    "aten::scatter.value_reduce": ("aten::scatter.value", {"reduce": Only("add", "multiply")}),
    "aten::index_put": ("aten::index_put", {"accumulate": YES_NO}),
    "aten::_unsafe_index.Tensor": ("aten::index.Tensor", {}),
    "aten::_unsafe_index_put": ("aten::index_put", {"accumulate": YES_NO}),
    **{
        f"aten::{name}_copy{overload}": (f"aten::{name}{overload}", {})
        for name, overload in (
            *(("view", ""), ("permute", ""), ("expand", ""), ("slice", ".Tensor"), ("select", ".int")),
            *(("unsqueeze", ""), ("squeeze", ""), ("squeeze", ".dim"), ("squeeze", ".dims"), ("transpose", ".int")),
            *(("t", ""), ("alias", ""), ("detach", ""), ("split", ".Tensor"), ("split_with_sizes", "")),
            *(("unbind", ".int"),),
        )
    },
}
"""Ops whose calls look like those of an op that has a converter, but for some arguments."""

ALIKE = frozenset(
    {
        *("mse_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits"),
        *("aminmax", "count_nonzero", "nansum", "celu", "softshrink", "hardshrink", "threshold", "zero"),
        "log_sigmoid_forward",
    }
)
"""Ops whose tensors have one shape and dtype, though no tag says that they go element by element."""

OF_STORAGE = frozenset({"aten::as_strided", "aten::as_strided_copy", "aten::as_strided_scatter"})
"""Ops that read the storage that a tensor is a view of, which an input's metadata does not tell: contiguous inputs."""
