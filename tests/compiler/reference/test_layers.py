"""Hand-built networks, a layer or two each, against the arithmetic written out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from handmade import Handmade, trt

from trtplug._tensorrt import trt_dtype

F32, F16, BF16, I32, I64 = torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64


pytestmark = pytest.mark.usefixtures("executor")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def same(have: torch.Tensor, want: torch.Tensor, tolerance: float = 0.0) -> None:
    assert have.dtype == want.dtype
    assert have.shape == want.shape
    torch.testing.assert_close(have, want, rtol=tolerance, atol=tolerance, equal_nan=True)


X = torch.tensor([[-2.5, -1.0, -0.0], [0.5, 1.0, 3.5]])

ACTIVATIONS = {
    "RELU": (0, 0, lambda x: max(x, 0)),
    "LEAKY_RELU": (0.1, 0, lambda x: x if x >= 0 else 0.1 * x),
    "ELU": (0.5, 0, lambda x: x if x >= 0 else 0.5 * (math.exp(x) - 1)),
    "SELU": (1.5, 2.0, lambda x: 2.0 * x if x > 0 else 2.0 * (1.5 * math.exp(x) - 1.5)),
    "SOFTSIGN": (0, 0, lambda x: x / (1 + abs(x))),
    "SOFTPLUS": (1.5, 2.0, lambda x: 1.5 * math.log(math.exp(2.0 * x) + 1)),
    "CLIP": (-1.5, 0.75, lambda x: min(max(x, -1.5), 0.75)),
    "HARD_SIGMOID": (0.2, 0.5, lambda x: min(max(0.2 * x + 0.5, 0), 1)),
    "SCALED_TANH": (1.5, 0.5, lambda x: 1.5 * math.tanh(0.5 * x)),
    "THRESHOLDED_RELU": (0.5, 0, lambda x: x if x > 0.5 else 0),
    "GELU_ERF": (0, 0, lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
    "GELU_TANH": (0, 0, lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    "SIGMOID": (0, 0, lambda x: 1 / (1 + math.exp(-x))),
    "TANH": (0, 0, math.tanh),
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activation(kind: str) -> None:
    alpha, beta, formula = ACTIVATIONS[kind]
    made = Handmade()
    layer = made.network.add_activation(made.input("x", F32, -1, 3), getattr(trt.ActivationType, kind))
    layer.alpha, layer.beta = alpha, beta
    same(made.run(layer.get_output(0), X), torch.tensor([[formula(v) for v in row] for row in X.tolist()]), 1e-6)


def test_every_activation_is_modelled() -> None:
    assert set(trt.ActivationType.__members__) == set(ACTIVATIONS)


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_halves_are_rounded_once_per_layer(dtype: torch.dtype) -> None:
    made = Handmade()
    x = made.input("x", dtype, 1, 3)
    layer = made.network.add_softmax(x)
    layer.axes = 2
    values = torch.tensor([[0.1, 2.0, 3.0]], dtype=dtype)
    same(made.run(layer.get_output(0), values), torch.softmax(values.float(), 1).to(dtype), 1e-3)


def test_half_sums_overflow_to_infinity() -> None:
    made = Handmade()
    x = made.input("x", F16, 2)
    layer = made.network.add_reduce(x, trt.ReduceOperation.SUM, 1, True)
    same(made.run(layer.get_output(0), torch.full((2,), 60000.0, dtype=F16)), torch.tensor([torch.inf], dtype=F16))


def test_int32_arithmetic_wraps_around() -> None:
    made = Handmade()
    x = made.input("x", I32, 2)
    layer = made.network.add_elementwise(x, x, trt.ElementWiseOperation.SUM)
    same(
        made.run(layer.get_output(0), torch.tensor([2**31 - 1, -(2**31)], dtype=I32)), torch.tensor([-2, 0], dtype=I32)
    )


@pytest.mark.parametrize("dtype", [I32, I64], ids=str)
def test_integer_powers_saturate(dtype: torch.dtype) -> None:
    made = Handmade()
    a, b = made.input("a", dtype, 5), made.input("b", dtype, 5)
    layer = made.network.add_elementwise(a, b, trt.ElementWiseOperation.POW)
    base, exponent = torch.tensor([7, 2, -3, 10, 0], dtype=dtype), torch.tensor([30, -1, 3, 19, -1], dtype=dtype)
    most = torch.iinfo(dtype).max
    same(made.run(layer.get_output(0), base, exponent), torch.tensor([most, 0, -27, most, most], dtype=dtype))


@pytest.mark.parametrize(("kind", "quotient"), [("DIV", -3), ("FLOOR_DIV", -4)])
def test_lowest_integer_over_minus_one_wraps_around(kind: str, quotient: int) -> None:
    made = Handmade()
    a, b = made.input("a", I64, 2), made.input("b", I64, 2)
    layer = made.network.add_elementwise(a, b, getattr(trt.ElementWiseOperation, kind))
    have = made.run(layer.get_output(0), torch.tensor([-(2**63), 7]), torch.tensor([-1, -2]))
    same(have, torch.tensor([-(2**63), quotient]))


CASTS = {
    I32: [2**31 - 1, 2**31 - 1, -(2**31), 0, -1, 300],
    I64: [2**63 - 1, 2**63 - 1, -(2**63), -(2**63), -1, 300],
    torch.int8: [-1, -1, 0, 0, -1, 44],  # the low eight bits of the int32
    torch.uint8: [255, 255, 0, 0, 0, 44],  # and of the uint32
}


@pytest.mark.parametrize("dtype", CASTS, ids=str)
def test_cast_of_floats(dtype: torch.dtype) -> None:
    made = Handmade()
    layer = made.network.add_cast(made.input("x", F32, 6), trt_dtype(dtype))
    have = made.run(layer.get_output(0), torch.tensor([torch.inf, 1e30, -1e30, torch.nan, -1.9, 300.5]))
    same(have, torch.tensor(CASTS[dtype], dtype=dtype))


def test_scale_per_channel() -> None:
    made = Handmade()
    shift, scale, power = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0])
    layer = made.network.add_scale_nd(
        made.input("x", F32, 1, 2, 1, 2),
        trt.ScaleMode.CHANNEL,
        *(made.weights(w) for w in (shift, scale, power)),
        1,
    )
    have = made.run(layer.get_output(0), torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]]))
    same(have, torch.tensor([[[[4.0, 7.0]], [[14.0**2, 18.0**2]]]]))


def test_fill_along_several_axes() -> None:
    made = Handmade()
    layer = made.network.add_fill((1, 1), trt.FillOperation.LINSPACE, trt.int32)
    layer.set_input(0, made.constant([2, 3]))
    layer.set_input(1, made.constant(5, I32))
    layer.set_input(2, made.constant([10, -1], I32))
    same(made.run(layer.get_output(0)), torch.tensor([[5, 4, 3], [15, 14, 13]], dtype=I32))


def test_shuffle_transposes_reshapes_and_transposes() -> None:
    made = Handmade()
    layer = made.network.add_shuffle(made.input("x", F32, 2, 3, 4))
    layer.first_transpose = (2, 0, 1)
    layer.reshape_dims = (0, -1)  # 0 copies the size of the transposed input
    layer.second_transpose = (1, 0)
    x = torch.arange(24.0).reshape(2, 3, 4)
    same(made.run(layer.get_output(0), x), x.permute(2, 0, 1).reshape(4, 6).T)


def test_zero_may_be_a_size() -> None:
    made = Handmade()
    layer = made.network.add_shuffle(made.input("x", F32, 0, 3))
    layer.zero_is_placeholder = False
    layer.reshape_dims = (3, 0)
    same(made.run(layer.get_output(0), torch.empty(0, 3)), torch.empty(3, 0))


def test_rank_zero() -> None:
    made = Handmade()
    x = made.input("x", F32)
    layer = made.network.add_shuffle(made.network.add_unary(x, trt.UnaryOperation.NEG).get_output(0))
    layer.reshape_dims = (1, 1)
    same(made.run(layer.get_output(0), torch.tensor(2.0)), torch.tensor([[-2.0]]))


def test_padding_crops_and_pads() -> None:
    made = Handmade()
    layer = made.network.add_padding_nd(made.input("x", F32, 1, 1, 2, 3), (1, -1), (0, 2))
    x = torch.arange(1.0, 7.0).reshape(1, 1, 2, 3)
    same(made.run(layer.get_output(0), x), torch.tensor([[[[0.0, 0, 0, 0], [2, 3, 0, 0], [5, 6, 0, 0]]]]))


def test_slice_filled_with_a_value() -> None:
    made = Handmade()
    layer = made.network.add_slice(made.input("x", F32, 2, 2), (-1, 0), (3, 2), (1, 1))
    layer.mode = trt.SampleMode.FILL
    layer.set_input(4, made.input("fill", F32))
    have = made.run(layer.get_output(0), torch.tensor([[1.0, 2], [3, 4]]), torch.tensor(9.0))
    same(have, torch.tensor([[9.0, 9], [1, 2], [3, 4]]))


def test_slice_by_tensors_of_a_dynamic_input() -> None:
    made = Handmade()
    x = made.input("x", F32, -1, 4)
    size = made.network.add_shape(x).get_output(0)
    layer = made.network.add_slice(x, (0, 1), (0, 0), (1, 1))
    one = made.network.add_elementwise(size, made.constant([0, 2]), trt.ElementWiseOperation.SUB)
    layer.set_input(2, one.get_output(0))
    data = torch.arange(12.0).reshape(3, 4)
    same(made.run(layer.get_output(0), data), data[:, 1:3])


def test_reverse_sequence() -> None:
    made = Handmade()
    layer = made.network.add_reverse_sequence(made.input("x", F32, 3, 2), made.constant([2, 3], I32))
    x = torch.arange(6.0).reshape(3, 2)  # sequence along axis 0, batch along axis 1
    same(made.run(layer.get_output(0), x), torch.tensor([[2.0, 5.0], [0.0, 3.0], [4.0, 1.0]]))


def gathered(mode: str, batch: int, axis: int, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    made = Handmade()
    tensors = made.input("x", x.dtype, *x.shape), made.input("i", index.dtype, *index.shape)
    layer = made.network.add_gather_v2(*tensors, getattr(trt.GatherMode, mode))
    layer.num_elementwise_dims = batch
    layer.axis = axis
    return made.run(layer.get_output(0), x, index)


def test_gather() -> None:
    x = torch.arange(24.0).reshape(2, 3, 4)
    index = torch.tensor([[0, -1], [1, 2]], dtype=I32)
    same(gathered("DEFAULT", 0, 1, x, index), x[:, index.long()])
    same(gathered("DEFAULT", 1, 2, x, index), torch.stack([x[b][:, index[b].long()] for b in range(2)]))
    same(gathered("ND", 0, 0, x, index), x[index[:, 0].long(), index[:, 1].long()])
    same(gathered("ND", 1, 0, x, index), torch.stack([x[b][tuple(index[b].tolist())] for b in range(2)]))
    places = torch.tensor([[[0, -1, 1, 2]], [[2, 2, 0, 1]]])
    same(gathered("ELEMENT", 0, 1, x, places), torch.gather(x, 1, places % 3))


def test_scatter() -> None:
    x, updates = torch.zeros(3, 2), torch.tensor([[1.0, 2.0]])
    for mode, index, want in (
        ("ELEMENT", [[2, -3]], [[0.0, 2], [0, 0], [1, 0]]),
        ("ND", [[-2]], [[0.0, 0], [1, 2], [0, 0]]),
    ):
        made = Handmade()
        places = torch.tensor(index)
        tensors = made.input("x", F32, 3, 2), made.input("i", I64, *places.shape), made.input("u", F32, 1, 2)
        layer = made.network.add_scatter(*tensors, getattr(trt.ScatterMode, mode))
        layer.axis = 0
        same(made.run(layer.get_output(0), x, places, updates), torch.tensor(want))


def test_topk_takes_the_first_of_equals() -> None:
    for op, want in (("MAX", [3, 0]), ("MIN", [1, 2])):
        made = Handmade()
        layer = made.network.add_topk(made.input("x", F32, 1, 4), getattr(trt.TopKOperation, op), 2, 2)
        have = made.run(layer.get_output(1), torch.tensor([[3.0, 1.0, 1.0, 5.0]]))
        same(have, torch.tensor([want], dtype=I32))


def test_topk_by_a_tensor() -> None:
    made = Handmade()
    layer = made.network.add_topk(made.input("x", F32, 1, 4), trt.TopKOperation.MAX, 1, 2)
    layer.set_input(1, made.input("k", I32))
    have = made.run(layer.get_output(0), torch.tensor([[3.0, 1.0, 2.0, 5.0]]), torch.tensor(3, dtype=I32))
    same(have, torch.tensor([[5.0, 3.0, 2.0]]))


def test_non_zero(executor: str) -> None:
    if executor == "tensorrt":
        pytest.skip("TensorRT-RTX has no implementation of it")
    made = Handmade()
    layer = made.network.add_non_zero(made.input("x", F32, 2, 2), trt.int64)
    same(made.run(layer.get_output(0), torch.tensor([[0.0, 2], [3, 0]])), torch.tensor([[0, 1], [1, 0]]))


@pytest.mark.parametrize(
    ("op", "want"), [("MAX", -math.inf), ("MIN", math.inf), ("SUM", 0), ("PROD", 1), ("AVG", math.nan)]
)
def test_reduce_of_nothing(op: str, want: float) -> None:
    made = Handmade()
    layer = made.network.add_reduce(made.input("x", F32, -1, 2), getattr(trt.ReduceOperation, op), 1, False)
    same(made.run(layer.get_output(0), torch.empty(0, 2)), torch.full((2,), float(want)))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
def test_cumulative(exclusive: bool, reverse: bool) -> None:
    made = Handmade()
    x, axis = made.input("x", F32, 1, 3), made.constant(1, I32)
    layer = made.network.add_cumulative(x, axis, trt.CumulativeOperation.SUM, exclusive, reverse)
    rows = {(False, False): [1, 3, torch.inf], (True, False): [0, 1, 3], (False, True): [torch.inf] * 3}
    want = rows.get((exclusive, reverse), [torch.inf, torch.inf, 0])
    same(made.run(layer.get_output(0), torch.tensor([[1.0, 2.0, torch.inf]])), torch.tensor([want], dtype=F32))


@pytest.mark.parametrize("ops", ["NONE TRANSPOSE", "TRANSPOSE NONE", "VECTOR NONE", "NONE VECTOR", "VECTOR VECTOR"])
def test_matrix_multiply(ops: str) -> None:
    made = Handmade()
    shapes = {"NONE": (2, 3, 3), "TRANSPOSE": (2, 3, 3), "VECTOR": (2, 3)}
    a, b = (torch.randn(shapes[op]) for op in ops.split())
    pair = made.input("a", F32, *a.shape), made.input("b", F32, *b.shape)
    kinds = [getattr(trt.MatrixOperation, op) for op in ops.split()]
    layer = made.network.add_matrix_multiply(pair[0], kinds[0], pair[1], kinds[1])
    letters = {"NONE": ("bij", "bjk"), "TRANSPOSE": ("bji", "bkj"), "VECTOR": ("bj", "bj")}
    first, second = (letters[op][side] for side, op in enumerate(ops.split()))
    out = "b" + "".join(c for c in "ik" if c in first + second)
    same(made.run(layer.get_output(0), a, b), torch.einsum(f"{first},{second}->{out}", a, b), 1e-6)


def test_ragged_softmax() -> None:
    made = Handmade()
    layer = made.network.add_ragged_softmax(made.input("x", F32, 1, 2, 3), made.input("n", I32, 1, 2, 1))
    x = torch.randn(1, 2, 3)
    have = made.run(layer.get_output(0), x, torch.tensor([[[1], [2]]], dtype=I32))
    same(have, torch.stack([torch.tensor([1.0, 0, 0]), torch.tensor([*torch.softmax(x[0, 1, :2], 0), 0])])[None], 1e-6)


@pytest.mark.parametrize("version", [1, 2])
def test_group_normalization(version: int) -> None:
    if version == 2 and not hasattr(trt.INetworkDefinition, "add_normalization_v2"):
        pytest.skip("this TensorRT has no normalization v2")
    made = Handmade()
    channels, groups = 4, 2
    size = groups if version == 1 else channels
    scale, bias = torch.randn(1, size, 1, 1), torch.randn(1, size, 1, 1)
    add = made.network.add_normalization if version == 1 else made.network.add_normalization_v2
    layer = add(made.input("x", F32, -1, channels, 3, 3), made.constant(scale), made.constant(bias), 0b1100)
    layer.num_groups = groups
    layer.epsilon = 1e-3
    x = torch.randn(2, channels, 3, 3)
    plain = torch.nn.functional.group_norm(x, groups, eps=1e-3)
    scale, bias = (t if version == 2 else t.repeat_interleave(channels // groups, 1) for t in (scale, bias))
    same(made.run(layer.get_output(0), x), plain * scale + bias, 1e-5)


KERNEL = torch.arange(8.0).reshape(2, 1, 2, 2)


def convolved(made: Handmade, **settings: Any) -> Any:
    layer = made.network.add_convolution_nd(made.input("x", F32, 1, 1, 3, 3), 2, (2, 2), made.weights(KERNEL))
    for name, value in settings.items():
        setattr(layer, name, value)
    return layer.get_output(0)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_same_padding(mode: str) -> None:
    made = Handmade()
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    pads = (0, 1, 0, 1) if mode == "SAME_UPPER" else (1, 0, 1, 0)
    have = made.run(convolved(made, padding_mode=getattr(trt.PaddingMode, mode)), x)
    same(have, torch.nn.functional.conv2d(torch.nn.functional.pad(x, pads), KERNEL))


def test_convolution_rounded_up_reads_zeros() -> None:
    made = Handmade()
    settings = {"padding_mode": trt.PaddingMode.EXPLICIT_ROUND_UP, "stride_nd": (2, 2)}
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    want = torch.nn.functional.conv2d(torch.nn.functional.pad(x, (0, 1, 0, 1)), KERNEL, stride=2)
    same(made.run(convolved(made, **settings), x), want)


def test_deconvolution_crops_unevenly() -> None:
    made = Handmade()
    x, kernel = torch.randn(1, 2, 3, 3), torch.randn(2, 1, 2, 2)
    layer = made.network.add_deconvolution_nd(made.input("x", F32, *x.shape), 2, (2, 2), made.weights(kernel))
    layer.num_groups, layer.stride_nd, layer.pre_padding, layer.post_padding = 2, (2, 2), (1, 0), (0, 2)
    full = torch.nn.functional.conv_transpose2d(x, kernel, stride=2, groups=2)
    same(made.run(layer.get_output(0), x), full[:, :, 1:, :-2], 1e-6)


@pytest.mark.parametrize("excludes", [True, False])
@pytest.mark.parametrize("kind", ["MAX", "AVERAGE", "MAX_AVERAGE_BLEND"])
def test_pooling(kind: str, excludes: bool) -> None:
    made = Handmade()
    layer = made.network.add_pooling_nd(made.input("x", F32, 1, 1, 2, 3), getattr(trt.PoolingType, kind), (2, 2))
    layer.padding_nd, layer.stride_nd, layer.blend_factor = (1, 1), (2, 2), 0.25
    layer.average_count_excludes_padding = excludes
    x = torch.tensor([[[[1.0, 2, 3], [4, 5, 6]]]])
    top = torch.tensor([[[[1.0, 3], [4, 6]]]])
    mean = torch.tensor([[[[1.0, 2.5], [4, 5.5]]]]) if excludes else torch.tensor([[[[0.25, 1.25], [1, 2.75]]]])
    want = {"MAX": top, "AVERAGE": mean, "MAX_AVERAGE_BLEND": 0.75 * top + 0.25 * mean}
    same(made.run(layer.get_output(0), x), want[kind], 1e-6)


def test_resize_follows_the_scale_not_the_sizes() -> None:
    made = Handmade()
    layer = made.network.add_resize(made.input("x", F32, 1, 1, 1, 5))
    layer.scales = [1, 1, 1, 0.5]  # two elements out, 0 and 2: the sizes alone would give 0 and 2.5
    layer.resize_mode = trt.InterpolationMode.LINEAR
    layer.coordinate_transformation = trt.ResizeCoordinateTransformation.ASYMMETRIC
    x = torch.tensor([[[[0.0, 10, 20, 30, 40]]]])
    same(made.run(layer.get_output(0), x), torch.tensor([[[[0.0, 20]]]]))


@pytest.mark.parametrize(("rounding", "want"), [("FLOOR", 1), ("CEIL", 2), ("HALF_UP", 2), ("HALF_DOWN", 1)])
def test_resize_rounding(rounding: str, want: int) -> None:
    made = Handmade()
    layer = made.network.add_resize(made.input("x", F32, 1, 1, 1, 3))
    layer.shape = (1, 1, 1, 2)  # coordinates 0 and 1.5
    layer.nearest_rounding = getattr(trt.ResizeRoundMode, rounding)
    same(made.run(layer.get_output(0), torch.tensor([[[[0.0, 1, 2]]]])), torch.tensor([[[[0.0, want]]]]))


def test_grid_sample_in_three_dimensions() -> None:
    if trt.__version__.startswith("1.4."):
        pytest.skip("1.4 samples no volumes")
    made = Handmade()
    layer = made.network.add_grid_sample(made.input("x", F32, 1, 1, 2, 2, 2), made.input("g", F32, 1, 1, 1, 1, 3))
    layer.align_corners = True
    x = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    have = made.run(layer.get_output(0), x, torch.tensor([0.0, 0.0, 1.0]).reshape(1, 1, 1, 1, 3))
    same(have, torch.full((1, 1, 1, 1, 1), 5.5))  # z at its end, x and y in the middle: the mean of 4 … 7
