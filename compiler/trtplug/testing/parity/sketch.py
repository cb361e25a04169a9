"""A network of one layer, with the values that go in: what the layer table is made of."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from trtplug._tensorrt import library
from trtplug.network import Binding, Network, NetworkBuilder
from trtplug.testing.elements import edges
from trtplug_registry import TensorFacts

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
I32, I64, BOOL = torch.int32, torch.int64, torch.bool
FLOATS, INTS = (F32, F16, BF16), (I32, I64)
ALL = (*FLOATS, *INTS, BOOL)


class Sketch:
    """A network under construction. Each input has its value; what `output` gets becomes an output.

    Attributes:
        dtype: that the case is about.
        trt: the TensorRT module.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.trt = library()
        self.builder = NetworkBuilder()
        self.inputs: list[Binding] = []
        self.values: list[torch.Tensor] = []
        self.outputs: list[Binding] = []

    def input(self, value: torch.Tensor) -> Any:
        """An input of this value's shape and dtype."""
        name, shape = f"in_{len(self.inputs)}", tuple(value.shape)
        self.inputs.append(Binding(name, TensorFacts(shape, value.dtype), shape, shape, shape))
        self.values.append(value)
        return self.builder.add_input(name, value.dtype, shape)

    def constant(self, value: Any, dtype: torch.dtype | None = None) -> Any:
        tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
        return self.builder.constant(tensor.to(dtype or tensor.dtype))

    def weights(self, layer: str, value: torch.Tensor) -> Any:
        """Weights that are a layer's attribute, ``<layer>.kernel`` say; the builder's table keeps them."""
        self.builder.weights[layer] = value
        return self.builder._weights_of(value)

    def add(self, kind: str, *args: Any, **attributes: Any) -> Any:
        return self.builder.add(kind, *args, **attributes)

    def enum(self, kind: str, name: str) -> Any:
        return getattr(getattr(self.trt, kind), name)

    def output(self, *tensors: Any) -> None:
        for tensor in tensors:
            name, shape = f"output_{len(self.outputs)}", tuple(tensor.shape)
            self.outputs.append(Binding(name, TensorFacts(shape, self.builder.dtype(tensor))))
            self.builder.mark_output(tensor, name)

    def network(self) -> Network:
        return Network("layer", self.builder, tuple(self.inputs), tuple(self.outputs))


Make = Callable[[Sketch], None]


@dataclasses.dataclass(frozen=True)
class LayerCase:
    """One layer in one mode and dtype.

    Attributes:
        kind: ``unary`` and so on.
        mode: ``EXP`` and so on.
        dtype: of its leading input.
        make: draws it.
    """

    kind: str
    mode: str
    dtype: torch.dtype
    make: Make

    @property
    def id(self) -> str:
        return " ".join((self.kind, self.mode, str(self.dtype).removeprefix("torch."))).replace("  ", " ")

    def sketch(self) -> Sketch:
        made = Sketch(self.dtype)
        self.make(made)
        return made


def table(
    kind: str,
    modes: Iterable[str],
    dtypes: Sequence[torch.dtype],
    make: Callable[[Sketch, str], None],
) -> Iterator[LayerCase]:
    """A case for each mode and dtype."""
    for mode, dtype in itertools.product(modes, dtypes):

        def draw(sketch: Sketch, mode: str = mode) -> None:
            make(sketch, mode)

        yield LayerCase(kind, mode, dtype, draw)


# --- values -----------------------------------------------------------------------------------------------------------


def line(dtype: torch.dtype, *, special: bool = True) -> torch.Tensor:
    """A vector of the dtype's edges and of quarters from -6 to 6, ties among them."""
    if dtype is BOOL:
        return torch.tensor([False, True, True, False])
    if not dtype.is_floating_point:
        lowest = [torch.iinfo(dtype).min] if special else []
        return torch.tensor([*(edges(dtype) if special else ()), *lowest, *range(-8, 9)], dtype=dtype)
    large = [100.0, -100.0, 1e4, -1e4, 2.0**24 + 1]
    steps = torch.arange(-24, 25, dtype=torch.float64) / 4
    extra = torch.tensor([*edges(dtype), *large] if special else [], dtype=torch.float64)
    return torch.cat([extra, steps]).to(dtype)


def pairs(dtype: torch.dtype, *, most: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Every pair of the first `most` values of a line; the smallest integer by -1 left out, which ends a process."""
    values = line(dtype)[:most]
    left, right = (part.flatten() for part in torch.meshgrid(values, values, indexing="ij"))
    if dtype in INTS:
        keep = ~((left == torch.iinfo(dtype).min) & (right == -1))
        left, right = left[keep], right[keep]
    return left.contiguous(), right.contiguous()


def ordinary(dtype: torch.dtype, *shape: int, seed: int = 0, span: float = 2.0) -> torch.Tensor:
    """Random numbers; integers are small."""
    random = torch.Generator().manual_seed(seed)
    values = (torch.rand(shape, generator=random, dtype=torch.float64) * 2 - 1) * span
    if dtype is BOOL:
        return values > 0
    return values.to(dtype) if dtype.is_floating_point else (values * 4).round().to(dtype)


def special_rows(dtype: torch.dtype) -> torch.Tensor:
    """Rows of four: ordinary, with ties, and with each special value the dtype has."""
    if dtype is BOOL:
        return torch.tensor([[True, False, True, True], [False] * 4, [True] * 4])
    if not dtype.is_floating_point:
        most, least = torch.iinfo(dtype).max, torch.iinfo(dtype).min
        rows = [[3, -7, 2, 5], [2, 2, 1, 2], [0, 0, 0, 0], [most, 1, 0, 0], [least, -1, 0, 0], [most, least, most, 0]]
        return torch.tensor(rows, dtype=dtype)
    inf, nan, top = float("inf"), float("nan"), torch.finfo(dtype).max
    special: list[list[float]] = [
        [1.5, -0.5, 2.5, 0.25], [2, 2, 1, 2], [0, -0.0, 0.0, -0.0], [inf, 1, 2, 3], [-inf, 1, 2, 3], [inf, -inf, 0, 1],
        [nan, 1, 2, 3], [1, nan, 3, 2], [nan] * 4, [-inf] * 4, [inf] * 4, [top, 1, 0, 0], [top, top, 0, 0],
        [-top, -1, 0, 0], [1e-3, 1e3, -1e3, 1],
    ]  # fmt: skip
    return torch.tensor(special, dtype=torch.float64).to(dtype)
