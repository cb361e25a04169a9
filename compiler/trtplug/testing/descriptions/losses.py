"""Of losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtplug.testing.arrangements import arranged, shaped
from trtplug_registry import FLOATS, INTS, Choose, Domain, Only, Optional, Static, Tensor, same_dtype, same_shape

_REDUCTION = Only(0, 1, 2)
_SCORES = Tensor(FLOATS[:1], rank=(1, 2), zero_size=False, values=(-1e2, 1e2))
_CLASS = Tensor(INTS[1:], rank=(0, 3))
_SHARE = Tensor(FLOATS[:1], rank=(0, 3), values=(0, 1))


def _one_class_each(call: dict[str, Any], choose: Choose) -> None:
    """A class for each row of scores (or pixel of an image), and a weight for each class."""
    scores = call["self"].shape
    axis = 1 if len(scores) > 1 else 0
    call["target"] = shaped(call["target"], *scores[:axis], *scores[axis + 1 :])._replace(values=(0, scores[axis] - 1))
    if call.get("weight") is not None:
        call["weight"] = shaped(call["weight"], scores[axis])


def _some_classes(call: dict[str, Any], choose: Choose) -> None:
    """Classes in a row as long as the scores; -1 ends it."""
    scores = call["self"].shape
    call["target"] = shaped(call["target"], *scores)._replace(values=(-1, scores[-1] - 1))


TABLE: Mapping[str, Domain] = {
    "aten::binary_cross_entropy": Domain(
        same_dtype("self", "target", "weight"),
        same_shape("self", "target", "weight"),
        self=_SHARE,
        target=_SHARE,
        weight=Optional(_SHARE),
        reduction=_REDUCTION,
    ),
    "aten::multi_margin_loss": Domain(
        same_dtype("self", "weight"),
        arranged("a class each", _one_class_each, "self", "target", "weight"),
        self=_SCORES,
        target=_CLASS,
        p=Only(1, 2),
        margin=Static(0, 4),
        weight=Optional(Tensor(FLOATS[:1], rank=(1, 1), values=(-4, 4))),
        reduction=_REDUCTION,
    ),
    "aten::multilabel_margin_loss_forward": Domain(
        arranged("classes", _some_classes, "self", "target"), self=_SCORES, target=_CLASS, reduction=_REDUCTION
    ),
    **{
        f"aten::{name}": Domain(
            same_dtype("self", "weight"),
            arranged("a class each", _one_class_each, "self", "target", "weight"),
            self=Tensor(FLOATS, rank=rank, zero_size=False, values=(-1e2, 1e2)),
            target=_CLASS,
            weight=Optional(Tensor(FLOATS, rank=(1, 1), values=(0.25, 4))),
            reduction=_REDUCTION,
            ignore_index=Only(-100, 1),
        )
        for name, rank in {"nll_loss_forward": (1, 2), "nll_loss2d_forward": (4, 4)}.items()
    },
    "aten::soft_margin_loss": Domain(  # of halves, eager's exponentials overflow on a CPU, and not on a GPU
        same_dtype("self", "target"),
        same_shape("self", "target"),
        self=Tensor(FLOATS[:1], rank=(0, 4), values=(-8, 8)),
        target=Tensor(FLOATS[:1], rank=(0, 4), values=(-8, 8)),
        reduction=_REDUCTION,
    ),
}
