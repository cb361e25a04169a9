"""What the passes that fold factors into weights share: linear maps with constant weights."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import fx

from trtplug_lowering_passes._nodes import (
    argument,
    constant_of,
    folded_from,
    new_constant,
    only_user,
    positions,
    tensor_of,
    with_arguments,
)

aten = torch.ops.aten

CONVOLUTIONS = frozenset(
    {
        *(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default),
        *(aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding),
        aten.convolution.default,
    }
)
DECONVOLUTIONS = frozenset({aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input})
LINEAR_MAPS = CONVOLUTIONS | DECONVOLUTIONS | {aten.linear.default}

ROUNDED = "halves would be rounded a second time"


@dataclasses.dataclass(frozen=True)
class LinearMap:
    """A call of a convolution or ``linear`` whose weight is a constant that nothing else reads.

    Attributes:
        node: the call.
        weight: [out, in / groups, …], or [in, out / groups, …] where `transposed`.
        bias: [out], or None.
    """

    node: fx.Node
    weight: torch.Tensor
    bias: torch.Tensor | None
    transposed: bool
    groups: int

    @property
    def outputs(self) -> int:
        """How many channels (of ``linear``: features) come out."""
        return self.weight.shape[1] * self.groups if self.transposed else self.weight.shape[0]

    def scaled(self, factor: torch.Tensor) -> torch.Tensor:
        """The weight with each output channel times its factor: float32[out], or of one element."""
        shape = [1] * self.weight.dim()
        if not self.transposed:
            return torch.mul(self.weight, factor.view(-1, *shape[1:]))
        grouped: torch.Tensor = self.weight.unflatten(0, (self.groups, -1))  # [groups, in / groups, out / groups, …]
        wide = factor.expand(self.outputs) if factor.numel() == 1 else factor
        return (grouped * wide.view(self.groups, 1, -1, *shape[2:])).flatten(0, 1)

    def by_output(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight like this one's as a matrix with a row for each output channel."""
        if not self.transposed:
            return weight.flatten(1)
        grouped: torch.Tensor = weight.unflatten(0, (self.groups, -1))
        return grouped.transpose(1, 2).flatten(0, 1).flatten(1)


def linear_map(graph_module: fx.GraphModule, node: Any) -> LinearMap | str:
    """A call's weights, where they can be changed; otherwise why not, or "" where it is no call of a linear map."""
    if not isinstance(node, fx.Node) or node.target not in LINEAR_MAPS:
        return ""
    weight, bias = argument(node, "weight"), argument(node, "bias")
    value, offset = constant_of(graph_module, weight), constant_of(graph_module, bias)
    if value is None or (bias is not None and offset is None):
        return "the weights are no constants"
    if only_user(weight) is None or argument(node, "input") is weight:
        return "the weights are read elsewhere too, and would be held twice"
    if node.target is aten.linear.default and value.dim() != 2:
        return ""
    transposed = node.target in DECONVOLUTIONS
    if node.target is aten.convolution.default:
        transposed = bool(argument(node, "transposed"))
    groups = argument(node, "groups") if "groups" in positions(node.target) else 1
    return LinearMap(node, value, offset, transposed, groups)


def replace_weights(
    graph_module: fx.GraphModule,
    node: fx.Node,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    *others: Any,
) -> list[fx.Node]:
    """Gives a call another weight or bias (None keeps what it has). Returns the constants that it used before.

    Args:
        others: constants besides the old weights that the new ones were computed from.
    """
    old = {"weight": argument(node, "weight"), "bias": argument(node, "bias")}
    new = {}
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            stem = str((old[name] or old["weight"]).target).replace(".", "_")
            sources = folded_from(old[name], *others) | (folded_from(old["weight"]) if weight is not None else set())
            new[name] = new_constant(graph_module, node, f"folded_{stem.removeprefix('folded_')}", value, sources)
    set_arguments(node, **new)
    return [old[name] for name in new if old[name] is not None]


def set_arguments(node: fx.Node, **new: Any) -> None:
    """Sets arguments by their schema's names, also those that were left out."""
    with_arguments(node, lambda name, value: new.pop(name, value))
    node.kwargs = {**node.kwargs, **new}


def all_finite(*tensors: torch.Tensor | None) -> bool:
    """Reads the tensors once; ``isfinite`` makes a copy and takes ten times as long."""
    return all(
        math.isfinite(bound) for t in tensors if t is not None and t.numel() for bound in map(float, t.aminmax())
    )


def is_exact(factor: torch.Tensor) -> bool:
    """Whether each factor is a power of two, of a size that leaves usual numbers usual: no product is rounded."""
    mantissa, exponent = torch.frexp(factor.double().abs())
    return bool(((mantissa == 0.5) & (exponent.abs() <= 8)).all())


def channel_axis(node: fx.Node) -> int:
    """Which axis of a linear map's result its output channels are, counted from the end."""
    if node.target is aten.linear.default:
        return 1
    weight = tensor_of(argument(node, "weight"))
    assert weight is not None
    return weight.dim() - 1
