"""Losses of which Torch's own decomposition says something else than eager."""

from __future__ import annotations

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table, places

aten = torch.ops.aten


def multilabel_margin_loss(self: Tensor, target: Tensor, reduction: int) -> tuple[Tensor, Tensor]:
    """Of each row's classes up to the first -1, how far other scores come within 1 of theirs; which are its classes.

    Torch's decomposition counts a row's places from the -1 on as if they named class 0.
    """
    scores, classes = torch.atleast_2d(self), torch.atleast_2d(target)
    count = scores.size(1)
    place = places(count, classes)
    counts = place < torch.where(classes == -1, place, count).amin(-1, keepdim=True)
    own = (torch.where(counts, classes, -1).unsqueeze(-1) == place).any(1)
    chosen = torch.gather(scores, 1, torch.where(counts, classes, 0))
    loss = (1 - chosen.unsqueeze(-1) + scores.unsqueeze(1)).clamp(min=0) / count
    loss = torch.where(counts.unsqueeze(-1) & ~own.unsqueeze(1), loss, 0.0).sum((1, 2))
    results = (loss.reshape(target.shape[:-1]), loss.mean(), loss.sum())
    return results[reduction], own.to(self.dtype).reshape(target.shape)


TABLE: Table = {aten.multilabel_margin_loss_forward.default: multilabel_margin_loss}
