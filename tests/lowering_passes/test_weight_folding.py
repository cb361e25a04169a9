"""What follows or precedes a linear map, and becomes part of its weights or arguments."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest_passes import apply, graph_of, run, targets
from torch import nn

from trtplug_lowering_passes import fold_batch_norm, fold_pad, fold_scale, fuse_bias
from trtplug_registry import take_notes

f = nn.functional
IMAGE = torch.randn(2, 4, 6, 6)
ROWS = torch.randn(2, 5, 8)


def used(norm: nn.Module) -> nn.Module:
    """With statistics and parameters as after training."""
    for tensor in (*norm.parameters(), norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm


def sources(graph):
    return {
        str(node.target): set(node.meta.get("folded_from", ())) for node in graph.graph.nodes if node.op == "get_attr"
    }


# --- batch normalization ----------------------------------------------------------------------------------------------

CONVOLUTIONS = {
    "plain": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), IMAGE),
    "no bias": (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), IMAGE),
    "no parameters": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False), IMAGE),
    "groups": (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), IMAGE),
    "same": (nn.Conv2d(4, 6, 3, padding="same"), nn.BatchNorm2d(6), IMAGE),
    "one axis": (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), IMAGE[..., 0]),
    "three axes": (nn.Conv3d(4, 6, 3), nn.BatchNorm3d(6), IMAGE.unsqueeze(-1).expand(-1, -1, -1, -1, 4)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3), nn.BatchNorm2d(6), IMAGE),
    "transposed groups": (nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), IMAGE),
    "linear": (nn.Linear(8, 6), nn.BatchNorm1d(6), ROWS[0]),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_batch_norm(name, dynamic):
    torch.manual_seed(0)
    convolution, norm, x = CONVOLUTIONS[name]
    graph = graph_of(nn.Sequential(convolution, used(norm)).eval(), x, dynamic=dynamic)
    assert apply(fold_batch_norm, graph, x, tolerance=1e-5)
    assert len(targets(graph)) == 1
    wanted = {
        f"{part}.{n}"
        for part, module in ((0, convolution), (1, norm))
        for n in module.state_dict()
        if n != "num_batches_tracked"
    }
    names = sources(graph)
    assert set().union(*names.values()) == wanted
    assert {name for name, _ in graph.named_buffers()} | {name for name, _ in graph.named_parameters()} == set(names)


def test_batch_norm_as_aten_writes_it_in_inference():
    model = nn.Sequential(nn.Conv2d(4, 6, 3), used(nn.BatchNorm2d(6))).eval()

    class Native(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = model

        def forward(self, x):
            n = self.norm
            return torch.ops.aten._native_batch_norm_legit_no_training(
                self.convolution(x), n.weight, n.bias, n.running_mean, n.running_var, 0.1, n.eps
            )[0]

    graph = graph_of(Native(), IMAGE)
    assert apply(fold_batch_norm, graph, IMAGE, tolerance=1e-5)
    assert targets(graph) == ["conv2d.default"]


class Two(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.convolution, self.norm, self.other = nn.Conv2d(4, 4, 1), used(nn.BatchNorm2d(4)), used(nn.BatchNorm2d(4))
        self.function = function

    def forward(self, x):
        return self.function(self, x)


DECLINED = {
    "the convolution's result is read elsewhere too": lambda m, x: (y := m.convolution(x)) + m.norm(y),
    "the weights are read elsewhere too, and would be held twice": lambda m, x: m.other(
        m.convolution(m.norm(m.convolution(x)))
    ),
    "the weights are no constants": lambda m, x: m.norm(f.conv2d(x, x[0, :, :1, :1].unsqueeze(1).expand(4, 4, 1, 1))),
}


@pytest.mark.parametrize("reason", DECLINED)
def test_batch_norm_declined(reason):
    graph = graph_of(Two(DECLINED[reason]).eval(), IMAGE)
    before = targets(graph)
    assert not apply(fold_batch_norm, graph, IMAGE)
    assert targets(graph) == before
    assert f"batch-norm-folding: {reason}" in take_notes(graph).declined


UNITS = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize("name", ["plain", "no parameters", "groups", "same", "transposed groups", "linear"])
def test_batch_norm_of_halves(name, dtype):
    torch.manual_seed(0)
    convolution, norm, x = CONVOLUTIONS[name]
    model = copy.deepcopy(nn.Sequential(convolution, used(norm))).eval().to(dtype)
    x = x.to(dtype)
    graph = graph_of(model, x)
    assert fold_batch_norm.function(graph)
    (folded,) = run(graph, x)
    assert folded.dtype == dtype
    exact, bound = exact_and_bound(model, x, UNITS[dtype])
    assert ((folded.double() - exact).abs() <= bound).all()


def exact_and_bound(model, x, unit):
    """The model in float64, and how far roundings of weights, bias and result may lead from it, elementwise."""
    wide, x = copy.deepcopy(model).double(), x.double()
    exact, norm = wide(x), wide[1]
    scale = torch.rsqrt(norm.running_var + norm.eps) * (1 if norm.weight is None else norm.weight)
    wide[1] = nn.Identity()
    offset = wide(x * 0)  # the bias, wherever the padding is
    shift = (0 if norm.bias is None else norm.bias) - norm.running_mean * scale
    scale, shift = (value.view(-1, *[1] * (exact.dim() - 2)) for value in (scale, shift))
    for parameter in wide.parameters():
        parameter.data.abs_()
    products = wide(x.abs()) - wide(x * 0)
    total = exact.abs() + (offset * scale + shift).abs() + products * scale.abs()
    return exact, unit * (1 + 2 * unit) * total + 2.0**-24  # of a result below normal ones, half a step


@pytest.mark.parametrize("dtype", UNITS)
def test_batch_norm_of_halves_is_about_as_near_as_eager(dtype):
    """To float64, where the statistics are those of the data and there are enough channels to speak of."""
    torch.manual_seed(0)
    x = torch.randn(4, 64, 12, 12).relu()
    model = nn.Sequential(nn.Conv2d(64, 64, 3), used(nn.BatchNorm2d(64, momentum=None)))
    with torch.no_grad():
        model(x)
        model, x = model.eval().to(dtype), x.to(dtype)
        eager, exact = model(x), copy.deepcopy(model).double()(x.double())
    graph = graph_of(model, x)
    assert fold_batch_norm.function(graph)
    (folded,) = run(graph, x)
    assert (folded - exact).norm() <= 1.25 * (eager - exact).norm()


def test_batch_norm_that_makes_weights_too_small_is_not_folded():
    model = nn.Sequential(nn.Conv2d(4, 6, 3), used(nn.BatchNorm2d(6))).eval()
    model[1].weight.data[2] = 1e-5
    for dtype, folds in ((torch.float16, False), (torch.bfloat16, True)):
        graph = graph_of(copy.deepcopy(model).to(dtype), IMAGE.to(dtype))
        assert fold_batch_norm.function(graph) is folds
        notes = take_notes(graph).declined
        assert notes == ({} if folds else {"batch-norm-folding: the folded weights are too small for float16": 1})


def test_batch_norm_of_what_is_not_finite_is_not_folded():
    model = nn.Sequential(nn.Conv2d(4, 6, 3), used(nn.BatchNorm2d(6))).eval()
    model[1].weight.data[0] = 1e38
    model[0].weight.data[0] = 1e3
    graph = graph_of(model, IMAGE)
    assert not fold_batch_norm.function(graph)
    assert take_notes(graph).declined == {"batch-norm-folding: the folded weights are not finite": 1}


# --- padding ----------------------------------------------------------------------------------------------------------


class Padded(nn.Module):
    def __init__(self, pad, **options):
        super().__init__()
        self.convolution = nn.Conv2d(4, 6, 3, **options)
        self.pad = pad

    def forward(self, x):
        return self.convolution(self.pad(x))


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("options", [{}, {"padding": 1, "stride": 2}, {"padding": (0, 1)}], ids=str)
def test_pad(options, dynamic):
    graph = graph_of(Padded(lambda x: f.pad(x, (1, 1, 2, 2)), **options), IMAGE, dynamic=dynamic)
    assert apply(fold_pad, graph, IMAGE, tolerance=1e-6)
    (node,) = [node for node in graph.graph.nodes if node.op == "call_function"]
    own = options.get("padding", 0)
    rows, columns = own if isinstance(own, tuple) else (own, own)
    assert node.kwargs.get("padding", (node.args + (None,) * 7)[4]) == [2 + rows, 1 + columns]


PADS = {
    "it pads unevenly": lambda x: f.pad(x, (1, 0, 1, 0)),
    "it does not pad with zeros": lambda x: f.pad(x, (1, 1, 1, 1), value=1.0),
    "it pads batch or channels": lambda x: f.pad(x[:, :2], (0, 0, 0, 0, 1, 1)),
}


@pytest.mark.parametrize("reason", PADS)
def test_pad_declined(reason):
    graph = graph_of(Padded(PADS[reason]), IMAGE)
    assert not apply(fold_pad, graph, IMAGE)
    assert f"pad-folding: {reason}" in take_notes(graph).declined


# --- bias -------------------------------------------------------------------------------------------------------------


class Flat(nn.Module):
    """As transformers' Conv1D is: its weight is the other way round, and its input flat."""

    def __init__(self, biased=True):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(8, 6)), nn.Parameter(torch.randn(6))
        self.biased = biased

    def forward(self, x):
        flat = x.reshape(-1, 8)
        product = torch.addmm(self.bias, flat, self.weight) if self.biased else torch.mm(flat, self.weight)
        return product.reshape(*x.shape[:-1], 6) + x[..., :6]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("biased", [False, True])
