"""Calls that eager takes, for ops whose schemas do not say enough, by qualified name; one family a module."""

from __future__ import annotations

from collections.abc import Mapping

from trtplug.testing.arrangements import YES_NO
from trtplug.testing.descriptions import (
    creation,
    losses,
    networks,
    places,
    pointwise,
    products,
    reductions,
    shuffled,
    windows,
)
from trtplug_registry import FLOATS, Domain, Only, Spec, Tensor

_FAMILIES = (creation, losses, networks, places, pointwise, products, reductions, shuffled, windows)

DESCRIPTIONS: Mapping[str, Domain] = {name: domain for family in _FAMILIES for name, domain in family.TABLE.items()}
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
    "aten::_reshape_copy": ("aten::view", {}),
    "aten::native_layer_norm": (  # beside an infinity, eager's mean is nan: it sums differences from the mean so far
        "aten::native_layer_norm",
        {"input": Tensor(FLOATS, rank=(1, 5), values=(-1e3, 1e3))},
    ),
    "aten::std_mean.correction": ("aten::var_mean.correction", {}),
    "aten::unsafe_split_with_sizes": ("aten::split_with_sizes", {}),
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

_NO_KERNEL = "eager has no kernel for it on a CPU"
_ANYTHING = "what is in an empty tensor, eager leaves open"

UNDESCRIBED: Mapping[str, str] = {
    **dict.fromkeys(("aten::mm.dtype", "aten::bmm.dtype", "aten::addmm.dtype", "aten::cudnn_batch_norm"), _NO_KERNEL),
    "aten::baddbmm.dtype": f"{_NO_KERNEL}, and Torch's metadata of it fails",
    **dict.fromkeys(
        (f"aten::{name}" for name in ("empty.memory_format", "empty_like", "empty_permuted", "empty_strided")),
        _ANYTHING,
    ),
    "aten::new_empty": _ANYTHING,
}
"""Ops that are decomposed and cannot be compared with eager, and why."""

OF_STORAGE = frozenset({"aten::as_strided", "aten::as_strided_copy", "aten::as_strided_scatter"})
"""Ops that read the storage that a tensor is a view of, which an input's metadata does not tell: contiguous inputs."""
