"""What the arithmetic of a GPU may change of a network's results: from how many terms it sums, and in what precision.

The computed sum of n rounded products is the exact sum of products each moved by a relative d, where |d| is at most
about sqrt(n) * u for rounding errors that are independent (Higham and Mary, "A new approach to probabilistic rounding
error analysis", SIAM J. Sci. Comput. 41(5), 2019), u being the unit of the arithmetic. So a difference is rounding
where moving the inputs by that much can make it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from trtplug.reference.semantics import attention, reductions, windows

UNIT: Mapping[torch.dtype, float] = {
    torch.float32: 2.0**-22,
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-24,
}
"""By dtype of the operands, half a unit in the last place of what sums are kept in. float32: without TF32, operands are
split into two TF32 numbers of 11 bits each. float16 may be summed in float16. bfloat16 is summed in float32."""

TF32_UNIT = 2.0**-11
"""Half a unit in the last place of TF32, which keeps 10 bits of a float32's fraction: what an operand may move."""


STORED: Mapping[torch.dtype, float] = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
"""Half a unit in the last place of what a layer hands on."""

_WIDEST = 4.0  # of 100,000 numbers of a normal distribution, the largest is about four standard deviations out


def model_bound(dtype: torch.dtype, layers: int, sums: Sequence[int], tf32: bool = False) -> float:
    """How far a model's output may be from the exact one, relative to the output's largest element.

    4 * sqrt(layers * s**2 + sum of n * u**2 over its sums): every layer rounds what it hands on to s, every sum of n
    terms moves by sqrt(n) * u, independently, and a network hands relative errors on as they are. Sums of halves are in
    float32; TF32 rounds both operands of each sum.

    Args:
        dtype: of the model.
        layers: of its networks.
        sums: the number of terms of each product or sum, as `terms` counts them.
        tf32: whether operands of float32 may be rounded to TF32.
    """
    unit = UNIT[torch.float32] if dtype is torch.float32 else STORED[torch.float32]
    rounded = 2 * len(sums) * TF32_UNIT**2 if tf32 and dtype is torch.float32 else 0.0
    return _WIDEST * math.sqrt(layers * STORED[dtype] ** 2 + sum(sums) * unit**2 + rounded)


def relative_move(dtype: torch.dtype, terms: int, tf32: bool) -> float:
    """How far an operand of sums of so many terms may be moved, relative to itself."""
    move = math.sqrt(terms) * UNIT[dtype]
    return max(move, TF32_UNIT) if tf32 and dtype is torch.float32 else move


def moved(module: fx.GraphModule, inputs: Sequence[Any], by: Callable[[torch.Tensor], torch.Tensor]) -> Sequence[Any]:
    """Runs a lifted network with every operand from outside moved: inputs and constants."""
    results: Sequence[Any] = _Moving(module, by).run(*[by(x) if isinstance(x, torch.Tensor) else x for x in inputs])
    return results


class _Moving(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, by: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(module)
        self.by = by

    def get_attr(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = super().get_attr(target, args, kwargs)
        return self.by(value) if isinstance(value, torch.Tensor) else value


def terms(module: fx.GraphModule, inputs: Sequence[Any]) -> list[int]:
    """How many terms each product or sum in a lifted network adds up to one result, for these inputs.

    Runs the network. What is inside loops and conditionals is not counted.
    """
    counting = _Counting(module)
    counting.run(*inputs)
    return counting.found


class _Counting(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: list[int] = []

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in _TERMS:
            self.found.append(max(_TERMS[target](*args), 1))
        return super().call_function(target, args, kwargs)


def _along(x: torch.Tensor, axes: Sequence[int], *_: Any) -> int:
    return math.prod(x.shape[axis] for axis in axes)


def _of_matmul(a: torch.Tensor, b: torch.Tensor, transpose_a: bool = False, *_: Any) -> int:
    return a.shape[-2 if transpose_a else -1]


def _of_vectors(a: torch.Tensor, b: torch.Tensor, op_a: str, *_: Any) -> int:
    return a.shape[-2 if op_a == "TRANSPOSE" else -1]


def _of_einsum(equation: str, *operands: torch.Tensor) -> int:
    given, _, result = equation.partition("->")
    sizes = {name: n for names, x in zip(given.split(","), operands) for name, n in zip(names.strip(), x.shape)}
    return math.prod(size for name, size in sizes.items() if name not in result)


def _of_convolution(x: torch.Tensor, kernel: torch.Tensor, *_: Any) -> int:
    return kernel[:1].numel()


def _of_deconvolution(x: torch.Tensor, kernel: torch.Tensor, *rest: Any) -> int:
    return kernel[:, :1].numel() // int(rest[-1])


def _of_pooling(x: torch.Tensor, kind: str, window: Sequence[int], *_: Any) -> int:
    return 1 if kind == "MAX" else math.prod(window)


def _of_attention(query: torch.Tensor, key: torch.Tensor, *_: Any) -> int:
    return max(query.shape[-1], key.shape[-2])


_TERMS: Mapping[Any, Callable[..., int]] = {
    torch.matmul: _of_matmul,
    reductions.matmul: _of_matmul,
    reductions.vector_matmul: _of_vectors,
    torch.einsum: _of_einsum,
    windows.convolution: _of_convolution,
    windows.deconvolution: _of_deconvolution,
    windows.pooling: _of_pooling,
    attention.attention: _of_attention,
    reductions.reduce_sum: _along,
    reductions.reduce_mean: _along,
    reductions.normalize: lambda x, scale, bias, axes, *_: _along(x, axes),
    reductions.group_normalize: lambda x, *rest: math.prod(x.shape[1:]) // int(rest[4]),
    reductions.cumulative_sum: lambda x, axis, *_: max(x.shape),
    torch.softmax: lambda x, axis: x.shape[axis],
}