def test_a_flat_product(biased, dynamic):
    graph = graph_of(Flat(biased), ROWS, dynamic=dynamic)
    assert apply(fuse_bias, graph, ROWS, tolerance=1e-5)
    left = [name for name in targets(graph) if name not in ("slice.Tensor", "add.Tensor") and "sym_size" not in name]
    assert [name for name in left if name not in ("mul", "reshape.default")] == ["linear.default"]
    assert "reshape.default" not in left
    (turned,) = [node for node in graph.graph.nodes if node.op == "get_attr" and "folded" in str(node.target)]
    assert turned.meta["folded_from"] == {"weight"}
    assert getattr(graph, turned.target).data_ptr() == graph.weight.data_ptr()


class Biased(nn.Module):
    def __init__(self, layer, shape, function=torch.add):
        super().__init__()
        self.layer, self.offset, self.function = layer, nn.Parameter(torch.randn(shape)), function

    def forward(self, x):
        return self.function(self.layer(x), self.offset)


@pytest.mark.parametrize(
    ("layer", "shape", "x"),
    [
        (nn.Linear(8, 6, bias=False), (6,), ROWS),
        (nn.Linear(8, 6, bias=False), (1, 6), ROWS),
        (nn.Conv2d(4, 6, 3, bias=False), (6, 1, 1), IMAGE),
        (nn.Conv2d(4, 6, 3, bias=False), (1, 6, 1, 1), IMAGE),
    ],
    ids=["vector", "row", "channels", "channels of a batch"],
)
def test_bias(layer, shape, x):
    for function in (torch.add, lambda y, b: b + y):
        graph = graph_of(Biased(layer, shape, function), x)
        assert apply(fuse_bias, graph, x, tolerance=1e-5)
        assert len(targets(graph)) == 1


