"""What computing in another dtype means for each op: which lose too much in half types, and which lose nothing.

Everything that is in neither table rounds its result once, to the dtype that it is computed in: products, convolutions,
sums of two tensors, activations. That is what ``precision`` is for.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from torch._ops import OpOverloadPacket

RANGE_SENSITIVE: Mapping[str, str] = {
    "softmax log_softmax _softmax _log_softmax _safe_softmax logsumexp logcumsumexp": (
        "a sum of exponentials: small terms vanish, large ones overflow"
    ),
    "exp exp2 expm1 sinh cosh softplus logaddexp logaddexp2 erfinv lgamma digamma": (
        "grows so fast that float16 overflows for arguments above 11"
    ),
    "log log2 log10 log1p log_sigmoid xlogy special_xlogy logit atanh acosh special_entr": (
        "steep near a singularity: the argument's rounding error grows"
    ),
    "pow float_power square": ("squares of numbers above 256 overflow float16, those of small ones vanish"),
    "rsqrt reciprocal": ("small arguments vanish in float16, and the result becomes infinite"),
    "sin cos tan asin acos sinc": ("an angle's rounding error is absolute: it does not shrink with the result"),
    "layer_norm native_layer_norm group_norm native_group_norm instance_norm rms_norm _fused_rms_norm "
    "batch_norm native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "cudnn_batch_norm norm linalg_vector_norm linalg_norm linalg_matrix_norm frobenius_norm nuclear_norm "
    "renorm var std var_mean std_mean cosine_similarity pairwise_distance cdist dist": (
        "statistics of many elements, most of them of squares"
    ),
    "sum nansum mean nanmean prod cumsum cumprod trace adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d": (
        "adds or multiplies many elements: the errors add up, and it overflows"
    ),
    "mse_loss l1_loss smooth_l1_loss huber_loss nll_loss nll_loss2d nll_loss_nd nll_loss_forward "
    "nll_loss2d_forward cross_entropy_loss binary_cross_entropy binary_cross_entropy_with_logits kl_div "
    "hinge_embedding_loss soft_margin_loss multi_margin_loss multilabel_margin_loss margin_ranking_loss "
    "triplet_margin_loss cosine_embedding_loss poisson_nll_loss ctc_loss": ("a loss sums many logarithms or squares"),
    "grid_sampler grid_sampler_2d grid_sampler_3d affine_grid_generator": ("coordinates: rounding moves whole pixels"),
}
"""Names of ATen ops that are computed in float32 whatever the precision, and why."""

EXACT = (
    # views and copies
    "alias broadcast_to clone contiguous detach diagonal expand expand_as flatten lift_fresh "
    "lift_fresh_copy movedim narrow permute reshape reshape_as select slice split split_with_sizes chunk "
    "tensor_split unsafe_split unsafe_chunk squeeze swapaxes swapdims t transpose numpy_T mT unbind "
    "unflatten unfold unsqueeze view view_as _unsafe_view "
    # elements moved, chosen or left out
    "cat concat concatenate stack hstack vstack dstack column_stack gather index index_select take "
    "take_along_dim masked_select flip fliplr flipud roll rot90 repeat repeat_interleave tile pad "
    "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
    "replication_pad2d replication_pad3d _pad_enum pixel_shuffle pixel_unshuffle channel_shuffle tril "
    "triu where masked_fill scatter index_put slice_scatter select_scatter dropout feature_dropout "
    "alpha_dropout feature_alpha_dropout fill zeros_like ones_like "
    # comparisons, and elements that win them
    "eq ne lt le gt ge greater greater_equal less less_equal not_equal argmax argmin isnan isinf isfinite "
    "logical_not any all max min amax amin maximum minimum fmax fmin max_pool1d max_pool2d max_pool3d "
    "max_pool2d_with_indices adaptive_max_pool1d adaptive_max_pool2d sort topk clamp clamp_min clamp_max "
    "clip relu relu6 hardtanh threshold "
    # signs
    "abs neg positive sign"
)
"""Names of ATen ops whose result is exact in any dtype that holds their arguments: they go where those are."""

BOUNDED = (
    "softmax log_softmax _softmax _log_softmax _safe_softmax sigmoid tanh hardsigmoid hardtanh relu6 sin "
    "cos sign erf layer_norm native_layer_norm group_norm native_group_norm instance_norm rms_norm "
    "scaled_dot_product_attention clamp"
)
"""Names of ATen ops whose result is of moderate size however large their argument is."""

PRODUCTS = (
    "linear matmul mm bmm addmm addbmm baddbmm mv addmv dot einsum convolution conv1d conv2d conv3d "
    "conv_transpose1d conv_transpose2d conv_transpose3d embedding embedding_bag "
    "scaled_dot_product_attention"
)
"""Names of ATen ops that do the work: where positions become features, exact numbers become approximate ones."""


@functools.cache
def range_sensitive() -> Mapping[OpOverloadPacket, str]:
    """`RANGE_SENSITIVE` by op."""
    return {op: why for names, why in RANGE_SENSITIVE.items() for op in packets(names)}


@functools.cache
def packets(names: str) -> frozenset[OpOverloadPacket]:
    """The ops of these names that this version of Torch has."""
    return frozenset(getattr(torch.ops.aten, name) for name in names.split() if hasattr(torch.ops.aten, name))
