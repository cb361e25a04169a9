"""Distances between rows, bags of embeddings, products and variances, and sliding blocks put back together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table, least, places, widened

aten = torch.ops.aten


def cdist(x1: Tensor, x2: Tensor, p: float, compute_mode: int | None = None) -> Tensor:
    """The p-norm of each row's difference from each other row, [..., P, M] and [..., R, M] to [..., P, R]."""
    return _norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p)


def _norm(difference: Tensor, p: float) -> Tensor:
    """Along the last axis; of p = 0 the number of elements that are not 0, or nan where one is."""
    if p == 0:
        return difference.abs().ceil().clamp(max=1).sum(-1)
    norm: Tensor = torch.linalg.vector_norm(difference, p, -1)
    return norm


def pdist(self: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm of the difference of each pair of rows, [N, M] to [N (N - 1) / 2]."""
    if not isinstance(self.size(0), int):
        raise NotImplementedError("pairs of rows whose number is not known")
    one, two = torch.triu_indices(self.size(0), self.size(0), 1, device=self.device).unbind(0)
    difference = torch.index_select(self, 0, one) - torch.index_select(self, 0, two)
    return _norm(difference, p)


def embedding_renorm(self: Tensor, indices: Tensor, max_norm: float, norm_type: float) -> Tensor:
    """The rows that are looked up, at most so long."""
    seen = (indices.reshape(-1, 1) == places(self.size(0), indices)).any(0).unsqueeze(1)
    length = torch.linalg.vector_norm(self, norm_type, 1, keepdim=True)
    return torch.where(seen & (length > max_norm), self * (max_norm / (length + 1e-7)), self)


def embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums, means or maxima of the rows in each bag: each bag compares its bounds with every place of the indices.

    The other results are eager's on a CPU: the bag of each index (none for plain sums), how many rows each bag has (0
    for sums), and for maxima the row that each came from.
    """
    place = places(indices.size(0), indices)
    starts = offsets[:-1] if include_last_offset else offsets
    ends = offsets[1:] if include_last_offset else torch.cat([offsets[1:], offsets.new_full((1,), indices.size(0))])
    inside = (place >= starts.unsqueeze(1)) & (place < ends.unsqueeze(1))
    bag = inside.to(torch.int64).argmax(0).to(indices.dtype)
    if padding_idx >= 0:
        inside = inside & (indices != padding_idx)
    rows = widened(torch.index_select(weight, 0, indices))
    if per_sample_weights is not None:
        rows = rows * widened(per_sample_weights).unsqueeze(1)
    count, member = inside.sum(1), inside.unsqueeze(-1)
    size = source = count.to(indices.dtype)
    if mode == 2:
        chosen = torch.where(member, rows, torch.full_like(rows, least(rows.dtype)))
        some = (count > 0).unsqueeze(1)
        result = torch.where(some, chosen.amax(1), 0.0)
        first = chosen.argmax(1)
        source = torch.index_select(indices, 0, first.reshape(-1)).reshape(first.shape)
        source = torch.where(some, source, torch.zeros_like(source))
    else:
        result = torch.where(member, rows, 0.0).sum(1)
        result = result / count.clamp(min=1).unsqueeze(1) if mode == 1 else result
    if mode == 0:
        size = source = torch.zeros_like(size)
        bag = bag if padding_idx >= 0 else bag[:0]
    return result.to(weight.dtype), bag, size, source


def addmv(self: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = torch.mv(mat, vec) * alpha
    return product if beta == 0 else self * beta + product


def addbmm(self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = torch.bmm(batch1, batch2).sum(0, dtype=batch1.dtype) * alpha
    return product if beta == 0 else self * beta + product


def fold(
    self: Tensor,
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Tensor:
    """Each element of the kernel lays its values over the output, stride apart; what lands together adds up."""
    x = self if self.dim() == 3 else self.unsqueeze(0)
    padded = [size + 2 * pad for size, pad in zip(output_size, padding, strict=True)]
    blocks = [
        (whole - d * (k - 1) - 1) // s + 1 for whole, d, k, s in zip(padded, dilation, kernel_size, stride, strict=True)
    ]
    columns = x.reshape(x.size(0), -1, *kernel_size, *blocks)
    total: Tensor | None = None
    for row in range(kernel_size[0]):
        for column in range(kernel_size[1]):
            laid = columns[:, :, row, column]
            for axis, at in ((-2, row), (-1, column)):
                laid = _apart(laid, axis, stride[axis], at * dilation[axis], padded[axis])
            total = laid if total is None else total + laid
    assert total is not None
    for axis in (-2, -1):
        total = total.narrow(axis, padding[axis], output_size[axis])
    return total if self.dim() == 3 else total.squeeze(0)


def _apart(x: Tensor, axis: int, step: int, start: int, whole: int) -> Tensor:
    """Elements `step` apart from `start` on, zeros between them, `whole` in all."""
    x = x.movedim(axis, -1)
    if step > 1:
        x = torch.constant_pad_nd(x.unsqueeze(-1), [0, step - 1]).flatten(-2)
        x = x.narrow(-1, 0, x.size(-1) - step + 1)
    return torch.constant_pad_nd(x, [start, whole - start - x.size(-1)]).movedim(-1, axis)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input1ᵀ weight[o] input2 + bias[o], for each o: [..., I] and [..., J] with [O, I, J] to [..., O]."""
    product = torch.einsum("...i,oij,...j->...o", input1, weight, input2)
    return product if bias is None else product + bias


def variance(self: Tensor, dim: Sequence[int] | None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    return aten.var.correction(self, dim, correction=int(unbiased), keepdim=keepdim)  # type: ignore[no-any-return]


def variance_of_all(self: Tensor, unbiased: bool = True) -> Tensor:
    return aten.var.correction(self, correction=int(unbiased))  # type: ignore[no-any-return]


TABLE: Table = {
    aten.embedding_renorm.default: embedding_renorm,
    aten.bilinear.default: bilinear,
    aten.var.default: variance_of_all,
    aten.var.dim: variance,
    aten._cdist_forward.default: cdist,
    aten._pdist_forward.default: pdist,
    aten._embedding_bag.default: embedding_bag,
    aten._embedding_bag_forward_only.default: embedding_bag,
    aten.addmv.default: addmv,
    aten.addbmm.default: addbmm,
    aten.col2im.default: fold,
}
