"""``linspace`` and ``logspace`` between elements of tensors: Torch's own decompositions ask for their values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table

aten = torch.ops.aten


def linspace(
    start: Any,
    end: Any,
    steps: int,
    *,
    dtype: torch.dtype | None = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
) -> Tensor:
    """From both ends at once, as eager does: the last element is the end itself."""
    made = dtype or torch.get_default_dtype()
    if not made.is_floating_point:
        raise NotImplementedError("eager cuts both ends off before it divides")
    like = start if isinstance(start, Tensor) else end
    start, end = (_number(side, like) for side in (start, end))
    count = torch.arange(steps, dtype=torch.float32, device=like.device)
    step = (end - start) / max(steps - 1, 1)
    return torch.where(count < steps / 2, start + step * count, end - step * (steps - 1 - count)).to(made)


def logspace(
    start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: torch.dtype | None = None, **where: Any
) -> Tensor:
    made = dtype or torch.get_default_dtype()
    return torch.pow(base, linspace(start, end, steps, dtype=torch.float32 if made.is_floating_point else made)).to(
        made
    )


def _number(side: Any, like: Tensor) -> Tensor:
    if isinstance(side, Tensor):
        return side.to(torch.float32)
    return torch.scalar_tensor(side, dtype=torch.float32, device=like.device)


_OF_TENSORS = ("Scalar_Tensor", "Tensor_Scalar", "Tensor_Tensor")

TABLE: Table = {
    getattr(packet, overload): function
    for packet, function in ((aten.linspace, linspace), (aten.logspace, logspace))
    for overload in _OF_TENSORS
}
