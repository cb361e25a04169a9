"""Non-maximum suppression."""

from __future__ import annotations

import torch
from torch import Tensor

from trtplug.reference.semantics.checks import ints


def _corners(boxes: Tensor, centred: bool) -> Tensor:
    """Boxes [n, 4] as two opposite corners, lower first; centred boxes are (x, y, width, height)."""
    if centred:
        middle, half = boxes[:, :2], boxes[:, 2:] / 2
        return torch.cat([middle - half, middle + half], 1)
    first, second = boxes[:, :2], boxes[:, 2:]
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], 1)


def _overlap(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of a box [4] with others [n, 4]."""
    size = torch.clamp(torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2]), min=0)
    common = size.prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1)
    return common / (areas + (box[2:] - box[:2]).prod() - common)


def _survivors(boxes: Tensor, scores: Tensor, most: int, overlap: float, least: float) -> list[int]:
    """The boxes kept, best first: scores above `least`, overlaps with better ones at most `overlap`."""
    order = torch.sort(scores, descending=True, stable=True).indices
    waiting = [int(i) for i in order if float(scores[i]) > least]
    kept: list[int] = []
    while waiting and len(kept) < most:
        best, *rest = waiting
        kept.append(best)
        close = _overlap(boxes[best], boxes[rest]).tolist() if rest else []
        waiting = [i for i, shared in zip(rest, close) if shared <= overlap]
    return kept


def non_maximum_suppression(
    boxes: Tensor,
    scores: Tensor,
    most: list[int] | Tensor,
    overlap: Tensor | None,
    least: Tensor | None,
    centred: bool,
    limit: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """NMS within each batch item and class.

    Where:
        boxes: [N, B, 4] for all classes, or [N, B, C, 4]; scores: [N, B, C].
        most: boxes kept per item and class; overlap, least: thresholds (0-d, 0 where None); limit: candidates seen.

    Returns:
        (item, class, box) triples in `dtype` [kept, 3], by item, then by falling score; and their number, int32 0-d.
    """
    shared, floor = (0.0 if t is None else float(t) for t in (overlap, least))
    found: list[tuple[int, float, int, int]] = []
    for item in range(scores.shape[0]):
        for kind in range(scores.shape[2]):
            mine = boxes[item] if boxes.dim() == 3 else boxes[item, :, kind]
            points = scores[item, :, kind].float()
            kept = _survivors(_corners(mine.float(), centred), points, min(ints(most)[0], limit), shared, floor)
            found += [(item, -float(points[box]), kind, box) for box in kept]
    triples = [[item, kind, box] for item, _, kind, box in sorted(found, key=lambda row: row[:2])]
    result = torch.tensor(triples, dtype=dtype, device=scores.device).reshape(-1, 3)
    return result, torch.tensor(len(triples), dtype=torch.int32, device=scores.device)
