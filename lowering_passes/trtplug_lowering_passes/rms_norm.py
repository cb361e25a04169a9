"""Root-mean-square normalization that is written out becomes one op."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._nodes import (
    argument,
    calls,
    constant_of,
    erase_unused,
    is_cast,
    number,
    only_user,
    replace,
    tensor_of,
)
from trtplug_registry import applied, decline, lowering_pass

aten = torch.ops.aten

_HALVES = (torch.float16, torch.bfloat16)


_ROOTS = frozenset({aten.rsqrt.default, aten.sqrt.default})


@lowering_pass(
    "rms-norm",
    ops=_ROOTS | {aten.pow.Tensor_Scalar},
    phase="early",
    after=["constant-folding-early"],
    before=["precision", "dead-code-early"],
)
def recognise_rms_norm(graph_module: fx.GraphModule) -> bool:
    """Writes ``x * rsqrt(mean(x²) + eps) * weight`` as ``rms_norm``.

        x ─┬─ pow(2) ─ mean(-1) ─ add(eps) ─ rsqrt ─ mul ─ mul(weight) ─ y    →    x ─ rms_norm(weight, eps) ─ y
           └─────────────────────────────────────────┘

    Also with a root that divides, and of halves that are widened before and narrowed again before the weight or after
    it. Results differ by rounding; of halves, the op rounds once, at its end. Declines where a step is read elsewhere,
    where the mean is not over the last axes or their sizes vary, and where halves are squared as they are: a square
    over 65504 is infinite then, and the result 0.
    """
    changed = False
    for node in calls(graph_module.graph):
        if node.target in _ROOTS or (node.target is aten.pow.Tensor_Scalar and node.args[1] in (0.5, -0.5)):
            changed |= _recognise(graph_module, node)
    return changed


def _recognise(graph_module: fx.GraphModule, root: fx.Node) -> bool:
    found = _mean_square(graph_module, root.args[0])
    scaled = only_user(root)
    if found is None or scaled is None:
        return False
    squared, sizes, eps = found
    given = _scaled(root, scaled)
    if given is None or not (given is squared or (is_cast(squared) and squared.args[0] is given)):
        return False
    source, end = _dtypes(given, squared, scaled)
    if source is None:
        decline(graph_module, "rms-norm", "halves are squared as they are, which overflows")
        return False
    weight, end = _weight(end, sizes)
    with end.graph.inserting_before(end):
        new = end.graph.call_function(aten.rms_norm.default, (source, list(sizes), weight, eps))
    new.meta = dict(end.meta)
    applied(graph_module, "rms-norm")
    sources = end.all_input_nodes
    replace(end, new)
    erase_unused(*sources)
    return True


def _mean_square(graph_module: fx.GraphModule, node: Any) -> tuple[fx.Node, tuple[int, ...], float] | None:
    """For mean(x²) + eps: x, the sizes of the axes that the mean is over, and eps."""
    if not isinstance(node, fx.Node) or node.target not in (aten.add.Tensor, aten.add.Scalar) or not only_user(node):
        return None
    mean, offset = node.args[:2]
    if not isinstance(mean, fx.Node) or argument(node, "alpha") != 1:
        return None
    constant = constant_of(graph_module, offset)
    eps = float(constant) if constant is not None and constant.dim() == 0 else number(offset)
    if eps is None or mean.target is not aten.mean.dim or not only_user(mean) or argument(mean, "keepdim") is not True:
        return None
    square = mean.args[0]
    if not isinstance(square, fx.Node) or not only_user(square) or argument(mean, "dtype") is not None:
        return None
    is_square = (
        (square.target is aten.pow.Tensor_Scalar and square.args[1] == 2)
        or square.target is aten.square.default
        or (square.target is aten.mul.Tensor and square.args[0] is square.args[1])
    )
    base = square.args[0] if is_square else None
    tensor = tensor_of(base)
    if tensor is None or not isinstance(base, fx.Node) or not tensor.dtype.is_floating_point:
        return None
    rank, dims = tensor.dim(), argument(mean, "dim") or []
    axes = sorted(axis % rank for axis in dims)
    sizes = tuple(tensor.shape[axis] for axis in axes)
    if not axes or axes != list(range(rank - len(axes), rank)) or not all(type(size) is int for size in sizes):
        return None
    return base, sizes, eps


def _scaled(root: fx.Node, scaled: fx.Node) -> fx.Node | None:
    """What a node multiplies with a reciprocal root, or divides by a root."""
    inverse = root.target is aten.rsqrt.default or (root.target is aten.pow.Tensor_Scalar and root.args[1] == -0.5)
    if inverse and scaled.target is aten.mul.Tensor:
        others = [operand for operand in scaled.args if operand is not root]
        return others[0] if len(others) == 1 and isinstance(others[0], fx.Node) else None
    if not inverse and scaled.target is aten.div.Tensor and scaled.args[1] is root:
        return scaled.args[0] if isinstance(scaled.args[0], fx.Node) else None
    return None


def _dtypes(given: fx.Node, squared: fx.Node, scaled: fx.Node) -> tuple[fx.Node | None, fx.Node]:
    """What to normalize (None: nothing can be), and the last node of that, before the weight."""
    narrowed = only_user(scaled)
    narrow: Any = squared.args[0] if is_cast(squared) else None
    widened = _dtype(narrow) in _HALVES and _dtype(squared) == torch.float32
    if widened and narrowed is not None and is_cast(narrowed) and _dtype(narrow) == _dtype(narrowed):
        return narrow, narrowed
    if _dtype(squared) in _HALVES:
        return None, scaled
    return squared, scaled


def _dtype(node: Any) -> Any:
    tensor = tensor_of(node)
    return None if tensor is None else tensor.dtype


def _weight(end: fx.Node, sizes: tuple[int, ...]) -> tuple[fx.Node | None, fx.Node]:
    """The weight that the result is multiplied by next, and the node that does."""
    user = only_user(end)
    if user is None or user.target is not aten.mul.Tensor or _dtype(user) != _dtype(end):
        return None, end
    others = [operand for operand in user.args if operand is not end]
    weight = tensor_of(others[0]) if len(others) == 1 else None
    if weight is None or tuple(weight.shape) != sizes or weight.dtype != _dtype(end):
        return None, end
    return others[0], user  # type: ignore[return-value]  # it has a tensor
