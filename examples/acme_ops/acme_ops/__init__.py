"""Ops of a third party."""

from acme_ops.ops import bias_relu, hard_swish

__all__ = ["bias_relu", "hard_swish"]
