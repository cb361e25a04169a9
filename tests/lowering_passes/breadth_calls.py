"""Calls of ops beyond core ATen, as text, one a line: what they are given, `operands` says.

Each is tried in every usual dtype that eager takes it in.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch

INTS = (torch.int32, torch.int64)

COMPOSITES = """
f.scaled_dot_product_attention(q, k, k)
f.scaled_dot_product_attention(q, k, k, scale=0.3)
f.scaled_dot_product_attention(q, k, k, is_causal=True)
f.scaled_dot_product_attention(q, k, k, attn_mask=mask[:, :3])
f.scaled_dot_product_attention(q, k, k, attn_mask=x[:, :3])
f.scaled_dot_product_attention(q, k[:, :1], k[:, :1], enable_gqa=True)
f.layer_norm(x, (4,), v, v, 1e-3)
f.group_norm(image, 1)
f.instance_norm(image, eps=1e-3)
f.batch_norm(row, x[0, :2], y[0, :2].abs() + 1, x[1, :2], x[2, :2])
f.rms_norm(x, (4,), v, 1e-3)
f.local_response_norm(image, 2)
f.normalize(x, dim=1)
f.linear(x, y, x[:, 0])
f.bilinear(x, y, square[None], v[:1])
f.conv1d(row, kernel1)
f.conv1d(row, kernel1, stride=2, padding=1, dilation=1)
f.conv1d(row, kernel1, padding="same")
f.conv1d(row, kernel1, padding="valid", dilation=2)
f.conv2d(image, kernel2, padding=(1, 0), groups=1)
f.conv2d(image, kernel2[:, :1], groups=2, padding="same", dilation=2)
f.conv3d(volume, kernel3, padding="same")
f.conv_transpose1d(row, kernel1, stride=2, padding=1, output_padding=1)
f.conv_transpose2d(image, kernel2, stride=2, groups=1, dilation=2)
f.conv_transpose3d(volume, kernel3, padding=1)
f.avg_pool1d(row, 3, 2, ceil_mode=True)
f.avg_pool2d(image, 3, 2, 1, True, False)
f.avg_pool2d(image, (3, 2), 1, (1, 0), False, True, 5)
f.avg_pool3d(volume, 2, 1, 1)
f.max_pool1d(row, 3, 2, 1, ceil_mode=True)
f.max_pool1d(row, 2, return_indices=True)
f.max_pool2d(image, 3, 2, 1, 2)
f.max_pool2d(image, 3, 2, 1, ceil_mode=True, return_indices=True)
f.max_pool3d(volume, 2, 1, return_indices=True)
f.lp_pool1d(row, 2.0, 2)
f.lp_pool2d(image, 2.0, 2, 1)
f.adaptive_avg_pool1d(row, 4)
f.adaptive_avg_pool2d(image, (2, 4))
f.adaptive_avg_pool3d(volume, 2)
f.adaptive_max_pool1d(row, 4, return_indices=True)
f.adaptive_max_pool2d(image, (2, 4), return_indices=True)
f.adaptive_max_pool3d(volume, 2, return_indices=True)
f.max_unpool1d(*f.max_pool1d(row, 2, return_indices=True), 2)
f.max_unpool2d(*f.max_pool2d(image, 2, return_indices=True), 2, output_size=(5, 6))
f.interpolate(row, 9)
f.interpolate(row, 9, mode="linear")
f.interpolate(row, scale_factor=1.7, mode="linear", align_corners=True)
f.interpolate(image, scale_factor=(1.3, 2.0))
f.interpolate(image, (3, 9), mode="nearest-exact")
f.interpolate(image, (3, 9), mode="bilinear")
f.interpolate(image, scale_factor=1.7, mode="bilinear", align_corners=True)
f.interpolate(image, scale_factor=1.7, mode="bilinear", recompute_scale_factor=True)
f.interpolate(image, (3, 4), mode="bilinear", antialias=True)
f.interpolate(image, (3, 9), mode="bicubic")
f.interpolate(image, (7, 4), mode="bicubic", align_corners=True)
f.interpolate(image, (3, 4), mode="bicubic", antialias=True)
f.interpolate(image, (3, 4), mode="area")
f.interpolate(volume, (2, 5, 3), mode="trilinear")
f.interpolate(volume, scale_factor=2.0, mode="trilinear", align_corners=True)
f.interpolate(volume, (2, 5, 3), mode="nearest")
f.grid_sample(image, grid, align_corners=False)
f.grid_sample(image, grid, "nearest", "border", True)
f.grid_sample(image, grid, "bicubic", "reflection", False)
f.affine_grid(x.reshape(2, 2, 3), (2, 1, 3, 4), align_corners=False)
f.affine_grid(x.reshape(2, 2, 3), (2, 1, 1, 4), align_corners=True)
f.pad(x, (1, 2, -1, 0), value=1)
f.pad(row, (1, 2), mode="reflect")
f.pad(image, (1, 2, 2, 0), mode="reflect")
f.pad(volume, (1, 2, 0, 1, 1, 0), mode="reflect")
f.pad(row, (1, 2), mode="replicate")
f.pad(image, (1, 2, 2, 0), mode="replicate")
f.pad(volume, (1, 2, 0, 1, 1, 0), mode="replicate")
f.pad(image, (1, 2, 2, 0), mode="circular")
f.pixel_shuffle(x.reshape(1, 4, 1, 3), 2)
f.pixel_unshuffle(image[:, :, :4], 2)
f.channel_shuffle(image, 2)
f.fold(columns, (4, 5), (3, 2), stride=(1, 2), padding=(0, 1), dilation=(1, 2))
f.unfold(image, (2, 3), dilation=1, padding=1, stride=2)
f.embedding(rows, x, padding_idx=0)
f.embedding(rows, x.clone(), max_norm=1.0)
f.embedding_bag(rows, x, torch.tensor([0, 1, 1]), mode="mean")
f.embedding_bag(index, x, mode="max")
f.embedding_bag(index, x, mode="sum", per_sample_weights=y[:2], padding_idx=2)
f.one_hot(rows, 4)
"""

ORDERS = """
torch.topk(x, 2)
torch.topk(x[0, 0], 1)
torch.topk(x, 2, dim=0, largest=False)
torch.topk(x, 2, sorted=False)[0].sum(-1)
torch.sort(x)
torch.sort(x, 0, True)
torch.sort(x, stable=True, descending=True)
torch.argsort(x, 0)
torch.msort(x)
torch.kthvalue(x, 2)
torch.max(x)
torch.max(x, 1)
torch.min(x, 0, True)
torch.median(x)
torch.median(x, 0)
torch.nanmedian(x, 1)
torch.mode(x)
torch.mode(x, 0, True)
torch.argmax(x)
torch.argmax(x, 1)
torch.argmin(x, 0, True)
torch.aminmax(x, dim=0)
torch.quantile(x, 0.3, dim=1)
torch.quantile(x, x[0, :2].abs().clamp(max=1), interpolation="nearest")
torch.nanquantile(x, 0.5, dim=0)
torch.cumsum(x, 1)
torch.cumprod(x, 1)
torch.cummax(x, 1)
torch.cummin(x, 0)
torch.logcumsumexp(x, 1)
torch.cumulative_trapezoid(x)
torch.trapezoid(x, dx=0.5)
torch.diff(x)
torch.searchsorted(torch.sort(x)[0], y)
torch.searchsorted(torch.sort(x)[0], y, side="right", out_int32=True)
torch.bucketize(y, torch.sort(v)[0])
torch.bucketize(y, torch.sort(v)[0], right=True)
torch.searchsorted(torch.sort(v)[0], 1)
torch.bucketize(1, torch.sort(v)[0], right=True)
torch.isin(x, v)
torch.isin(x, y, invert=True)
torch.histc(x, 4, -2, 2)
torch.bincount(rows, minlength=4)
torch.unique_consecutive(x)
torch.nonzero(x)
torch.nonzero_static(x, size=4)
torch.unique(x)
torch.unique(x, dim=0)
torch.masked_select(x, mask)
"""

INDEXING = """
x[rows]
x[:, rows]
x[rows[:2], rows[1:]]
x[None, 1, ..., ::2]
x[rows[0]]
x[:, rows[0] - 3]
x[mask]
x.index_put((rows[:2],), y[:2])
x.index_put((rows[:2], rows[1:]), y[0, :2], accumulate=True)
x.index_put((mask,), y[0, 0])
torch.gather(x, 0, index)
torch.scatter(x, 1, index, y)
torch.scatter(x, 1, index, 2)
torch.scatter(x, 0, index, y, reduce="add")
torch.scatter(x, 0, index, y, reduce="multiply")
torch.scatter_add(x, 0, index, y)
torch.scatter_reduce(x, 0, index, y, "sum", include_self=False)
torch.scatter_reduce(x, 0, index, y, "prod")
torch.scatter_reduce(x, 0, index, y, "mean")
torch.scatter_reduce(x, 1, index, y, "mean", include_self=False)
torch.scatter_reduce(x, 0, index, y, "amax")
torch.scatter_reduce(x, 0, index, y, "amin", include_self=False)
torch.index_reduce(x, 0, rows, y, "mean")
torch.index_select(x, 1, rows)
torch.index_add(x, 0, rows, y, alpha=2)
torch.index_copy(x, 0, rows[:2], y[:2])
torch.index_fill(x, 0, rows[:2], 3)
torch.take(x, index)
torch.take(x, rows[0] - 3)
torch.take_along_dim(x, index, 0)
torch.put(x, index[:1], y[:1])
torch.masked_fill(x, mask, 3)
torch.masked_fill(x, mask, y[0, 0])
torch.masked_scatter(x, mask, y)
torch.where(mask, x, y)
torch.where(mask, x, 2)
torch.where(mask, x, v)
torch.select_scatter(x, y[0], 0, 1)
torch.slice_scatter(x, y[:, :2], 1, 0, 4, 2)
torch.diagonal_scatter(x, y[0, :3])
torch.as_strided_scatter(x, y[:2, :2].contiguous(), (2, 2), (4, 1), 1)
aten._unsafe_index(x, [rows])
aten._unsafe_index_put(x, [rows[:2]], y[:2])
aten._unsafe_masked_index(x, mask[0], [None, rows[:1] + 9], 0)
"""

ALGEBRA = """
torch.einsum("ij,kj->ik", x, y)
torch.einsum("bij,bkj->bik", stack, stack)
torch.einsum("ii->i", square)
torch.mm(x, y.mT)
torch.mv(x, v)
torch.bmm(stack, stack.mT)
torch.matmul(x, v)
torch.matmul(stack, x.mT)
torch.baddbmm(stack[:, :, :3], stack, stack.mT, beta=2, alpha=3)
torch.addbmm(square, stack.mT, stack, beta=2, alpha=3)
torch.addmm(square[:3, :3], x, y.mT, beta=2, alpha=3)
torch.addmv(x[:, 0], x, v, beta=2, alpha=3)
torch.addr(x, x[:, 0], v, beta=2, alpha=3)
torch.addr(x, x[:, 0], v)
torch.outer(v, v)
torch.kron(x, y)
torch.dot(v, v)
torch.vdot(v, v)
torch.inner(x, y)
torch.tensordot(x, y, 2)
aten._grouped_mm(wide[:, 0].bfloat16(), wide.mT.bfloat16(), ends)
torch.chain_matmul(x, y.mT, x)
torch.linalg.multi_dot((x, y.mT, x))
torch.linalg.matrix_power(square, 3)
torch.linalg.cross(x[:, :3], y[:, :3])
torch.linalg.vecdot(x, y)
torch.trace(x)
torch.addcmul(x, x, y, value=2)
torch.addcdiv(x, x, y.abs() + 1, value=2)
torch.lerp(x, y, 0.3)
torch.lerp(x, y, x)
torch.cdist(x, y)
torch.cdist(x, y, p=1.0)
torch.cdist(x, y, p=3.0)
torch.cdist(x, y, p=float("inf"))
torch.pdist(x)
f.pairwise_distance(x, y)
f.cosine_similarity(x, y)
torch.dist(x, y, 3.0)
torch.renorm(x, 2.0, 0, 1.0)
torch.det(square)
torch.linalg.solve(square, square)
torch.vander(v)
torch.block_diag(x, y)
torch.cartesian_prod(v, v)
"""

REDUCTIONS = """
torch.sum(x)
torch.sum(x, 1, dtype=torch.float32)
torch.prod(x, 1)
torch.mean(x, 1)
torch.var(x, 1)
torch.var(x, False)
torch.var(x, 1, correction=0)
torch.std(x)
torch.std(x, (0, 1), correction=0, keepdim=True)
torch.var_mean(x, 1)
torch.std_mean(x, 1)
torch.norm(x)
torch.norm(x, 1, 1)
torch.linalg.norm(x)
torch.linalg.vector_norm(x, 3, 1)
torch.linalg.vector_norm(x, float("inf"))
torch.linalg.vector_norm(x, float("-inf"))
torch.linalg.vector_norm(x, 0)
torch.linalg.matrix_norm(x)
torch.linalg.matrix_norm(x, 1)
torch.linalg.matrix_norm(x, float("inf"))
torch.logsumexp(x, 1)
torch.nansum(x, 1)
torch.nanmean(x, 1)
torch.all(x)
torch.any(x, 1)
torch.all(x, (0, 1))
torch.count_nonzero(x)
torch.count_nonzero(x, 1)
torch.amax(x, (0, 1))
torch.softmax(x, 1)
torch.log_softmax(x, 0)
f.softmin(x, 1)
f.gumbel_softmax(x)
"""

BINARY = """
torch.fmod(x, y)
torch.fmod(x, 3)
torch.fmod(x, 0.3)
torch.fmod(x, 0.5)
torch.remainder(x, y)
torch.remainder(x, 3)
torch.remainder(x, -0.3)
torch.remainder(5, x)
torch.remainder(x, 0.5)
torch.floor_divide(x, y)
torch.floor_divide(x, 3)
aten.floor_divide.Scalar(x, -3)
x // 0.3
7 // x
torch.div(x, y)
torch.divide(x, y)
torch.div(x, y, rounding_mode="trunc")
torch.div(x, y, rounding_mode="floor")
torch.div(x, 3, rounding_mode="floor")
torch.pow(x, y)
torch.pow(x, 2)
torch.pow(x, 3)
torch.pow(x, 0.5)
torch.pow(x, -1.5)
torch.pow(2, x)
torch.pow(2.5, x)
torch.float_power(x, 2)
torch.fmax(x, y)
torch.fmin(x, y)
torch.maximum(x, y)
torch.copysign(x, y)
torch.copysign(x, -1.0)
torch.hypot(x, y)
torch.heaviside(x, y)
torch.xlogy(x, y)
torch.xlogy(x, 2)
torch.xlogy(2, x)
torch.special.xlog1py(x, y)
torch.logaddexp(x, y)
torch.logaddexp2(x, y)
torch.atan2(x, y)
torch.ldexp(x, y)
torch.nextafter(x, y)
torch.gcd(x, y)
torch.lcm(x, y)
torch.bitwise_and(x, y)
torch.bitwise_or(x, y)
torch.bitwise_xor(x, y)
torch.bitwise_and(x, 3)
torch.bitwise_not(x)
x << y.abs()
x >> y.abs()
(x + 0) << 2
(x + 0) >> 1
torch.logical_and(x, y)
torch.logical_or(x, y)
torch.logical_xor(x, y)
torch.logical_not(x)
x == y
x != 2
x < y
x >= 0.5
torch.isclose(x, y)
torch.isclose(x, y, equal_nan=True)
torch.rsub(x, y)
torch.sub(x, y, alpha=2)
torch.add(x, 1.5)
x + mask
x * rows[:, None]
x / rows[:, None]
torch.square(x)
torch.true_divide(x, 3)
torch.dist(x, y)
"""

UNARY = """
torch.abs(x)
torch.neg(x)
torch.positive(x)
torch.sign(x)
torch.sgn(x)
torch.signbit(x)
torch.ceil(x)
torch.floor(x)
torch.round(x)
torch.round(x, decimals=1)
torch.round(x, decimals=-1)
torch.trunc(x)
torch.frac(x)
torch.sqrt(x)
torch.rsqrt(x)
torch.reciprocal(x)
torch.exp(x)
torch.exp2(x)
torch.expm1(x)
torch.log(x)
torch.log2(x)
torch.log10(x)
torch.log1p(x)
torch.logit(x)
torch.logit(x, 0.0078125)
torch.sigmoid(x)
torch.special.expit(x)
f.logsigmoid(x)
torch.sin(x)
torch.cos(x)
torch.tan(x)
torch.asin(x)
torch.acos(x)
torch.atan(x)
torch.sinh(x)
torch.cosh(x)
torch.tanh(x)
torch.asinh(x)
torch.acosh(x)
torch.atanh(x)
torch.sinc(x)
torch.erf(x)
torch.erfc(x)
torch.erfinv(x)
torch.special.erfcx(x)
torch.special.ndtr(x)
torch.special.log_ndtr(x)
torch.special.ndtri(x)
torch.special.entr(x)
torch.special.i0(x)
torch.special.i0e(x)
torch.special.i1(x)
torch.special.i1e(x)
torch.special.bessel_j0(x)
torch.special.bessel_j1(x)
torch.lgamma(x)
torch.digamma(x)
torch.polygamma(1, x)
torch.mvlgamma(x.abs() + 2, 2)
torch.special.zeta(x, 2.0)
torch.igamma(x, y)
torch.nan_to_num(x)
torch.nan_to_num(x, 1.0, 2.0, -3.0)
torch.isnan(x)
torch.isinf(x)
torch.isfinite(x)
torch.isposinf(x)
torch.isneginf(x)
torch.deg2rad(x)
torch.rad2deg(x)
torch.clamp(x, -1, 1)
torch.clamp(x, min=y)
torch.clip(x, max=1)
torch.isreal(x)
torch.real(x)
torch.angle(x)
torch.frexp(x)
f.relu(x)
f.relu6(x)
f.leaky_relu(x, 0.2)
f.prelu(row, v[:2])
f.elu(x, 0.7)
f.selu(x)
f.celu(x, 0.7)
f.gelu(x)
f.gelu(x, approximate="tanh")
f.silu(x)
f.mish(x)
f.hardtanh(x, -0.5, 2)
f.hardsigmoid(x)
f.hardswish(x)
f.hardshrink(x)
f.softshrink(x)
f.tanhshrink(x)
f.softplus(x, 2, 5)
f.softsign(x)
f.threshold(x, 1, 2)
f.glu(x)
f.rrelu(x)
f.dropout(x, training=False)
"""

LOSSES = """
f.l1_loss(x, y)
f.mse_loss(x, y, reduction="sum")
f.smooth_l1_loss(x, y, beta=0.5)
f.huber_loss(x, y, delta=0.5)
f.cross_entropy(x, rows)
f.cross_entropy(x, rows, v, label_smoothing=0.1, ignore_index=2)
f.cross_entropy(x, torch.softmax(y, 1))
f.nll_loss(x, rows)
f.nll_loss(x, rows, v, reduction="none", ignore_index=2)
f.nll_loss(image, image_rows)
f.kl_div(x, y)
f.kl_div(x, y, log_target=True, reduction="batchmean")
f.binary_cross_entropy(torch.sigmoid(x), torch.sigmoid(y))
f.binary_cross_entropy_with_logits(x, y, pos_weight=v)
f.hinge_embedding_loss(x, torch.sign(y))
f.margin_ranking_loss(x, y, torch.sign(y))
f.cosine_embedding_loss(x, y, torch.sign(y[:, 0]))
f.soft_margin_loss(x, torch.sign(y))
f.multi_margin_loss(x, rows)
f.multilabel_margin_loss(x, rows[:, None].expand(3, 4))
f.multilabel_margin_loss(x[:, :3], (rows - 1).expand(3, 3))
f.multilabel_soft_margin_loss(x, torch.sigmoid(y))
f.triplet_margin_loss(x, y, x + y)
f.poisson_nll_loss(x, y)
"""

VIEWS = """
torch.roll(x, (1, -2), (0, 1))
torch.roll(x, 3)
torch.flip(x, (0, 1))
torch.fliplr(x)
torch.rot90(x, 1)
torch.rot90(x, -2)
x.repeat(2, 1, 2)
torch.tile(x, (2,))
torch.repeat_interleave(x, 2, dim=1)
torch.repeat_interleave(x, rows, dim=0, output_size=4)
x.unfold(1, 2, 2)
x.as_strided((2, 3), (4, 1), 1)
x.mT.as_strided((2, 2), (1, 4), 1)
torch.diagonal(x, 1)
torch.diag(v)
torch.diag(x, -1)
torch.diag_embed(x)
torch.diag_embed(x, 1, 0, 2)
torch.diagflat(v)
torch.meshgrid(v, v[:3], indexing="ij")
torch.meshgrid(v, v[:3], indexing="xy")
torch.tensor_split(x, 3, 1)
torch.tensor_split(x, (1, 3), 1)
torch.hsplit(x, 2)
torch.chunk(x, 3, 1)
torch.split(x, (1, 3), 1)
torch.unbind(x)
torch.stack((x, y), 1)
torch.cat((x, y), 1)
torch.hstack((x, y))
torch.dstack((x, y))
torch.vstack((x, y))
torch.column_stack((x, y))
torch.swapaxes(x, 0, 1)
torch.movedim(image, 1, 3)
torch.permute(image, (0, 2, 3, 1))
torch.squeeze(image)
torch.unflatten(x, 1, (2, 2))
torch.flatten(image, 1)
torch.ravel(x)
torch.broadcast_to(v, (3, 4))
torch.broadcast_tensors(x, v)
torch.atleast_3d(x)
torch.narrow(x, 1, 1, 2)
torch.tril(x)
torch.triu(x, 1)
x.mT
x.view_as(y)
x.expand_as(y)
x.type_as(rows)
x.view(torch.float32)
torch.view_as_complex(x.reshape(3, 2, 2))
torch.clone(x)
torch.zeros_like(x)
torch.ones_like(x)
torch.full_like(x, 2)
torch.empty_like(x).shape[0] + v
torch.rand_like(x)
x.new_zeros(3)
x.new_full((3,), 2)
x.new_ones(2)
torch.arange(4, dtype=x.dtype) + v
torch.arange(1, 9, 2) + v
torch.linspace(0, 1, 4) + v
torch.linspace(v[0], v[1], 4, dtype=torch.float32)
torch.logspace(0, x[0, 0].abs() / 4, 4, dtype=torch.float32)
torch.logspace(0, 1, 4) + v
torch.full((4,), 2) + v
torch.eye(4) + v
torch.tril_indices(3, 3) + x[0, 0]
torch.scalar_tensor(3) + v
torch.hann_window(4) + v
torch.hamming_window(4) + v
torch.blackman_window(4) + v
torch.kaiser_window(4) + v
torch.fft.rfft(x)
torch.fft.fft(x)
torch.stft(v, 4, window=torch.ones(4), return_complex=True)
torch.bernoulli(x.abs() * 0)
aten.empty_permuted([3, 4], [1, 0], dtype=x.dtype, device=x.device).fill_(2) + x
aten._is_all_true(x > 0)
torch.view_as_real(torch.view_as_complex(x.reshape(3, 2, 2)) * 2)
aten.view_copy(x, [4, 3])
aten.permute_copy(x, [1, 0])
aten.expand_copy(v, [3, 4])
aten.slice_copy(x, 1, 1, 3)
aten.select_copy(x, 0, 1)
aten.unsqueeze_copy(x, 0)
aten.squeeze_copy(image)
aten.transpose_copy(x, 0, 1)
aten.t_copy(x)
aten.alias_copy(x)
aten.detach_copy(x)
aten.split_copy(x, 2, 1)
aten.split_with_sizes_copy(x, [1, 3], 1)
aten.unbind_copy(x)
aten.diagonal_copy(x)
aten.narrow_copy(x, 1, 1, 2)
aten.unfold_copy(x, 1, 2, 1)
aten.as_strided_copy(x, [2, 2], [4, 1])
aten._reshape_copy(x, [4, 3])
aten.unsafe_split(x, 2, 1)
aten.unsafe_split_with_sizes(x, [1, 3], 1)
aten.unsafe_chunk(x, 2, 1)
aten._unsafe_view(x, [4, 3])
aten.lift_fresh_copy(x)
aten.copy(x, v)
aten.fill(x, 2)
aten._to_copy(x, dtype=torch.float16)
aten.to.dtype(x, torch.int32)
x.float()
x.long()
x.bool()
"""

NETWORKS = """
torch.lstm(stack, (state, state), [*lstm], True, 1, 0.0, False, False, True)
torch.gru(stack, state, [*gru], True, 1, 0.0, False, False, True)
torch.rnn_tanh(stack, state, [*rnn], True, 1, 0.0, False, False, True)
torch.rnn_relu(stack, state, [*rnn], True, 1, 0.0, False, False, False)
torch.lstm_cell(x, (y, y), *lstm)
torch.gru_cell(x, y, *gru)
torch.rnn_tanh_cell(x, y, *rnn)
f.multi_head_attention_forward(stack, stack, stack, 4, 2, *gru[::2], None, None, False, 0.0, square, v, False)
"""

FAMILIES = {
    "composites": COMPOSITES,
    "orders": ORDERS,
    "indexing": INDEXING,
    "algebra": ALGEBRA,
    "reductions": REDUCTIONS,
    "binary": BINARY,
    "unary": UNARY,
    "losses": LOSSES,
    "views": VIEWS,
    "networks": NETWORKS,
}


AFTER_2_11 = ("x[rows[0]]", "x[:, rows[0] - 3]")
AFTER_2_11_ON_A_CPU = ("torch.quantile(", "torch.nanquantile(")
"""How calls begin that `torch.export` of 2.11 refuses."""


def calls(family: str, device: str = "cpu") -> list[str]:
    """Those of a family that this Torch exports, on a device."""
    refused: tuple[str, ...] = ()
    if torch.__version__ < (2, 12):
        refused = AFTER_2_11 + (AFTER_2_11_ON_A_CPU if device == "cpu" else ())
    return [text for text in FAMILIES[family].strip().split("\n") if not text.startswith(refused)]


def operands(dtype: torch.dtype) -> dict[str, object]:
    """What the calls are given, by name; numbers in quarters from -2 to 2, whole ones in integers."""
    random = torch.Generator().manual_seed(7)

    def drawn(*shape: int) -> torch.Tensor:
        whole = torch.randint(-9, 10, shape, generator=random)
        return (whole / 4 if dtype.is_floating_point else whole).to(dtype)

    return {
        "x": drawn(3, 4),
        "y": drawn(3, 4),
        "v": drawn(4),
        "square": drawn(4, 4),
        "stack": drawn(3, 3, 4),
        "wide": drawn(3, 8, 8),
        "ends": torch.tensor([1, 1, 3], dtype=torch.int32),
        "row": drawn(1, 2, 6),
        "image": drawn(1, 2, 5, 6),
        "volume": drawn(1, 2, 3, 4, 4),
        "kernel1": drawn(2, 2, 3),
        "kernel2": drawn(2, 2, 3, 2),
        "kernel3": drawn(2, 2, 2, 3, 2),
        "columns": drawn(1, 12, 6),
        "grid": drawn(1, 2, 3, 2),
        "q": drawn(1, 2, 3, 4),
        "k": drawn(1, 2, 3, 4),
        "state": drawn(1, 3, 4),
        "lstm": (drawn(16, 4), drawn(16, 4), drawn(16), drawn(16)),
        "gru": (drawn(12, 4), drawn(12, 4), drawn(12), drawn(12)),
        "rnn": (drawn(4, 4), drawn(4, 4), drawn(4), drawn(4)),
        "mask": torch.tensor([[True, False, False, True], [False, True, True, False], [True, True, False, False]]),
        "index": torch.tensor([[0, 2, 1, 2], [2, 2, 0, 1]]),
        "rows": torch.tensor([2, 0, 2]),
        "image_rows": torch.arange(30).reshape(1, 5, 6) % 2,
    }


@dataclasses.dataclass(frozen=True)
class Left:
    """Why a call is left to Torch, in whole or in part.

    Attributes:
        because: words of the reason that the report gives.
        dtypes: where; everywhere that eager takes the call, if there are none.
    """

    because: str
    dtypes: tuple[torch.dtype, ...] = ()

    def holds(self, dtype: torch.dtype) -> bool:
        return not self.dtypes or dtype in self.dtypes


_RANDOM = "random generator"
_VALUES = "depends on values"
_COMPLEX = "complex"
_CONVOLVES = Left("TensorRT convolves floats only", INTS)

LEFT: Mapping[str, Left] = {
    # the shape of the result depends on values
    "torch.bincount(rows, minlength=4)": Left(_VALUES),
    "torch.unique_consecutive(x)": Left(_VALUES),
    "torch.nonzero(x)": Left(_VALUES),
    "torch.unique(x)": Left(_VALUES),
    "torch.unique(x, dim=0)": Left(_VALUES),
    "torch.masked_select(x, mask)": Left(_VALUES),
    "x[mask]": Left("only its values tell"),
    # random
    "f.gumbel_softmax(x)": Left(_RANDOM),
    "torch.rand_like(x)": Left(_RANDOM),
    "torch.bernoulli(x.abs() * 0)": Left(_RANDOM),
    # numbers that are not TensorRT's
    "torch.view_as_complex(x.reshape(3, 2, 2))": Left(_COMPLEX),
    "torch.view_as_real(torch.view_as_complex(x.reshape(3, 2, 2)) * 2)": Left(_COMPLEX),
    "torch.fft.rfft(x)": Left(_COMPLEX),
    "torch.fft.fft(x)": Left(_COMPLEX),
    "torch.stft(v, 4, window=torch.ones(4), return_complex=True)": Left(_COMPLEX),
    "torch.float_power(x, 2)": Left("not a type that TensorRT computes with"),
    "x.view(torch.float32)": Left("reinterprets bits", (torch.float16, torch.bfloat16, *INTS, torch.bool)),
    # an order of eager's own
    "torch.topk(x, 2, sorted=False)[0].sum(-1)": Left("the order of Torch's is then its own"),
    # places that eager computes in halves
    **dict.fromkeys(
        (
            "f.grid_sample(image, grid, align_corners=False)",
            'f.grid_sample(image, grid, "nearest", "border", True)',
            'f.grid_sample(image, grid, "bicubic", "reflection", False)',
        ),
        Left("eager computes places in the half type itself", (torch.float16, torch.bfloat16)),
    ),
    "torch.histc(x, 4, -2, 2)": Left("intervals in the half type itself", (torch.float16, torch.bfloat16)),
    # functions and factorizations that nobody has written with layers
    "torch.special.bessel_j0(x)": Left("aten::special_bessel_j0"),
    "torch.special.bessel_j1(x)": Left("aten::special_bessel_j1"),
    "torch.special.zeta(x, 2.0)": Left("aten::special_zeta"),
    "torch.igamma(x, y)": Left("aten::igamma"),
    "torch.det(square)": Left("aten::det"),
    "torch.linalg.solve(square, square)": Left("aten::linalg_solve"),
    # windows over integers
    **dict.fromkeys(
        (call for call in calls("composites") if "f.conv" in call and "_transpose" not in call), _CONVOLVES
    ),
    **{
        f"f.conv_transpose{axes}": _CONVOLVES
        for axes in (
            "1d(row, kernel1, stride=2, padding=1, output_padding=1)",
            "2d(image, kernel2, stride=2, groups=1, dilation=2)",
            "3d(volume, kernel3, padding=1)",
        )
    },
}
"""Calls that are left to Torch, in whole or in part: all others run in one engine."""


if torch.__version__ < (2, 12):
    call = "torch.lstm(stack, (state, state), [*lstm], True, 1, 0.0, False, False, True)"
    LEFT = {**LEFT, call: Left("another shape or dtype than Torch's metadata promises")}  # its last states have rank 4

NAMES = {"torch": torch, "f": torch.nn.functional, "aten": torch.ops.aten, "math": math, "float": float}


def evaluate(call: str, given: dict[str, object]) -> object:
    return eval(call, {**NAMES, **given})
