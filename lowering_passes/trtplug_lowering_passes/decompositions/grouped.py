"""Products of rows with the matrix of their group, as mixtures of experts have them; products in another dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from trtplug_lowering_passes.decompositions.shared import Table, places

aten = torch.ops.aten

MOST_GROUPS = 64
MOST_ELEMENTS = 2**28
"""Of all the rows' products with all the groups' matrices, or of a matrix for each row."""


def grouped_product(input: Tensor, weight: Tensor, offs: Tensor) -> Tensor:
    """``input[offs[g - 1] : offs[g]] @ weight[g]`` for each group, one after the other; rows after the last one are 0.

    Few rows bring the matrix of their group each; many rows meet all of them, and keep their own group's product.

    Args:
        input: [S, K], sorted by group.
        weight: [G, K, N].
        offs: where each group ends, integers [G].

    Returns:
        [S, N].
    """
    rows, (groups, inner, outer) = input.size(0), weight.shape
    if not isinstance(groups, int) or groups > MOST_GROUPS:
        raise NotImplementedError("each row would meet too many groups")
    group = (offs <= places(rows, input).unsqueeze(-1)).sum(-1)
    own = group.clamp(max=groups - 1)
    is_few = isinstance(rows, int) and rows <= groups
    if isinstance(rows, int) and rows * outer * (inner if is_few else groups) > MOST_ELEMENTS:
        raise NotImplementedError("too many products to hold at once")
    if is_few:
        result = torch.bmm(input.unsqueeze(1), torch.index_select(weight, 0, own)).squeeze(1)
    else:
        every = torch.matmul(input.unsqueeze(0), weight)
        result = torch.gather(every, 0, own.reshape(1, -1, 1).expand(1, rows, outer)).squeeze(0)
    return torch.where((group < groups).unsqueeze(-1), result, 0.0)


def grouped_mm(
    self: Tensor,
    mat2: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    if bias is not None or (self.dim(), mat2.dim()) not in ((2, 3), (3, 3)):
        raise NotImplementedError("only rows in groups, and groups of as many rows")
    result = torch.bmm(self, mat2) if offs is None else grouped_product(self, mat2, offs)
    return result if out_dtype is None else result.to(out_dtype)


# --- in another dtype -------------------------------------------------------------------------------------------------


def product(self: Tensor, mat2: Tensor, out_dtype: torch.dtype) -> Tensor:
    """Of matrices of halves, or of batches of them, summed and left in float32."""
    return torch.matmul(self.to(out_dtype), mat2.to(out_dtype))


def product_and_sum(
    self: Tensor, mat1: Tensor, mat2: Tensor, out_dtype: torch.dtype, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    add = torch.addmm if mat1.dim() == 2 else torch.baddbmm
    return add(self.to(out_dtype), mat1.to(out_dtype), mat2.to(out_dtype), beta=beta, alpha=alpha)


TABLE: Table = {
    aten._grouped_mm.default: grouped_mm,
    aten.mm.dtype: product,
    aten.bmm.dtype: product,
    aten.addmm.dtype: product_and_sum,
    aten.baddbmm.dtype: product_and_sum,
}