@pytest.mark.parametrize(
    ("layer", "shape", "x"),
    [
        (nn.Linear(8, 6), (6,), ROWS),
        (nn.Linear(8, 6, bias=False), (5, 1), ROWS),
        (nn.Linear(8, 6, bias=False), (1,), ROWS),
        (nn.Conv2d(4, 4, 3, bias=False), (4,), IMAGE),
    ],
    ids=["has one", "rows", "one number", "columns of an image"],
)
def test_no_bias(layer, shape, x):
    graph = graph_of(Biased(layer, shape), x)
    assert not apply(fuse_bias, graph, x)


# --- factors ----------------------------------------------------------------------------------------------------------

SCALED = {
    "a number": (nn.Linear(8, 6), (), lambda y, s: y * 3.7, ROWS),
    "a divisor": (nn.Linear(8, 6, bias=False), (), lambda y, s: y / 3.7, ROWS),
    "features": (nn.Linear(8, 6), (6,), lambda y, s: s * y, ROWS),
    "channels": (nn.Conv2d(4, 6, 3), (6, 1, 1), lambda y, s: y * s, IMAGE),
    "channels of groups": (nn.Conv2d(4, 6, 3, groups=2), (1, 6, 1, 1), lambda y, s: y / s, IMAGE),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, groups=2), (6, 1, 1), lambda y, s: y * s, IMAGE),
}


@pytest.mark.parametrize("name", SCALED)
def test_scale(name):
    layer, shape, function, x = SCALED[name]
    model = Biased(layer, shape, function)
    model.offset.data = model.offset.data.abs() + 0.5
    graph = graph_of(model, x)
    assert apply(fold_scale, graph, x, tolerance=1e-5)
    assert len(targets(graph)) == 1
    assert any("layer.weight" in names for names in sources(graph).values())


def test_scale_of_attention():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.query = nn.Linear(8, 8)

        def forward(self, x):
            query = self.query(x).view(2, 5, 2, 4).transpose(1, 2)
            other = x.view(2, 5, 2, 4).transpose(1, 2)
            return f.scaled_dot_product_attention(query, other, other)

    graph = graph_of(Attention(), ROWS)
    assert apply(fold_scale, graph, ROWS, tolerance=1e-5)
    (node,) = [n for n in graph.graph.nodes if n.target is torch.ops.aten.scaled_dot_product_attention.default]
    assert node.kwargs["scale"] == 1.0


def test_scale_of_attention_whose_queries_are_its_keys_too():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.query = nn.Linear(8, 8)

        def forward(self, x):
            query = self.query(x).view(2, 5, 2, 4).transpose(1, 2)
            return f.scaled_dot_product_attention(query, query, query)

    assert not apply(fold_scale, graph_of(Attention(), ROWS), ROWS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("factor", "folded"), [(0.125, True), (0.3, False)])
def test_halves_only_by_powers_of_two(dtype, factor, folded):
    x = ROWS.to(dtype)
    graph = graph_of(Biased(nn.Linear(8, 6), (), lambda y, s: y * factor).to(dtype), x)
    assert apply(fold_scale, graph, x) is folded  # to the last bit
    assert targets(graph) == (["linear.default"] if folded else ["linear.default", "mul.Tensor"])


@pytest.mark.parametrize(
    "function",
    [lambda y, s: (y * 2, y), lambda y, s: y * y, lambda y, s: 2 / y, lambda y, s: y * s],
    ids=["read elsewhere", "a square", "a reciprocal", "rows"],
)
def test_no_scale(function):
    graph = graph_of(Biased(nn.Linear(8, 6), (5, 1), function), ROWS)
    assert not apply(fold_scale, graph, ROWS)
